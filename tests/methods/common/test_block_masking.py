"""Block masks: which boxes are drawn, which of them are accepted, and how the number is completed."""

from itertools import islice, product

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from mask_structure import mark_visible

from vidstill.methods.common.masking import CuboidMask, RandomMask, draw_cuboid_mask, draw_cuboids
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import Grid

CLIP = Grid(8, 14, 14)
SEEDS = torch.arange(64)
seeds = st.integers(0, 2**63 - 1)
grids = st.builds(Grid, st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))
BOXES = [box for seed in range(100) for box in islice(draw_cuboids(derive_sample_seed(0, 0, seed), CLIP), 100)]
SIZES = np.array([[side.stop - side.start for side in box] for box in BOXES])


@given(seeds, grids)
def test_boxes_lie_in_the_grid_and_are_lower_and_narrower_than_it(seed, grid):
    for time, rows, columns in islice(draw_cuboids(seed, grid), 150):
        assert 0 <= time.start < time.stop <= grid.t
        assert 0 <= rows.start <= rows.stop <= grid.h > rows.stop - rows.start
        assert 0 <= columns.start <= columns.stop <= grid.w > columns.stop - columns.start


def test_boxes_cover_a_fifth_of_a_time_step_or_more_and_are_neither_too_oblong_nor_mostly_upright():
    heights, widths = SIZES[SIZES[:, 1] > 0, 1:].T
    assert len(heights) > 1000
    # each side is rounded by 0.5 at most
    assert ((heights + 0.5) * (widths + 0.5) >= 39).all()  # 14 · 14 / 5, rounded down
    assert ((heights + 0.5) / (widths - 0.5) >= 0.3).all()
    assert ((widths + 0.5) / (heights - 0.5) >= 0.3).all()
    upright, lying = (heights > widths).sum(), (widths > heights).sum()
    assert abs(upright - lying) < 5 * (upright + lying) ** 0.5


def test_every_length_and_every_start_of_it_are_equally_likely():
    lengths, starts = SIZES[:, 0], np.array([time.start for time, _, _ in BOXES])
    for values, expected in ((lengths - 1, 1 / 8), (starts[lengths == 3], 1 / 6)):
        frequencies = np.bincount(values, minlength=round(1 / expected)) / len(values)
        assert abs(frequencies - expected).max() < 5 * (expected * (1 - expected) / len(values)) ** 0.5


@given(seeds, grids, st.data())
def test_a_box_is_accepted_if_it_masks_something_new_and_not_too_much(seed, grid, data):
    max_masked = data.draw(st.integers(1, grid.num_tokens))
    masked: set[tuple[int, ...]] = set()
    rejected = 0
    for box in draw_cuboids(seed, grid):
        new = set(product(*(range(side.start, side.stop) for side in box))) - masked
        is_accepted = 0 < len(new) <= max_masked - len(masked)
        masked |= new if is_accepted else set()
        rejected = 0 if is_accepted else rejected + 1
        if len(masked) == max_masked or rejected == 100:
            break
    assert {tuple(index) for index in np.argwhere(draw_cuboid_mask(seed, grid, max_masked)).tolist()} == masked


@given(grids, st.floats(0, 0.9))
def test_single_tokens_outside_the_boxes_complete_the_number(grid, ratio):
    num_masked = grid.num_tokens - int(grid.num_tokens * (1 - ratio))
    if num_masked == grid.num_tokens:
        return
    mask = CuboidMask(ratio=ratio).draw(SEEDS[:4], grid)
    assert mask.masked.shape[1] == num_masked
    for seed, visible in zip(SEEDS[:4].tolist(), mark_visible(mask, grid).numpy(), strict=True):
        assert not (visible & draw_cuboid_mask(seed, grid, num_masked)).any()


def test_nearly_all_masked_tokens_of_a_clip_are_in_boxes_and_adjacent():
    shares = [draw_cuboid_mask(seed, CLIP, 1176).sum() / 1176 for seed in SEEDS.tolist()]
    assert np.mean(shares) > 0.95

    def count_borders(config):
        visible = mark_visible(config.draw(SEEDS, CLIP), CLIP).int()
        return sum((visible.diff(dim=axis) != 0).float().mean().item() for axis in (1, 2, 3))

    assert count_borders(CuboidMask(ratio=0.5)) < 0.5 * count_borders(RandomMask(ratio=0.5))


@given(st.integers(1, 4), st.integers(4, 9))
def test_where_no_box_fits_single_tokens_are_masked(slots, length):
    for grid in (Grid(slots, 1, length), Grid(slots, length, 1)):
        blocks, random = (kind(ratio=0.75).draw(SEEDS, grid) for kind in (CuboidMask, RandomMask))
        assert torch.equal(blocks.visible, random.visible)


def test_boxes_are_drawn_on_the_cpu_whatever_the_default_device_is():
    with torch.device("meta"):  # as in a dry run
        mask = CuboidMask(ratio=0.75).draw(torch.zeros(2, dtype=torch.long), Grid(2, 4, 4))
    assert mask.visible.shape == (2, 8)
