"""Where clips are cut and how they are resized."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from vidstill.data.transforms.crop import (
    CropBox,
    MultiScaleCrop,
    RandomResizedCrop,
    crop_views,
    flip_horizontal,
    list_view_boxes,
    resize_frames,
)

sides = st.integers(1, 70)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 2**32)
crops = st.sampled_from([MultiScaleCrop(), RandomResizedCrop(), RandomResizedCrop(scale=(0.5, 1.0))])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def inside(box: CropBox, height: int, width: int) -> bool:
    fits = box.top + box.height <= height and box.left + box.width <= width
    return fits and min(box.top, box.left) >= 0 and min(box.height, box.width) >= 1


@given(crops, sides, sides, sizes, seeds)
def test_a_drawn_box_lies_in_the_frame(crop, height, width, size, seed):
    assert inside(crop.draw_box(height, width, size, np.random.default_rng(seed)), height, width)


@given(crops, sides, sides, sizes, seeds)
def test_a_crop_has_the_requested_size(crop, height, width, size, seed):
    cropped = crop.apply(noise(2, height, width), size, np.random.default_rng(seed))
    assert cropped.shape == (2, *size, 3)
    assert cropped.dtype == np.uint8
    assert cropped.flags.c_contiguous


def test_a_multi_scale_crop_is_resized_as_pil_does_and_does_not_alias():
    """A checkerboard of single pixels becomes grey; without antialiasing it would keep its contrast."""
    board = np.repeat(255 * (np.indices((64, 64)).sum(axis=0) % 2)[..., None], 3, axis=2).astype(np.uint8)
    for image in (board, noise(64, 64)):
        resized = Image.fromarray(image).resize((15, 15), Image.Resampling.BILINEAR)
        cropped = MultiScaleCrop(scales=(1.0,)).apply(image[None], (15, 15), np.random.default_rng(0))
        assert np.abs(cropped[0].astype(int) - np.asarray(resized, dtype=int)).max() <= 1


@given(crops, seeds)
def test_every_frame_has_the_same_crop_and_a_seed_repeats_it(crop, seed):
    frames = np.repeat(noise(1, 30, 40), 3, axis=0)
    one, other = (crop.apply(frames, (16, 24), np.random.default_rng(seed)) for _ in range(2))
    assert (one == one[:1]).all()
    assert (one == other).all()


@given(sides, sides, sizes)
def test_the_largest_of_ten_multi_scale_boxes_fills_the_frame_one_way(height, width, size):
    boxes = MultiScaleCrop().list_boxes(height, width, size)
    assert len(boxes) == 10
    assert all(
        len(boxes_of_size) == 13 and inside(box, height, width) for boxes_of_size in boxes for box in boxes_of_size
    )
    largest = boxes[0][0]
    assert height - largest.height <= 2 or width - largest.width <= 2  # 2: it may have become the output's


@pytest.mark.parametrize("size", [(112, 224), (224, 112), (96, 224)])
def test_a_multi_scale_box_has_nearly_the_shape_of_the_output(size):
    for boxes_of_size in MultiScaleCrop().list_boxes(240, 427, size):
        shape = boxes_of_size[0].height / boxes_of_size[0].width * size[1] / size[0]
        assert 0.83 < shape < 1.21  # neighbours of 1, 0.875, 0.75, 0.66 are at most 1 : 0.857 apart


def test_a_side_near_the_outputs_becomes_the_outputs_but_never_leaves_the_frame():
    heights = {boxes_of_size[0].height for boxes_of_size in MultiScaleCrop().list_boxes(258, 400, (224, 224))}
    assert heights == {258, 224, 193, 170}  # 258 * 0.875 = 225.75
    assert max(boxes_of_size[0].height for boxes_of_size in MultiScaleCrop().list_boxes(222, 400, (224, 224))) == 222


@pytest.mark.parametrize(("side", "expected"), [(221, 221), (222, 222), (226, 224), (227, 227)])
def test_a_side_within_two_pixels_of_the_outputs_becomes_it(side, expected):
    (boxes,) = MultiScaleCrop(scales=(1.0,)).list_boxes(side, 400, (224, 224))
    assert {box.height for box in boxes} == {expected}


def test_the_thirteen_positions_are_multiples_of_the_whole_quarter_margins():
    (boxes,) = MultiScaleCrop(scales=(0.5,)).list_boxes(230, 231, (224, 224))
    assert {(box.height, box.width) for box in boxes} == {(115, 115)}  # margins of 115 and 116, quarters of 28 and 29
    corners = {(0, 0), (0, 116), (112, 0), (112, 116)}
    edges = {(0, 58), (56, 0), (56, 116), (112, 58)}
    inner = {(28, 29), (28, 87), (84, 29), (84, 87)}
    assert {(box.top, box.left) for box in boxes} == {*corners, *edges, *inner, (56, 58)}


def test_all_sizes_and_positions_of_a_multi_scale_crop_are_equally_likely():
    crop, rng = MultiScaleCrop(), np.random.default_rng(0)
    draws = [crop.draw_box(256, 340, (224, 224), rng) for _ in range(2600)]
    heights = [box.height for box in draws]
    share = [heights.count(height) / len(draws) for height in (256, 224, 192, 168)]
    assert share == pytest.approx([0.2, 0.3, 0.3, 0.2], abs=0.04)  # 2, 3, 3 and 2 of the 10 sizes
    in_the_corner = np.mean([(box.top, box.left) == (0, 0) for box in draws if box.height < 256])
    assert in_the_corner == pytest.approx(1 / 13, abs=0.03)


@given(seeds, st.sampled_from([(224, 224), (112, 224)]))
def test_a_random_box_has_the_area_and_aspect_that_are_allowed(seed, size):
    height, width = 600, 1000
    box = RandomResizedCrop(scale=(0.1, 0.3), ratio=(0.8, 1.25)).draw_box(
        height, width, size, np.random.default_rng(seed)
    )
    assert 0.099 < box.height * box.width / (height * width) < 0.301
    assert 0.79 < box.width / box.height * size[0] / size[1] < 1.26


def test_the_area_of_a_random_box_is_uniform():
    crop, rng = RandomResizedCrop(scale=(0.1, 0.5)), np.random.default_rng(0)
    areas = [box.height * box.width / 600**2 for box in (crop.draw_box(600, 600, (9, 9), rng) for _ in range(2000))]
    assert np.quantile(areas, [0.25, 0.5, 0.75]) == pytest.approx([0.2, 0.3, 0.4], abs=0.02)


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10)])
def test_a_frame_that_no_box_fits_gives_its_largest_central_box(height, width):
    box = RandomResizedCrop(scale=(1.0, 1.0)).draw_box(height, width, (8, 8), np.random.default_rng(0))
    assert sorted((box.height, box.width)) == [10, 13]  # an aspect of 4 / 3
    assert box.top == (height - box.height) // 2
    assert box.left == (width - box.width) // 2


@pytest.mark.parametrize(("misses", "box"), [(0, (7, 7, 50, 50)), (9, (7, 7, 50, 50)), (10, (0, 0, 100, 100))])
def test_a_random_box_has_ten_tries(misses, box):
    class Stub(np.random.Generator):
        """Draws boxes of the whole area and the largest aspect, which do not fit, and then one of a quarter."""

        draws = iter([*[1.0, np.log(4 / 3)] * misses, 0.25, 0.0])

        def uniform(self, low, high):
            return next(self.draws)

        def integers(self, stop):
            return 7

    stub = Stub(np.random.PCG64())
    crop = RandomResizedCrop().draw_box(100, 100, (8, 8), stub)
    assert tuple(crop) == box
    assert len(list(stub.draws)) == (2 if misses == 10 else 0)


def test_a_flip_mirrors_left_and_right():
    frames = noise(2, 3, 5)
    assert (flip_horizontal(frames)[:, :, 0] == frames[:, :, 4]).all()
    assert (flip_horizontal(flip_horizontal(frames)) == frames).all()


@pytest.mark.parametrize("size", [(24, 24), (16, 40), (70, 90)])
def test_resizing_is_pils_or_mixes_the_four_nearest_pixels(size):
    frames = noise(2, 48, 60)
    image = Image.fromarray(frames[0])
    bilinear, bicubic = (
        image.resize(size[::-1], kind) for kind in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    )
    assert (
        np.abs(resize_frames(frames, size, "bilinear", antialias=True)[0].astype(int) - np.asarray(bilinear)).max() <= 1
    )
    # a byte after each of two passes
    assert np.abs(resize_frames(frames, size, "bicubic")[0].astype(int) - np.asarray(bicubic)).max() <= 2
    real = resize_frames(frames.astype(np.float32), size, "bilinear")
    assert real.dtype == np.float32
    assert np.abs(resize_frames(frames, size, "bilinear") - real).max() <= 0.501  # bytes are rounded
    rows, columns = (
        np.clip((np.arange(out) + 0.5) * whole / out - 0.5, 0, whole - 1)
        for out, whole in zip(size, (48, 60), strict=True)
    )
    down = np.apply_along_axis(lambda column: np.interp(rows, np.arange(48), column), 0, frames[0].astype(float))
    both = np.apply_along_axis(lambda row: np.interp(columns, np.arange(60), row), 1, down)
    assert np.abs(real[0] - both).max() <= 1e-2


@given(seeds, st.integers(1, 9), *[st.integers(2, 40)] * 2)
def test_bytes_are_the_floats_of_torch_with_halves_rounded_to_even(seed, num_frames, rows, cols):
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 48, 60, 3), np.uint8)[:, 3:43, 7:47]
    clip = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float()
    floats = F.interpolate(clip, (rows, cols), mode="bilinear").permute(0, 2, 3, 1)
    assert np.array_equal(resize_frames(frames, (rows, cols), "bilinear"), floats.round().numpy())
    assert np.array_equal(resize_frames(frames.astype(np.float32), (rows, cols), "bilinear"), floats.numpy())


def test_an_evaluation_crop_of_a_wide_video_is_left_centre_and_right():
    boxes = list_view_boxes(224, 398, (224, 224), 3)
    assert [(box.top, box.left) for box in boxes] == [(0, 0), (0, 87), (0, 174)]
    frames = noise(2, 240, 427)
    views = crop_views(frames, 224, (224, 224), 3)
    whole = resize_frames(frames, (224, 398), "bilinear")
    for view, left in zip(views, (0, 87, 174), strict=True):
        assert (view == whole[:, :, left : left + 224]).all()


def test_a_video_whose_short_side_fits_is_cut_and_not_resized():
    frames = noise(2, 50, 24)
    top, centre, bottom = crop_views(frames, 24, (24, 24), 3)
    assert (top == frames[:, :24]).all()
    assert (centre == frames[:, 13:37]).all()
    assert (bottom == frames[:, 26:]).all()


@given(sides, sides)
def test_one_crop_is_the_centre(height, width):
    (box,) = list_view_boxes(height + 8, width + 8, (8, 8), 1)
    assert abs(2 * box.top - height) <= 1
    assert abs(2 * box.left - width) <= 1


@given(sides, sides, st.integers(1, 40), sizes, st.integers(1, 5))
def test_evaluation_crops_have_the_requested_size(height, width, short_side, size, count):
    views = crop_views(noise(1, height, width), short_side, size, count)
    assert [view.shape for view in views] == [(1, *size, 3)] * count


@pytest.mark.parametrize(
    ("width", "centre", "three"),  # VideoMAE's: int(round(margin / 2)), and int(j * margin / 2) for j of 0, 1 and 2
    [(398, 87, [0, 87, 174]), (399, 88, [0, 87, 175]), (401, 88, [0, 88, 177]), (224, 0, [0, 0, 0])],
)
def test_odd_margins_are_rounded_as_the_authors_round_them(width, centre, three):
    for height_width, axis in (((224, width), 1), ((width, 224), 0)):
        assert list_view_boxes(*height_width, (224, 224), 1)[0][axis] == centre
        assert [box[axis] for box in list_view_boxes(*height_width, (224, 224), 3)] == three


@given(sides, sides, sizes, st.integers(1, 5))
def test_crop_rules_differ_by_at_most_a_pixel_in_frames_that_are_not_square(height, width, size, count):
    assume(height != width)
    result, reference = (
        list_view_boxes(height + size[0], width + size[1], size, count, rule) for rule in ("videomae", "stmae")
    )
    for one, other in zip(result, reference, strict=True):
        assert 0 <= other.top - one.top <= 1
        assert 0 <= other.left - one.left <= 1


@given(st.integers(8, 60), st.integers(8, 60), st.integers(2, 6), st.sampled_from(["videomae", "stmae"]))
def test_crops_reach_from_end_to_end_of_the_side_with_the_larger_margin(height, width, count, rule):
    boxes = list_view_boxes(height, width, (8, 8), count, rule)
    assert all(inside(box, height, width) for box in boxes)
    first, last = boxes[0], boxes[-1]
    if height > width or (height == width and rule == "videomae"):
        assert (first.top, last.top) == (0, height - 8)
        assert len({box.left for box in boxes}) == 1
    else:
        assert (first.left, last.left) == (0, width - 8)
        assert len({box.top for box in boxes}) == 1
