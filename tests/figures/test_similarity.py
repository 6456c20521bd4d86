"""Centred kernel alignment, and the student's layers beside the teacher's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.figures.similarity import center_tokens, compute_layer_similarity, linear_cka, match_layers
from vidstill.models.vit import ViTConfig

ENCODER = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))


def features(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_features_are_like_themselves_turned_scaled_and_moved(seed, scale, place):
    one = features(50, 6, seed)
    rotation = torch.linalg.qr(features(6, 6, seed + 1)).Q
    assert linear_cka(one, one @ rotation * scale + place) == pytest.approx(1)


@given(st.integers(0, 1000))
def test_the_order_of_the_two_does_not_matter_and_all_is_between_0_and_1(seed):
    one, other = features(20, 6, seed), features(20, 9, seed + 1)
    assert linear_cka(one, other) == pytest.approx(linear_cka(other, one))
    assert 0 <= linear_cka(one, other) <= 1


def test_independent_features_are_not_alike():
    assert linear_cka(features(5000, 6, 0), features(5000, 9, 1)) < 0.01


def test_half_of_two_equal_directions_shared_is_worth_a_half():
    """X = (a, b), Y = a for uncorrelated a, b of one size: |Y'X|² / (|X'X| |Y'Y|) = 1 / √2."""
    a, b = torch.linalg.qr(features(50, 3, 0) - features(50, 3, 0).mean(0)).Q.T[:2]
    a, b = a[:, None], b[:, None]
    assert linear_cka(torch.cat([a, b], 1), a) == pytest.approx(2**-0.5)


def test_the_last_layers_belong_together():
    assert match_layers(4, 8) == {1: 2, 2: 4, 3: 6, 4: 8}
    assert match_layers(3, 3) == {1: 1, 2: 2, 3: 3}
    assert match_layers(12, 24)[12] == 24


def test_a_model_is_like_itself_in_every_layer_and_unlike_another():
    one, other = ENCODER.build().eval(), ENCODER.build().eval()
    clips = [torch.rand(4, 3, 4, 8, 8), torch.rand(3, 3, 4, 8, 8)]
    assert compute_layer_similarity(one, one, clips) == pytest.approx([1, 1])
    assert all(value < 0.999 for value in compute_layer_similarity(one, other, clips))


def test_codes_of_places_alone_make_no_likeness():
    codes = 10 * features(16, 6, 0)
    one, other = (codes + features(16 * 200, 6, seed).view(200, 16, 6) for seed in (1, 2))
    assert linear_cka(one.flatten(0, 1), other.flatten(0, 1)) > 0.9
    assert linear_cka(center_tokens(one), center_tokens(other)) < 0.01
