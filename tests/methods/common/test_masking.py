"""Masks, for every mask config, every grid and every ratio."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mask_structure import assert_each_token_once, count_visible_by_step, get_patches, mark_visible

from vidstill.methods import maskagain
from vidstill.methods.common import masking
from vidstill.methods.common.masking import (
    CuboidMask,
    FrameMask,
    Mask,
    NestedTubeMask,
    RandomMask,
    SlotMask,
    SpaceMask,
    TubeMask,
)
from vidstill.methods.maskagain import ContextMask
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import Grid, InputError

sizes = st.integers(1, 6)
grids = st.builds(Grid, sizes, sizes, sizes)
ratios = st.floats(0, 1, exclude_max=True)
SEEDS = torch.tensor([0, 1, 2**62, 12345])
CLIP, IMAGE = Grid(8, 14, 14), Grid(1, 14, 14)  # 16 frames, and one, of 224 × 224 pixels

MASKS: dict[str, Callable[[float], Any]] = {
    "random": lambda ratio: RandomMask(ratio=ratio),
    "random, masked rounded down": lambda ratio: RandomMask(ratio=ratio, round_down="masked"),
    "tube": lambda ratio: TubeMask(ratio=ratio),
    "nested": lambda ratio: NestedTubeMask(student_ratio=ratio, teacher_ratio=ratio / 2),
    "space": lambda ratio: SpaceMask(ratio=ratio),
    "space, whole tubes": lambda ratio: SpaceMask(ratio=ratio, tube_rounding="whole"),
    "frame": lambda ratio: FrameMask(ratio=ratio),
    "slot": lambda ratio: SlotMask(ratio=ratio),
    "context": lambda ratio: ContextMask(ratio=ratio),
    "cuboid": lambda ratio: CuboidMask(ratio=ratio),
}
every_mask = pytest.mark.parametrize("build", MASKS.values(), ids=MASKS)


def draw(config: Any, grid: Grid, seeds: torch.Tensor = SEEDS) -> Mask:
    """Draw a mask; grids of which the ratio masks everything are no examples."""
    try:
        return config.draw(seeds, grid)
    except InputError as error:
        assume("masks all" not in str(error))
        raise


def nested(one: float, other: float) -> NestedTubeMask:
    return NestedTubeMask(student_ratio=max(one, other), teacher_ratio=min(one, other))


def test_every_mask_config_is_tested():
    classes = {item for module in (masking, maskagain) for item in vars(module).values() if hasattr(item, "draw")}
    assert classes == {type(build(0.5)) for build in MASKS.values()}


@every_mask
@given(grid=grids, ratio=ratios)
def test_visible_and_masked_tokens_are_all_tokens_once_and_ascend(build, grid, ratio):
    mask = draw(build(ratio), grid)
    assert mask.visible.shape[1] > 0
    assert_each_token_once(mask, grid)


@every_mask
@given(grid=grids, ratio=ratios, order=st.permutations(range(len(SEEDS))))
def test_a_seed_decides_its_mask_in_any_batch(build, grid, ratio, order):
    config = build(ratio)
    together, moved = draw(config, grid), draw(config, grid, SEEDS[order])
    assert torch.equal(moved.visible, together.visible[order])
    alone = draw(config, grid, SEEDS[order[0]][None])
    assert torch.equal(alone.masked[0], together.masked[order[0]])


@every_mask
@given(grid=grids)
def test_a_ratio_of_0_masks_nothing_and_a_config_can_be_written_and_read(build, grid):
    config = build(0.0)
    assert config.draw(SEEDS, grid).masked.shape == (len(SEEDS), 0)
    assert from_dict(type(config), to_dict(config)) == config


@every_mask
def test_masks_are_drawn_from_the_seeds_on_their_device(build):
    masked = build(0.75).draw(torch.arange(20), CLIP).masked
    assert len(set(map(tuple, masked.tolist()))) > 10  # of 8 slots, whole ones can be masked in 28 ways
    mask = build(0.5).draw(torch.zeros(2, dtype=torch.long, device="meta"), CLIP)  # as in a dry run
    assert mask.visible.is_meta
    assert mask.masked.is_meta


@every_mask
@pytest.mark.parametrize("ratio", [-0.1, 1.0, 90.0, float("nan")])
def test_a_ratio_outside_0_to_1_is_an_error(build, ratio):
    with pytest.raises(InputError, match="is not a share; take 0 to less than 1"):
        build(ratio).draw(SEEDS, Grid(2, 4, 4))


@pytest.mark.parametrize(
    ("config", "grid", "message"),
    [
        (RandomMask(ratio=0.9), Grid(1, 2, 2), "0.9 masks all 4 tokens"),
        (SpaceMask(ratio=0.9), Grid(2, 2, 2), "0.9 masks all 8 tokens"),
        (SpaceMask(ratio=0.9, tube_rounding="whole"), Grid(8, 2, 2), "0.9 masks all 4 patches"),
        (SlotMask(ratio=0.9), Grid(8, 2, 2), "0.9 masks all 4 patches"),
        (FrameMask(ratio=0.75), Grid(2, 14, 14), "0.75 masks all 2 time steps"),
        (CuboidMask(ratio=0.75), Grid(1, 1, 3), "0.75 masks all 3 tokens"),
    ],
)
def test_a_mask_that_leaves_nothing_visible_is_an_error(config, grid, message):
    with pytest.raises(InputError, match=f"a mask ratio of {message} from the student; take a lower one, or a larger"):
        config.draw(SEEDS, grid)


@pytest.mark.parametrize("ratio", [0.99, 1 - 2**-53])
@pytest.mark.parametrize("build", [MASKS["tube"], MASKS["random, masked rounded down"], MASKS["context"]])
@given(grid=grids)
def test_where_the_masked_are_rounded_down_something_is_visible(build, ratio, grid):
    assert build(ratio).draw(SEEDS, grid).visible.shape[1] > 0


@pytest.mark.parametrize(
    ("config", "grid", "visible"),
    [  # as the authors of ST-MAE, MAE, DMAE, MVD and VideoMAE count
        (RandomMask(ratio=0.9), CLIP, 156),
        (RandomMask(ratio=0.75), CLIP, 392),
        (RandomMask(ratio=0.95), CLIP, 78),
        (RandomMask(ratio=0.5), CLIP, 784),
        (RandomMask(ratio=0.9), Grid(1, 5, 8), 3),  # 40 · (1 - 0.9) is a little below 4 in double precision
        (RandomMask(ratio=0.75), IMAGE, 49),
        (RandomMask(ratio=0.75), Grid(1, 16, 16), 64),  # ViT-H/14
        (RandomMask(ratio=0.95), IMAGE, 9),  # ten patches, says DMAE's paper
        (RandomMask(ratio=0.9, round_down="masked"), CLIP, 1568 - 1411),
        (TubeMask(ratio=0.9), CLIP, 8 * 20),
        (TubeMask(ratio=0.75), CLIP, 8 * 49),
        (TubeMask(ratio=0.95), Grid(1, 18, 20), 18),  # 360 · 0.95 is 342
        (SpaceMask(ratio=0.9), CLIP, 19 * 8 + 4),
        (SpaceMask(ratio=0.9, tube_rounding="whole"), CLIP, 19 * 8),
        (FrameMask(ratio=0.75), CLIP, 2 * 196),
        (SlotMask(ratio=0.9), CLIP, 8 * 19),
        (CuboidMask(ratio=0.75), CLIP, 392),
    ],
)
def test_as_many_tokens_are_visible_as_in_the_papers(config, grid, visible):
    mask = config.draw(SEEDS, grid)
    assert mask.visible.shape == (len(SEEDS), visible)
    assert mask.masked.shape == (len(SEEDS), grid.num_tokens - visible)


@given(grids, ratios)
def test_masks_of_equal_counts_mask_the_same_tokens_of_an_image(grid, ratio):
    image = Grid(1, grid.h, grid.w)
    plain = draw(RandomMask(ratio=ratio), image)
    for config in (SpaceMask(ratio=ratio), SpaceMask(ratio=ratio, tube_rounding="whole"), SlotMask(ratio=ratio)):
        assert torch.equal(config.draw(SEEDS, image).visible, plain.visible)
    tubes = TubeMask(ratio=ratio).draw(SEEDS, image)
    assert torch.equal(RandomMask(ratio=ratio, round_down="masked").draw(SEEDS, image).visible, tubes.visible)


@pytest.mark.parametrize(
    "name", ["random", "random, masked rounded down", "tube", "slot", "frame", "space, whole tubes"]
)
def test_every_token_is_masked_equally_often(name):
    seeds, grid = torch.arange(4000), Grid(4, 4, 5)
    masked = MASKS[name](0.75).draw(seeds, grid).masked
    counts = torch.bincount(masked.flatten(), minlength=grid.num_tokens).double() / len(seeds)
    assert (counts - 0.75).abs().max() < 5 * (0.75 * 0.25 / len(seeds)) ** 0.5


@given(grids, ratios)
def test_tubes_are_the_same_patches_in_every_time_step(grid, ratio):
    mask, patches = TubeMask(ratio=ratio).draw(SEEDS, grid), grid.h * grid.w
    assert get_patches(mask.masked, grid).shape[1] == int(ratio * patches)
    get_patches(mask.visible, grid)
    mask = draw(SpaceMask(ratio=ratio, tube_rounding="whole"), grid)
    assert get_patches(mask.visible, grid).shape[1] == int(patches * (1 - ratio))


@given(grids, ratios)
def test_the_released_space_mask_shows_whole_tubes_and_the_first_steps_of_one_more(grid, ratio):
    mask = draw(SpaceMask(ratio=ratio), grid)
    slots = mark_visible(mask, grid).flatten(2)  # whether a patch is visible, by time step
    whole, rest = divmod(int(grid.num_tokens * (1 - ratio)), grid.t)
    assert (slots.all(dim=1).sum(dim=1) == whole).all()
    assert (slots.any(dim=1).sum(dim=1) == whole + (rest > 0)).all()
    by_step = [whole + (step < rest) for step in range(grid.t)]
    assert count_visible_by_step(mask, grid).tolist() == [by_step] * len(SEEDS)
    assert (slots[:, :1] | ~slots).all()


@given(grids, ratios)
def test_frame_masks_show_or_mask_whole_time_steps_and_slot_masks_show_equally_many_patches_in_each(grid, ratio):
    visible = count_visible_by_step(draw(FrameMask(ratio=ratio), grid), grid)
    assert ((visible == 0) | (visible == grid.h * grid.w)).all()
    assert ((visible == 0).sum(dim=1) == round(grid.t * ratio)).all()
    visible = count_visible_by_step(draw(SlotMask(ratio=ratio), grid), grid)
    assert (visible == int(grid.h * grid.w * (1 - ratio))).all()


def test_the_time_steps_of_a_slot_mask_are_independent():
    seeds, grid = torch.arange(4000), Grid(3, 2, 4)
    masked = ~mark_visible(SlotMask(ratio=0.75).draw(seeds, grid), grid).flatten(2)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        both = (masked[:, one, :, None] & masked[:, other, None, :]).double().mean(dim=0)  # of every two patches
        assert (both - 0.75**2).abs().max() < 5 * (0.75**2 * (1 - 0.75**2) / len(seeds)) ** 0.5


@given(grids, ratios, ratios)
def test_the_context_is_visible_and_a_share_of_the_rest_is_masked(grid, ratio, context):
    mask = ContextMask(ratio=ratio, context_ratio=context).draw(SEEDS, grid)
    beginning = int(grid.t * context * (grid.h * grid.w))
    assert torch.equal(mask.visible[:, :beginning], torch.arange(beginning).expand(len(SEEDS), -1))
    assert mask.masked.shape[1] == int(ratio * (grid.num_tokens - beginning))


@pytest.mark.parametrize("context", [-0.25, 1.0, float("nan")])
def test_a_context_ratio_outside_0_to_1_is_an_error(context):
    with pytest.raises(InputError, match=f"context_ratio is {context}; take 0 to less than 1"):
        ContextMask(context_ratio=context).draw(SEEDS, CLIP)


@given(grids, ratios, ratios)
def test_the_teacher_sees_what_the_student_sees_and_its_extra_tokens(grid, one, other):
    mask = nested(one, other).draw(SEEDS, grid)
    assert mask.teacher_only is not None
    assert mask.teacher_visible.shape[1] == grid.t * (grid.h * grid.w - int(min(one, other) * (grid.h * grid.w)))
    assert (mask.teacher_only.diff(dim=1) > 0).all()
    for clip in range(len(SEEDS)):
        visible, masked, extra = (each[clip].tolist() for each in (mask.visible, mask.masked, mask.teacher_only))
        assert set(extra) <= set(masked)
        assert mask.teacher_visible[clip].tolist() == [*visible, *extra]


@given(grids, ratios)
def test_the_student_of_a_nested_mask_sees_what_a_tube_mask_shows(grid, ratio):
    plain, both = TubeMask(ratio=ratio).draw(SEEDS, grid), nested(ratio, 0.0).draw(SEEDS, grid)
    assert torch.equal(plain.visible, both.visible)
    assert torch.equal(plain.masked, both.masked)


@pytest.mark.parametrize(
    ("student", "teacher", "grid", "visible", "teacher_only"),
    [
        (0.9, 0.0, Grid(2, 4, 4), 4, 28),  # the teacher sees everything
        (0.5, 0.5, Grid(2, 4, 4), 16, 0),
        (0.75, 0.5, IMAGE, 49, 49),  # AMD's masks for images
    ],
)
def test_the_teacher_sees_tokens_by_its_own_ratio(student, teacher, grid, visible, teacher_only):
    mask = NestedTubeMask(student_ratio=student, teacher_ratio=teacher).draw(SEEDS, grid)
    assert (mask.visible.shape[1], mask.teacher_only.shape[1]) == (visible, teacher_only)
    assert mask.teacher_visible.shape[1] == visible + teacher_only
    assert mask.masked.shape[1] == grid.num_tokens - visible


def test_a_teacher_sees_no_less_than_its_student():
    with pytest.raises(InputError, match=r"teacher's mask ratio 0\.9 is above the student's 0\.75"):
        NestedTubeMask(student_ratio=0.75, teacher_ratio=0.9).draw(SEEDS, Grid(2, 4, 4))
    visible = torch.tensor([[1, 2]])
    assert Mask(visible, torch.tensor([[0, 3]])).teacher_visible is visible
