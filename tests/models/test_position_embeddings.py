"""Position codes against their formulas, entry by entry, and learned tables on other grids."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vidstill.models.position_embeddings import (
    PositionEmbedding,
    build_position_table,
    build_sincos_2d,
    build_sincos_3d,
    build_sinusoid_table,
    resize_position_table,
)
from vidstill.utils.types import Grid, InputError

CPU = torch.device("cpu")
sizes = st.integers(1, 4)
grids = st.builds(Grid, sizes, sizes, sizes)


def angle(place: int, channel: int, width: int) -> float:
    """Of sines (channels below half the width) and cosines (the others) with falling frequencies."""
    return place * 10000 ** (-(channel % (width // 2)) / (width / 2))


def wave(place: int, channel: int, width: int) -> float:
    return (math.sin if channel < width // 2 else math.cos)(angle(place, channel, width))


@given(grids, st.sampled_from([6, 8, 24]))
def test_the_flat_code_has_sine_and_cosine_by_turns(grid, dim):
    table = build_position_table("sinusoid", grid, dim, CPU)
    for place in range(grid.num_tokens):
        for channel in range(dim):
            turn = math.cos if channel % 2 else math.sin
            expected = turn(place / 10000 ** (2 * (channel // 2) / dim))
            assert table[place, channel].item() == pytest.approx(expected, abs=1e-6)


@given(grids)
def test_the_code_of_a_frame_has_the_column_first_then_the_row(grid):
    table = build_position_table("sincos2d", grid, 16, CPU)
    for number, row in enumerate(table.tolist()):
        place = number % (grid.h * grid.w)
        column_code = [wave(place % grid.w, channel, 8) for channel in range(8)]
        row_code = [wave(place // grid.w, channel, 8) for channel in range(8)]
        assert row == pytest.approx(column_code + row_code, abs=1e-6)


@given(grids)
def test_the_separable_code_has_a_quarter_for_the_time(grid):
    table = build_position_table("sincos3d", grid, 32, CPU)
    for number, row in enumerate(table.tolist()):
        slot, place = divmod(number, grid.h * grid.w)
        assert row[:8] == pytest.approx([wave(slot, channel, 8) for channel in range(8)], abs=1e-6)
        assert row[8:20] == pytest.approx([wave(place % grid.w, channel, 12) for channel in range(12)], abs=1e-6)
        assert row[20:] == pytest.approx([wave(place // grid.w, channel, 12) for channel in range(12)], abs=1e-6)


@pytest.mark.parametrize("kind", ["sinusoid", "sincos2d", "sincos3d"])
def test_a_table_is_the_same_when_a_default_device_is_set(kind):
    expected = build_position_table(kind, Grid(2, 3, 2), 16, CPU).clone()
    build_position_table.cache_clear()
    with torch.device("meta"):
        assert torch.equal(build_position_table(kind, Grid(2, 3, 2), 16, CPU), expected)


@pytest.mark.parametrize(
    "make",
    [lambda: build_sincos_2d(2, 2, 18), lambda: build_sincos_3d(Grid(2, 2, 2), 24), lambda: build_sincos_2d(2, 2, 6)],
)
def test_a_width_that_has_no_such_code_is_met_with_a_sentence(make):
    with pytest.raises(InputError, match=r"width of \d+ does not divide .*; take a multiple of \d+"):
        make()


def test_tokens_are_told_apart():
    for kind in ("sinusoid", "sincos3d"):
        table = build_position_table(kind, Grid(3, 4, 5), 32, CPU)
        assert (torch.cdist(table, table) + torch.eye(60) > 1e-2).all()


@given(grids, st.integers(0, 100))
def test_a_learned_table_on_its_own_grid_is_itself(grid, seed):
    table = torch.randn(grid.num_tokens, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(resize_position_table(table, grid, grid), table)


@given(grids, grids)
def test_a_constant_table_stays_constant_on_every_grid(old, new):
    resized = resize_position_table(torch.full((old.num_tokens, 3), 2.5), old, new)
    torch.testing.assert_close(resized, torch.full((new.num_tokens, 3), 2.5))


def test_time_is_resized_apart_from_space():
    place = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    table = torch.cat([place, place])  # the same in both slots
    longer = resize_position_table(table, Grid(2, 2, 3), Grid(5, 2, 3)).view(5, 6, 5)
    torch.testing.assert_close(longer, place.expand(5, 6, 5))
    rising = torch.arange(4.0)[:, None].repeat_interleave(6, dim=0)
    halved = resize_position_table(rising, Grid(4, 2, 3), Grid(2, 2, 3)).view(2, 6)
    torch.testing.assert_close(halved, torch.tensor([0.5, 2.5])[:, None].expand(2, 6))


def test_rows_and_columns_keep_their_order_when_resized():
    rows = torch.arange(4.0).repeat_interleave(4)[:, None]  # rises along rows, flat along columns
    larger = resize_position_table(rows, Grid(1, 4, 4), Grid(1, 8, 4)).view(8, 4)
    assert (larger.diff(dim=0) > 0).all()
    torch.testing.assert_close(larger, larger[:, :1].expand(8, 4))


def test_the_flat_code_is_made_in_double_precision():
    exact = build_sinusoid_table(1568, 768)
    assert exact.dtype == torch.float64
    assert build_position_table("sinusoid", Grid(8, 14, 14), 768, CPU).dtype == torch.float32


@pytest.mark.parametrize("kind", ["sinusoid", "sincos2d", "sincos3d"])
@given(grids)
def test_a_computed_code_whose_grid_is_given_is_the_table_of_that_grid_there(kind, grid):
    codes = PositionEmbedding(kind, 16, (grid.t, grid.h, grid.w))
    assert torch.equal(codes(grid, CPU), build_position_table(kind, grid, 16, CPU))
    assert not list(codes.parameters())


@pytest.mark.parametrize("kind", ["sinusoid", "sincos2d", "sincos3d"])
@given(grids, sizes, sizes)
def test_elsewhere_it_is_that_table_resized_slot_by_slot(kind, grid, rows, columns):
    """As VideoMAE's detection code does, whose flat table is of 8 × 14 × 14 tokens; without a grid it is made anew."""
    codes = PositionEmbedding(kind, 16, (grid.t, grid.h, grid.w))
    found = codes(Grid(grid.t, rows, columns), CPU).view(grid.t, rows, columns, 16)
    table = build_position_table(kind, grid, 16, CPU).view(grid.t, grid.h, grid.w, 16)
    for slot, place in zip(found, table, strict=True):
        expected = F.interpolate(place.permute(2, 0, 1)[None], (rows, columns), mode="bicubic", align_corners=False)
        torch.testing.assert_close(slot.permute(2, 0, 1), expected[0], rtol=0, atol=1e-5)
    new = Grid(grid.t, rows, columns)
    assert torch.equal(PositionEmbedding(kind, 16)(new, CPU), build_position_table(kind, new, 16, CPU))
