"""Linear probes find what is linear in the features, and nothing that is not there."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vidstill.engine.optimizer import LARSConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.probes.linear import (
    DEFAULT_PENALTY,
    PENALTY_GRID,
    LinearProbeModel,
    assign_folds,
    choose_penalty,
    evaluate_linear_probe,
    extract_mean_features,
    fit_logistic_regression,
)

CLASSES = 4


def clouds(count: int, *, apart: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around a corner for each class, so far apart."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return torch.randn(count, 8, generator=chance) + apart * torch.eye(CLASSES, 8)[labels], labels


def test_a_probe_tells_separable_classes_apart():
    found = evaluate_linear_probe(*clouds(200, apart=8, seed=0), *clouds(100, apart=8, seed=1), CLASSES)
    assert found.top1 == 100
    assert found.videos == 100


def test_a_probe_of_noise_is_at_chance():
    found = evaluate_linear_probe(*clouds(200, apart=0, seed=0), *clouds(2000, apart=0, seed=1), CLASSES)
    assert found.top1 == pytest.approx(25, abs=5)  # five standard errors


def test_a_probe_does_not_depend_on_the_scale_and_place_of_a_channel():
    train, labels = clouds(100, apart=1.5, seed=0)
    val, val_labels = clouds(100, apart=1.5, seed=1)
    scale, place = torch.logspace(-3, 3, 8), torch.linspace(-50, 50, 8)
    moved = evaluate_linear_probe(train * scale + place, labels, val * scale + place, val_labels, CLASSES)
    assert moved.top1 == pytest.approx(evaluate_linear_probe(train, labels, val, val_labels, CLASSES).top1, abs=1)


def test_a_channel_that_never_changes_is_harmless():
    train, labels = clouds(100, apart=8, seed=0)
    val, val_labels = clouds(100, apart=8, seed=1)
    dead = torch.full((100, 1), 3.0)
    found = evaluate_linear_probe(
        torch.cat([train, dead], 1), labels, torch.cat([val, dead + 5], 1), val_labels, CLASSES
    )
    assert found.top1 == 100


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
def test_a_probe_is_the_optimum_of_its_loss(penalty):
    """Its gradients are zero there: Σ (p - y) xᵀ + penalty · W in the weights, and Σ (p - y) in the biases."""
    vectors, labels = clouds(120, apart=1, seed=0)
    fit = fit_logistic_regression(vectors, labels, CLASSES, penalty)
    inputs = (vectors - vectors.double().mean(0)) / vectors.double().std(0)
    wrong = fit.predict_logits(vectors).softmax(1) - F.one_hot(labels, CLASSES)
    torch.testing.assert_close(wrong.T @ inputs, -penalty * fit.weight, rtol=0, atol=1e-3)
    torch.testing.assert_close(wrong.sum(0), torch.zeros(CLASSES, dtype=torch.float64), rtol=0, atol=1e-3)
    assert fit.weight.norm() > 0.01


def test_a_fit_does_not_depend_on_where_it_starts():
    vectors, labels = clouds(120, apart=1, seed=0)
    far = fit_logistic_regression(vectors, labels, CLASSES, 0.01)
    torch.testing.assert_close(
        fit_logistic_regression(vectors, labels, CLASSES, 10.0, init=far).weight,
        fit_logistic_regression(vectors, labels, CLASSES, 10.0).weight,
        rtol=1e-3,
        atol=1e-4,
    )


def test_the_default_penalty_is_that_of_a_plain_linear_probe():
    train, val = clouds(60, apart=1, seed=0), clouds(60, apart=1, seed=1)
    assert evaluate_linear_probe(*train, *val, CLASSES) == evaluate_linear_probe(
        *train, *val, CLASSES, penalty=DEFAULT_PENALTY
    )


@pytest.mark.parametrize(("apart", "dims", "least", "most"), [(1.0, 200, 10, 1000), (4.0, 0, 0.01, 10)])
def test_noisy_features_take_a_larger_penalty_than_clear_ones(apart, dims, least, most):
    vectors, labels = clouds(60, apart=apart, seed=0)
    noise = 3 * torch.randn(60, dims, generator=torch.Generator().manual_seed(5))
    assert least <= choose_penalty(torch.cat([vectors, noise], 1), labels, CLASSES) <= most


def test_the_chosen_penalty_is_the_best_on_what_was_held_out():
    vectors, labels = clouds(60, apart=1, seed=0)
    part = assign_folds(labels)

    def rated(penalty):
        hits, loss = 0, 0.0
        for held in (part == number for number in range(5)):
            logits = fit_logistic_regression(vectors[~held], labels[~held], CLASSES, penalty).predict_logits(
                vectors[held]
            )
            hits += int((logits.argmax(1) == labels[held]).sum())
            loss += float(F.cross_entropy(logits, labels[held], reduction="sum"))
        return hits, -loss

    assert choose_penalty(vectors, labels, CLASSES) == max(PENALTY_GRID, key=rated)


def test_every_fold_has_its_share_of_every_class_and_neighbours_stay_together():
    labels = torch.tensor([0] * 10 + [1] * 7 + [0] * 5)
    found = assign_folds(labels)
    for label, sizes in ((0, {3}), (1, {1, 2})):
        cls_embedding = found[labels == label]
        assert set(cls_embedding.bincount(minlength=5).tolist()) == sizes
        assert (cls_embedding.diff() >= 0).all()


def test_where_nothing_can_be_held_out_the_penalty_is_the_usual_one():
    assert choose_penalty(torch.eye(3), torch.arange(3), 3) == DEFAULT_PENALTY


def test_features_are_the_mean_over_tokens_clip_by_clip():
    encoder = ViTConfig(dim=24, depth=1, heads=2, tubelet=(2, 4, 4)).build()
    clips, labels = torch.rand(5, 3, 4, 8, 8), torch.arange(5)
    batches = [(clips[:2], labels[:2]), (clips[2:], labels[2:])]
    found, their_labels = extract_mean_features(encoder, batches)
    assert torch.equal(their_labels, labels)
    torch.testing.assert_close(found, encoder(clips).tokens.mean(1).detach())
    assert not found.requires_grad
    assert encoder.training


IMAGES = ViTConfig(dim=24, depth=2, heads=2, tubelet=(1, 4, 4), positions="sincos2d", drop_path=0.5)


@pytest.mark.parametrize("class_token", [True, False])
def test_only_the_head_of_a_probed_model_is_trained(class_token):
    probe = LinearProbeModel(replace(IMAGES, class_token=class_token).build(), CLASSES).train()
    before = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
    optimizer = LARSConfig(base_lr=1.0).build(probe)
    F.cross_entropy(probe(torch.rand(6, 3, 1, 8, 8)), torch.arange(6) % CLASSES).backward()
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    optimizer.step()
    changed = {name for name, tensor in probe.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed == {"head.weight", "head.bias"} | statistics


def test_in_training_a_probed_model_sees_what_the_encoder_gives_in_a_test():
    probe = LinearProbeModel(replace(IMAGES, class_token=True).build(), CLASSES).train()
    clip = torch.rand(6, 3, 1, 8, 8)
    with torch.no_grad():
        seen = probe.encoder(clip).classes[:, 0]
        standard = (seen - seen.mean(0)) / (seen.var(0, unbiased=False) + 1e-6).sqrt()
        torch.testing.assert_close(probe(clip), probe.head(standard), rtol=1e-4, atol=1e-4)  # of near-equal numbers


def test_without_a_class_token_a_probed_model_sees_the_mean_of_the_tokens():
    probe = LinearProbeModel(IMAGES.build(), CLASSES).eval()
    clip = torch.rand(2, 3, 1, 8, 8)
    mean = probe.encoder(clip).tokens.mean(1)
    torch.testing.assert_close(probe(clip), probe.head(mean / (1 + 1e-6) ** 0.5))  # it has counted nothing yet
