"""Masks, for every grid and every ratio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidstill.pretext.masks import Mask, NestedTubeMask, TubeMask
from vidstill.types import Grid, InputError

sizes = st.integers(1, 6)
grids = st.builds(Grid, sizes, sizes, sizes)
ratios = st.floats(0, 1, exclude_max=True)
SEEDS = torch.tensor([0, 1, 2**62, 12345])


def nested(one: float, other: float) -> NestedTubeMask:
    return NestedTubeMask(student_ratio=max(one, other), teacher_ratio=min(one, other))


@given(grids, ratios)
def test_a_tube_hides_the_same_places_in_every_slot(grid, ratio):
    mask = TubeMask(ratio=ratio).draw(SEEDS, grid)
    for tokens in (mask.masked, mask.visible):
        places = tokens.view(len(SEEDS), grid.t, -1) % (grid.h * grid.w)
        assert (places == places[:, :1]).all()


@given(grids, ratios)
def test_visible_and_masked_are_all_tokens_each_once(grid, ratio):
    mask = TubeMask(ratio=ratio).draw(SEEDS, grid)
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(grid.tokens).expand(len(SEEDS), -1))
    assert mask.masked.shape[1] == grid.t * int(ratio * grid.h * grid.w)


@given(grids, ratios, ratios)
def test_the_teacher_sees_what_the_student_sees_and_its_extra_tokens(grid, one, other):
    mask = nested(one, other).draw(SEEDS, grid)
    assert mask.extra is not None
    assert mask.teacher_visible.shape[1] == grid.t * (grid.h * grid.w - int(min(one, other) * grid.h * grid.w))
    for clip in range(len(SEEDS)):
        visible, masked, extra = (set(tokens[clip].tolist()) for tokens in (mask.visible, mask.masked, mask.extra))
        assert extra <= masked
        assert visible | masked == set(range(grid.tokens))
        assert not visible & masked
        assert mask.teacher_visible[clip].tolist() == [*sorted(visible), *sorted(extra)]


@given(grids, ratios, ratios)
def test_tokens_ascend(grid, one, other):
    mask = nested(one, other).draw(SEEDS, grid)
    for tokens in (mask.visible, mask.masked, mask.extra):
        assert (tokens.diff(dim=1) > 0).all()


@given(grids, ratios)
def test_the_student_of_a_nested_mask_sees_what_a_tube_mask_shows(grid, ratio):
    plain, both = TubeMask(ratio=ratio).draw(SEEDS, grid), nested(ratio, 0.0).draw(SEEDS, grid)
    assert torch.equal(plain.visible, both.visible)
    assert torch.equal(plain.masked, both.masked)


@given(grids, ratios, st.permutations(range(len(SEEDS))))
def test_a_seed_decides_its_mask_whatever_batch_it_arrives_in(grid, ratio, order):
    config = TubeMask(ratio=ratio)
    together, moved = config.draw(SEEDS, grid), config.draw(SEEDS[order], grid)
    assert torch.equal(moved.visible, together.visible[order])
    alone = config.draw(SEEDS[order[0]][None], grid)
    assert torch.equal(alone.masked[0], together.masked[order[0]])


def test_every_place_is_hidden_as_often_as_any_other():
    seeds, grid = torch.arange(4000), Grid(1, 4, 5)
    hidden = TubeMask(ratio=0.75).draw(seeds, grid).masked
    counts = torch.bincount(hidden.flatten(), minlength=20).double() / len(seeds)
    assert (counts - 0.75).abs().max() < 5 * (0.75 * 0.25 / len(seeds)) ** 0.5


def test_a_teacher_that_sees_all_has_no_place_that_neither_sees():
    mask = NestedTubeMask(student_ratio=0.9, teacher_ratio=0.0).draw(SEEDS, Grid(2, 4, 4))
    assert torch.equal(mask.extra, mask.masked)


def test_equal_ratios_leave_nothing_for_the_teacher_alone():
    mask = NestedTubeMask(student_ratio=0.5, teacher_ratio=0.5).draw(SEEDS, Grid(2, 4, 4))
    assert mask.extra.shape == (4, 0)
    assert torch.equal(mask.teacher_visible, mask.visible)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 90.0, float("nan")])
def test_a_ratio_that_is_no_share_is_met_with_a_sentence(ratio):
    with pytest.raises(InputError, match="is no share; take 0 up to, but below, 1"):
        TubeMask(ratio=ratio).draw(SEEDS, Grid(2, 4, 4))


def test_a_teacher_that_would_see_less_is_met_with_a_sentence():
    with pytest.raises(InputError, match=r"teacher's mask ratio 0\.9 is above the student's 0\.75"):
        NestedTubeMask(student_ratio=0.75, teacher_ratio=0.9).draw(SEEDS, Grid(2, 4, 4))


def test_without_extra_tokens_the_teacher_sees_what_the_student_sees():
    visible = torch.tensor([[1, 2]])
    assert Mask(visible, torch.tensor([[0, 3]])).teacher_visible is visible
