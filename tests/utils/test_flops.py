"""What a model costs, against formulas worked out by hand."""

from dataclasses import replace

import pytest

from vidstill.models.vit import BASE, SMALL, ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.flops import compute_model_cost


def products(model: ViTConfig, *, tokens: int, pixels: int) -> int:
    """Multiply-adds of a plain ViT: q, k, v, projection and MLP are 12 d² a token, attention 2 n d a token."""
    return model.depth * (12 * tokens * model.dim**2 + 2 * tokens**2 * model.dim) + tokens * model.dim * pixels


@pytest.mark.parametrize(("model", "parameters", "gflops"), [(SMALL, 22_033_936, 57), (BASE, 86_534_800, 180)])
def test_a_classifier_costs_what_the_papers_say(model, parameters, gflops):
    cost = compute_model_cost(ClassifierConfig(encoder=model, num_classes=400), num_frames=16, size=(224, 224))
    assert cost.num_parameters == parameters
    assert cost.gflops == pytest.approx(gflops, rel=5e-3)
    assert cost.multiply_adds == pytest.approx(products(model, tokens=1568, pixels=1536), rel=1e-4)


def test_every_token_pays_for_the_attention_to_all_others():
    model = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))
    short, long = (compute_model_cost(model, num_frames=frames, size=(16, 8)).multiply_adds for frames in (4, 40))
    assert short == products(model, tokens=16, pixels=96)
    assert long == products(model, tokens=160, pixels=96)


def test_what_a_model_learns_besides_its_layers_is_counted_too():
    fixed = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))
    learned = replace(fixed, positions="learned", learned_grid=(2, 4, 2), class_token=True)
    one, other = (compute_model_cost(model, num_frames=4, size=(16, 8)) for model in (fixed, learned))
    assert other.num_parameters == one.num_parameters + (16 + 2) * 24  # 16 positions; the class token and its own
    assert other.multiply_adds == 2 * (12 * 17 * 24**2 + 2 * 17**2 * 24) + 16 * 24 * 96


def test_nothing_is_stored_for_a_model_that_no_memory_holds():
    vast = ViTConfig(dim=65536, depth=16, heads=64)
    assert compute_model_cost(vast, num_frames=2, size=(16, 16)).parameter_millions > 800_000
