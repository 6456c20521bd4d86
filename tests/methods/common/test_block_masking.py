"""Masks of blocks: what boxes are drawn, which of them are taken, and what makes up the number."""

from itertools import islice, product

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from mask_structure import mark_visible

from vidstill.methods.common.block_masking import CuboidMask, draw_cuboid_mask, draw_cuboids
from vidstill.methods.common.masking import RandomMask
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import Grid

CLIP = Grid(8, 14, 14)
SEEDS = torch.arange(64)
seeds = st.integers(0, 2**63 - 1)
grids = st.builds(Grid, st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))
MANY = [box for seed in range(100) for box in islice(draw_cuboids(derive_sample_seed(0, 0, seed), CLIP), 100)]


def inside(box: tuple[slice, slice, slice]) -> set[tuple[int, ...]]:
    return set(product(*(range(side.start, side.stop) for side in box)))


@given(seeds, grids)
def test_a_box_lies_in_the_grid_and_is_lower_and_narrower_than_it(seed, grid):
    for length, high, wide in islice(draw_cuboids(seed, grid), 150):
        assert 0 <= length.start < length.stop <= grid.t
        assert 0 <= high.start <= high.stop <= grid.h
        assert 0 <= wide.start <= wide.stop <= grid.w
        assert high.stop - high.start < grid.h
        assert wide.stop - wide.start < grid.w


def test_a_box_covers_a_fifth_of_a_slot_or_more_and_is_not_too_oblong():
    kept = [(high.stop - high.start, wide.stop - wide.start) for _, high, wide in MANY]
    kept = [(high, wide) for high, wide in kept if high]
    assert len(kept) > 1000
    for high, wide in kept:  # each side is rounded by a half at most
        assert (high + 0.5) * (wide + 0.5) >= 39  # 14 · 14 / 5, rounded down
        assert (high + 0.5) / (wide - 0.5) >= 0.3
        assert (wide + 0.5) / (high - 0.5) >= 0.3


def test_every_length_and_every_place_of_it_are_equally_likely():
    lengths = [length for length, _, _ in MANY]
    counts = np.bincount([length.stop - length.start for length in lengths], minlength=9)[1:] / len(MANY)
    assert abs(counts - 1 / 8).max() < 5 * (1 / 8 * 7 / 8 / len(MANY)) ** 0.5
    short = [length.start for length in lengths if length.stop - length.start == 3]
    counts = np.bincount(short, minlength=6) / len(short)
    assert abs(counts - 1 / 6).max() < 5 * (1 / 6 * 5 / 6 / len(short)) ** 0.5


def test_boxes_are_as_often_high_as_wide():
    sides = [(high.stop - high.start, wide.stop - wide.start) for _, high, wide in MANY]
    upright, lying = sum(high > wide for high, wide in sides), sum(wide > high for high, wide in sides)
    assert abs(upright - lying) < 5 * (upright + lying) ** 0.5


@given(seeds, grids, st.data())
def test_a_box_is_taken_if_it_hides_something_new_and_not_too_much(seed, grid, data):
    most = data.draw(st.integers(1, grid.num_tokens))
    hidden: set[tuple[int, ...]] = set()
    failed = 0
    for box in draw_cuboids(seed, grid):
        new = inside(box) - hidden
        taken = 0 < len(new) <= most - len(hidden)
        hidden |= new if taken else set()
        failed = 0 if taken else failed + 1
        if len(hidden) == most or failed == 100:
            break
    assert set(zip(*(axis.tolist() for axis in draw_cuboid_mask(seed, grid, most).nonzero()), strict=True)) == hidden


@given(grids, st.floats(0, 0.9))
def test_all_that_boxes_hide_is_hidden_and_single_tokens_make_up_the_number(grid, ratio):
    hidden = grid.num_tokens - int(grid.num_tokens * (1 - ratio))
    if hidden == grid.num_tokens:
        return
    mask = CuboidMask(ratio=ratio).draw(SEEDS[:4], grid)
    assert mask.masked.shape[1] == hidden
    for seed, seen in zip(SEEDS[:4].tolist(), mark_visible(mask, grid).numpy(), strict=True):
        assert not (seen & draw_cuboid_mask(seed, grid, hidden)).any()


def test_nearly_all_that_is_hidden_of_a_clip_is_hidden_by_boxes():
    shares = [draw_cuboid_mask(seed, CLIP, 1176).sum() / 1176 for seed in SEEDS.tolist()]
    assert np.mean(shares) > 0.95


def test_hidden_tokens_stand_together():
    def sides_between_seen_and_hidden(config):
        seen = mark_visible(config.draw(SEEDS, CLIP), CLIP).int()
        return sum((seen.diff(dim=axis) != 0).float().mean().item() for axis in (1, 2, 3))

    assert sides_between_seen_and_hidden(CuboidMask(ratio=0.5)) < 0.5 * sides_between_seen_and_hidden(
        RandomMask(ratio=0.5)
    )


@given(st.integers(1, 4), st.integers(4, 9))
def test_where_no_box_fits_tokens_are_hidden_anywhere(slots, places):
    for grid in (Grid(slots, 1, places), Grid(slots, places, 1)):
        blocks, anywhere = (kind(ratio=0.75).draw(SEEDS, grid) for kind in (CuboidMask, RandomMask))
        assert torch.equal(blocks.visible, anywhere.visible)


def test_boxes_are_drawn_on_the_cpu_whatever_torch_takes_for_its_device():
    with torch.device("meta"):  # as a run is rehearsed
        mask = CuboidMask(ratio=0.75).draw(torch.zeros(2, dtype=torch.long), Grid(2, 4, 4))
    assert mask.visible.shape == (2, 8)
