"""Linear probes find what is linear in the features, and nothing that is not there."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vidstill.downstream.probe import ProbeModel, features, linear_probe
from vidstill.engine.optim import LARSConfig
from vidstill.models.vit import ViTConfig

CLASSES = 4


def clouds(count: int, *, apart: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around a corner for each class, so far apart."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return torch.randn(count, 8, generator=chance) + apart * torch.eye(CLASSES, 8)[labels], labels


def test_a_probe_tells_separable_classes_apart():
    found = linear_probe(*clouds(200, apart=8, seed=0), *clouds(100, apart=8, seed=1), CLASSES)
    assert found.top1 == 100
    assert found.videos == 100


def test_a_probe_of_noise_is_at_chance():
    found = linear_probe(*clouds(200, apart=0, seed=0), *clouds(2000, apart=0, seed=1), CLASSES)
    assert found.top1 == pytest.approx(25, abs=5)  # five standard errors


def test_a_probe_does_not_depend_on_the_scale_and_place_of_a_channel():
    train, labels = clouds(100, apart=1.5, seed=0)
    val, val_labels = clouds(100, apart=1.5, seed=1)
    scale, place = torch.logspace(-3, 3, 8), torch.linspace(-50, 50, 8)
    moved = linear_probe(train * scale + place, labels, val * scale + place, val_labels, CLASSES)
    assert moved.top1 == pytest.approx(linear_probe(train, labels, val, val_labels, CLASSES).top1, abs=1)


def test_a_channel_that_never_changes_is_harmless():
    train, labels = clouds(100, apart=8, seed=0)
    val, val_labels = clouds(100, apart=8, seed=1)
    dead = torch.full((100, 1), 3.0)
    found = linear_probe(torch.cat([train, dead], 1), labels, torch.cat([val, dead + 5], 1), val_labels, CLASSES)
    assert found.top1 == 100


def test_features_are_the_mean_over_tokens_clip_by_clip():
    encoder = ViTConfig(dim=24, depth=1, heads=2, tubelet=(2, 4, 4)).build()
    clips, labels = torch.rand(5, 3, 4, 8, 8), torch.arange(5)
    batches = [(clips[:2], labels[:2]), (clips[2:], labels[2:])]
    found, their_labels = features(encoder, batches)
    assert torch.equal(their_labels, labels)
    torch.testing.assert_close(found, encoder(clips).tokens.mean(1).detach())
    assert not found.requires_grad
    assert encoder.training


IMAGES = ViTConfig(dim=24, depth=2, heads=2, tubelet=(1, 4, 4), positions="sincos2d", drop_path=0.5)


@pytest.mark.parametrize("class_token", [True, False])
def test_only_the_head_of_a_probed_model_is_trained(class_token):
    probe = ProbeModel(replace(IMAGES, class_token=class_token).build(), CLASSES).train()
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
    probe = ProbeModel(replace(IMAGES, class_token=True).build(), CLASSES).train()
    clip = torch.rand(6, 3, 1, 8, 8)
    with torch.no_grad():
        seen = probe.encoder(clip).classes[:, 0]
        standard = (seen - seen.mean(0)) / (seen.var(0, unbiased=False) + 1e-6).sqrt()
        torch.testing.assert_close(probe(clip), probe.head(standard), rtol=1e-4, atol=1e-4)  # of near-equal numbers


def test_without_a_class_token_a_probed_model_sees_the_mean_of_the_tokens():
    probe = ProbeModel(IMAGES.build(), CLASSES).eval()
    clip = torch.rand(2, 3, 1, 8, 8)
    mean = probe.encoder(clip).tokens.mean(1)
    torch.testing.assert_close(probe(clip), probe.head(mean / (1 + 1e-6) ** 0.5))  # it has counted nothing yet
