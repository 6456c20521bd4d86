"""Position embeddings against their formulas, entry by entry, and learned tables on other grids."""

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


every_fixed_kind = pytest.mark.parametrize("kind", ["sinusoid", "sincos2d", "sincos3d"])


def compute_sincos(position: int, dim: int) -> list[float]:
    """Return sines (the first channels), then cosines, of falling frequencies."""
    angles = [position * 10000 ** (-channel / (dim / 2)) for channel in range(dim // 2)]
    return [*map(math.sin, angles), *map(math.cos, angles)]


@given(grids, st.sampled_from([6, 8, 24]))
def test_sinusoids_alternate_sine_and_cosine(grid, dim):
    table = build_position_table("sinusoid", grid, dim, CPU)
    for token, row in enumerate(table.tolist()):
        angles = [token / 10000 ** (2 * (channel // 2) / dim) for channel in range(dim)]
        expected = [math.cos(angle) if channel % 2 else math.sin(angle) for channel, angle in enumerate(angles)]
        assert row == pytest.approx(expected, abs=1e-6)


@given(grids)
def test_sincos_embeddings_have_the_column_before_the_row_and_in_3d_a_quarter_for_time(grid):
    tables = (build_position_table(kind, grid, dim, CPU).tolist() for kind, dim in (("sincos2d", 16), ("sincos3d", 32)))
    for token, (flat, row) in enumerate(zip(*tables, strict=True)):
        step, patch = divmod(token, grid.h * grid.w)
        y, x = divmod(patch, grid.w)
        assert flat == pytest.approx(compute_sincos(x, 8) + compute_sincos(y, 8), abs=1e-6)
        expected = compute_sincos(step, 8) + compute_sincos(x, 12) + compute_sincos(y, 12)
        assert row == pytest.approx(expected, abs=1e-6)


@every_fixed_kind
def test_a_table_is_the_same_when_a_default_device_is_set(kind):
    expected = build_position_table(kind, Grid(2, 3, 2), 16, CPU).clone()
    build_position_table.cache_clear()
    with torch.device("meta"):
        assert torch.equal(build_position_table(kind, Grid(2, 3, 2), 16, CPU), expected)


@pytest.mark.parametrize(
    "build",
    [lambda: build_sincos_2d(2, 2, 18), lambda: build_sincos_3d(Grid(2, 2, 2), 24), lambda: build_sincos_2d(2, 2, 6)],
)
def test_a_width_that_does_not_divide_is_an_error(build):
    with pytest.raises(InputError, match=r"width of \d+ does not divide .*; take a multiple of \d+"):
        build()


def test_no_two_tokens_have_the_same_embedding():
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


def test_time_and_space_are_resized_separately():
    patches = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    table = torch.cat([patches, patches])  # the same in both time steps
    longer = resize_position_table(table, Grid(2, 2, 3), Grid(5, 2, 3)).view(5, 6, 5)
    torch.testing.assert_close(longer, patches.expand(5, 6, 5))
    rising = torch.arange(4.0)[:, None].repeat_interleave(6, dim=0)
    halved = resize_position_table(rising, Grid(4, 2, 3), Grid(2, 2, 3)).view(2, 6)
    torch.testing.assert_close(halved, torch.tensor([0.5, 2.5])[:, None].expand(2, 6))


def test_rows_and_columns_keep_their_order_when_resized():
    rows = torch.arange(4.0).repeat_interleave(4)[:, None]  # rises along rows, flat along columns
    larger = resize_position_table(rows, Grid(1, 4, 4), Grid(1, 8, 4)).view(8, 4)
    assert (larger.diff(dim=0) > 0).all()
    torch.testing.assert_close(larger, larger[:, :1].expand(8, 4))


def test_sinusoids_are_computed_in_double_precision():
    exact = build_sinusoid_table(1568, 768)
    assert exact.dtype == torch.float64
    assert build_position_table("sinusoid", Grid(8, 14, 14), 768, CPU).dtype == torch.float32


@every_fixed_kind
@given(grids, sizes, sizes)
def test_fixed_positions_with_a_grid_are_resized_in_every_time_step_and_without_one_computed_anew(kind, grid, h, w):
    """As VideoMAE's detection code does, whose flat table is of 8 × 14 × 14 tokens."""
    positions = PositionEmbedding(kind, 16, (grid.t, grid.h, grid.w))
    assert not list(positions.parameters())
    table = build_position_table(kind, grid, 16, CPU)
    assert torch.equal(positions(grid, CPU), table)
    new = Grid(grid.t, h, w)
    for step, old in zip(
        positions(new, CPU).view(grid.t, h, w, 16), table.view(grid.t, grid.h, grid.w, 16), strict=True
    ):
        expected = F.interpolate(old.permute(2, 0, 1)[None], (h, w), mode="bicubic", align_corners=False)
        torch.testing.assert_close(step.permute(2, 0, 1), expected[0], rtol=0, atol=1e-5)
    assert torch.equal(PositionEmbedding(kind, 16)(new, CPU), build_position_table(kind, new, 16, CPU))
