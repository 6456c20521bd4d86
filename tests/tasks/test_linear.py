"""Linear probes: the logistic regression and the choice of its penalty, and MAE's head for LARS."""

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
    fit_logistic_regression,
)

CLASSES = 4


def clouds(count: int, *, distance: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points around one centre per class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return torch.randn(count, 8, generator=generator) + distance * torch.eye(CLASSES, 8)[labels], labels


@pytest.mark.parametrize(("distance", "count", "top1", "error"), [(8, 100, 100, 0), (0, 2000, 25, 5)])
def test_a_probe_separates_separable_classes_and_is_at_random_on_noise(distance, count, top1, error):
    train, val = clouds(200, distance=distance, seed=0), clouds(count, distance=distance, seed=1)
    accuracy = evaluate_linear_probe(*train, *val, CLASSES)
    assert accuracy.top1 == pytest.approx(top1, abs=error)  # five standard errors
    assert accuracy.videos == count
    assert accuracy == evaluate_linear_probe(*train, *val, CLASSES, penalty=DEFAULT_PENALTY)


def test_a_probe_does_not_depend_on_the_scale_and_offset_of_a_channel():
    train, labels = clouds(100, distance=1.5, seed=0)
    val, val_labels = clouds(100, distance=1.5, seed=1)
    scale, offset = torch.logspace(-3, 3, 8), torch.linspace(-50, 50, 8)
    moved = evaluate_linear_probe(train * scale + offset, labels, val * scale + offset, val_labels, CLASSES)
    assert moved.top1 == pytest.approx(evaluate_linear_probe(train, labels, val, val_labels, CLASSES).top1, abs=1)


def test_a_constant_channel_is_harmless():
    train, labels = clouds(100, distance=8, seed=0)
    val, val_labels = clouds(100, distance=8, seed=1)
    dead = torch.full((100, 1), 3.0)
    train, val = torch.cat([train, dead], 1), torch.cat([val, dead + 5], 1)
    assert evaluate_linear_probe(train, labels, val, val_labels, CLASSES).top1 == 100


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
def test_a_fit_is_the_optimum_of_its_loss(penalty):
    """Its gradients are zero: Σ (p - y) xᵀ + penalty · W for the weights, and Σ (p - y) for the biases."""
    vectors, labels = clouds(120, distance=1, seed=0)
    fit = fit_logistic_regression(vectors, labels, CLASSES, penalty)
    inputs = (vectors - vectors.double().mean(0)) / vectors.double().std(0)
    error = fit.predict_logits(vectors).softmax(1) - F.one_hot(labels, CLASSES)
    torch.testing.assert_close(error.T @ inputs, -penalty * fit.weight, rtol=0, atol=1e-3)
    torch.testing.assert_close(error.sum(0), torch.zeros(CLASSES, dtype=torch.float64), rtol=0, atol=1e-3)
    assert fit.weight.norm() > 0.01


def test_a_fit_does_not_depend_on_its_start():
    vectors, labels = clouds(120, distance=1, seed=0)
    far = fit_logistic_regression(vectors, labels, CLASSES, 0.01)
    weights = [fit_logistic_regression(vectors, labels, CLASSES, 10.0, init=init).weight for init in (far, None)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("distance", "dims", "low", "high"), [(1.0, 200, 10, 1000), (4.0, 0, 0.01, 10)])
def test_noisy_features_get_a_larger_penalty_than_clean_ones(distance, dims, low, high):
    vectors, labels = clouds(60, distance=distance, seed=0)
    noise = 3 * torch.randn(60, dims, generator=torch.Generator().manual_seed(5))
    assert low <= choose_penalty(torch.cat([vectors, noise], 1), labels, CLASSES) <= high


def test_the_penalty_is_the_best_on_the_held_out_clips():
    vectors, labels = clouds(60, distance=1, seed=0)
    fold = assign_folds(labels)

    def rate(penalty):
        hits, loss = 0, 0.0
        for held in (fold == number for number in range(5)):
            fit = fit_logistic_regression(vectors[~held], labels[~held], CLASSES, penalty)
            logits = fit.predict_logits(vectors[held])
            hits += int((logits.argmax(1) == labels[held]).sum())
            loss += float(F.cross_entropy(logits, labels[held], reduction="sum"))
        return hits, -loss

    assert choose_penalty(vectors, labels, CLASSES) == max(PENALTY_GRID, key=rate)


def test_folds_have_equal_shares_of_every_class_and_neighbours_stay_together():
    labels = torch.tensor([0] * 10 + [1] * 7 + [0] * 5)
    fold = assign_folds(labels)
    for label, sizes in ((0, {3}), (1, {1, 2})):
        own = fold[labels == label]
        assert set(own.bincount(minlength=5).tolist()) == sizes
        assert (own.diff() >= 0).all()


def test_without_held_out_clips_the_penalty_is_the_default():
    assert choose_penalty(torch.eye(3), torch.arange(3), 3) == DEFAULT_PENALTY


IMAGES = ViTConfig(dim=24, depth=2, heads=2, tubelet=(1, 4, 4), positions="sincos2d", drop_path=0.5)


@pytest.mark.parametrize("global_pool", [False, True])
@pytest.mark.parametrize("cls_token", [True, False])
def test_training_changes_the_head_alone(cls_token, global_pool):
    encoder = replace(IMAGES, class_token=cls_token).build()
    probe = LinearProbeModel(encoder, CLASSES, global_pool=global_pool).train()
    before = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
    optimizer = LARSConfig(base_lr=1.0).build(probe)
    F.cross_entropy(probe(torch.rand(6, 3, 1, 8, 8)), torch.arange(6) % CLASSES).backward()
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    optimizer.step()
    changed = {name for name, tensor in probe.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed == {"head.weight", "head.bias"} | statistics


def test_the_encoder_stays_in_eval_mode_while_the_head_trains():
    probe = LinearProbeModel(replace(IMAGES, class_token=True).build(), CLASSES).train()
    clip = torch.rand(6, 3, 1, 8, 8)
    with torch.no_grad():
        features = probe.encoder(clip).cls_token[:, 0]
        standard = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-6).sqrt()
        torch.testing.assert_close(probe(clip), probe.head(standard), rtol=1e-4, atol=1e-4)  # of nearly equal numbers


def test_without_a_class_token_the_head_gets_the_mean_of_the_tokens():
    probe = LinearProbeModel(IMAGES.build(), CLASSES).eval()
    clip = torch.rand(2, 3, 1, 8, 8)
    mean = probe.encoder(clip).tokens.mean(1)
    torch.testing.assert_close(probe(clip), probe.head(mean / (1 + 1e-6) ** 0.5))  # it has no statistics yet


@pytest.mark.parametrize("cls_token", [True, False])
def test_with_global_pooling_the_head_gets_the_norm_of_the_mean_of_the_patch_tokens(cls_token):
    probe = LinearProbeModel(replace(IMAGES, class_token=cls_token).build(), CLASSES, global_pool=True).eval()
    torch.nn.init.normal_(probe.encoder.norm.weight)
    torch.nn.init.normal_(probe.encoder.norm.bias)
    torch.nn.init.normal_(probe.norm.running_mean)
    clip = torch.rand(2, 3, 1, 8, 8)
    tokens = probe.encoder.embed_tokens(clip)
    if cls_token:
        first = probe.encoder.cls_token.expand(2, 1, -1)
        tokens = torch.cat([first, tokens], dim=1)
    for block in probe.encoder.blocks:
        tokens = block(tokens)
    mean = tokens[:, int(cls_token) :].mean(dim=1)
    norm = probe.encoder.norm
    normed = F.layer_norm(mean, (24,), norm.weight, norm.bias, eps=1e-6)
    standard = (normed - probe.norm.running_mean) / (probe.norm.running_var + 1e-6).sqrt()
    torch.testing.assert_close(probe(clip), standard @ probe.head.weight.T + probe.head.bias)


def test_the_batch_norm_of_a_probe_has_maes_epsilon():
    norm = LinearProbeModel(IMAGES.build(), CLASSES).norm.eval()
    torch.nn.init.zeros_(norm.running_var)  # 1e-6 is left under the root
    torch.testing.assert_close(norm(torch.ones(2, 24)), torch.full((2, 24), 1000.0))
