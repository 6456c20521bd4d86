"""Grids of tokens, and gathering them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.utils.types import Grid, InputError, gather_tokens

sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes, sizes, sizes)
def test_a_grid_counts_the_tubelets_along_each_axis(t, h, w, frames, rows, columns):
    clip = torch.empty(1, 3, t * frames, h * rows, w * columns, device="meta")
    grid = Grid.from_clip(clip, (frames, rows, columns))
    assert grid == Grid(t, h, w)
    assert grid.num_tokens == t * h * w


@pytest.mark.parametrize(
    ("shape", "problem", "mend"),
    [
        ((5, 16, 16), "5 frames does not divide into tubelets of 2", "take 4 frames"),
        ((1, 16, 16), "1 frames", "take 2 frames"),
        ((0, 16, 16), "0 frames", "take 2 frames"),
        ((4, 30, 16), "30 rows does not divide into tubelets of 16", "take 16 rows"),
        ((4, 16, 250), "250 columns", "take 240 columns"),
    ],
)
def test_a_clip_that_does_not_divide_is_refused_with_the_nearest_size(shape, problem, mend):
    with pytest.raises(InputError, match=problem) as error:
        Grid.from_clip(torch.empty(1, 3, *shape), (2, 16, 16))
    assert mend in str(error.value)


def test_each_clips_own_tokens_are_gathered_in_the_order_of_the_indices():
    tokens = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    gathered = gather_tokens(tokens, torch.tensor([[4, 0], [1, 1]]))
    assert torch.equal(gathered, torch.stack([tokens[0, [4, 0]], tokens[1, [1, 1]]]))
