"""Samples of key frames: boxes stay on what they are around, and chance is a function of the seed."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny_films import file_film, frames_film, key_frames, numbers_of, write_video

from vidstill.data.ava.clip_reader import KeyframeClipReader, KeyframeVideo
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig, KeyframeTrainDataset, KeyframeViewDataset
from vidstill.data.ava.transforms import to_pixel_boxes
from vidstill.data.loader.loader import iter_train_batches, iter_view_batches
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import InputError

CPU = torch.device("cpu")
FRAMES = KeyframeSampling(num_frames=4, stride=2, frame_rate=25.0)  # -4, -2, 0, 2
CLIPS = BoxClipsConfig(dataset="made", sampling=FRAMES, short_side=(32, 32), size=(32, 32), flip_probability=0.0)
BUSY = replace(
    CLIPS,
    short_side=(28, 40),
    short_side_sampling="inverse_uniform",
    size=(24, 24),
    flip_probability=0.5,
    hsv_jitter=HSVJitter(),
)
VIEWS = BoxViewsConfig(sampling=FRAMES, short_side=32, min_person_score=0.0)
RULES = pytest.mark.parametrize("rule", ["videomae", "slowfast"])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    one, other = file_film(folder / "one", 100, 25), frames_film(folder / "other", 100, 25, start=900)
    return key_frames(
        [one, replace(other, name="other")],
        [(0, 1), (0, 2), (0, 3), (1, 901), (1, 902)],
        [
            [(0.1, 0.1, 0.5, 0.9)],
            [(0.0, 0.0, 1.0, 1.0), (0.2, 0.3, 0.4, 0.5)],
            [(0.5, 0.5, 0.75, 1.0)],
            [(0.6, 0.1, 0.9, 0.3), (0.1, 0.1, 0.2, 0.9), (0.3, 0.3, 0.6, 0.6)],
            [(0.0, 0.0, 0.5, 0.5)],
        ],
        folder,
    )


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def bright_rectangle(rows: np.ndarray) -> list[tuple[float, float, float, float]]:
    """The box of what is bright in each frame of a clip (3, t, h, w), with its last pixels."""
    rectangles = []
    for frame in rows.max(0):
        ys, xs = np.nonzero(frame > 127)
        rectangles.append((xs.min(), ys.min(), xs.max(), ys.max()))
    return rectangles


def around(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Two dark frames with a rectangle that is bright from the box's first pixels to before its ends."""
    frames = np.zeros((2, *size, 3), np.uint8)
    x1, y1, x2, y2 = box
    frames[:, y1:y2, x1:x2] = 255
    return frames


@RULES
@pytest.mark.parametrize("size", [(120, 160), (160, 120), (96, 96), (90, 213)])
def test_a_box_follows_its_object_through_resizing_cropping_and_flipping(rule, size):
    height, width = size
    box = (width // 4, height // 5, width * 3 // 4, height * 4 // 5)
    fractions = np.array([box], np.float64) / [width, height, width, height]
    frames = around(size, box)
    pixel_boxes = to_pixel_boxes(fractions, size, rule)
    flips = set()
    for seed in range(24):
        clips = replace(
            CLIPS,
            short_side=(70, 150),
            short_side_sampling="uniform" if seed % 2 else "inverse_uniform",
            size=(64, 64),
            flip_probability=0.5,
            rule=rule,
        )
        transform = clips.draw_transform(size, partial(numpy_rng, seed))
        output, boxes = transform.apply(frames, pixel_boxes)
        assert output.shape == (2, 64, 64, 3)
        flips.add(transform.hflip)
        bright = np.array(bright_rectangle(np.moveaxis(output, -1, 0)))
        off = np.abs(np.clip(boxes, 0, 63) - bright).max()
        # PySlowFast's box ends with the pixel behind it; its mirrored one begins a pixel early
        limit = 1.0 if rule == "videomae" else 1.0 + transform.short_side / min(size)
        assert off <= limit + transform.short_side / min(size) / 2, (transform, boxes, bright)
    assert flips == {True, False}
    output, boxes = replace(VIEWS, short_side=64, rule=rule).build_transform(size).apply(frames, pixel_boxes)
    assert min(output.shape[1:3]) == 64
    assert np.abs(boxes - np.array(bright_rectangle(np.moveaxis(output, -1, 0)))).max() <= 1.5


def test_a_sample_follows_from_seed_epoch_and_index(films):
    for index in range(len(films)):
        one = KeyframeTrainDataset(films, BUSY, seed=5).load_arrays(3, index, 0, index)
        used = KeyframeTrainDataset(films, BUSY, seed=5)
        used.load_arrays(4, index, 0, index), used.load_arrays(3, 0, 0, 0)
        assert same(one, used.load_arrays(3, index, 0, index))
        assert one[-1].tolist() == [derive_sample_seed(5, 3, index)]
        for seed, epoch in ((5, 4), (6, 3)):
            other = KeyframeTrainDataset(films, BUSY, seed=seed).load_arrays(epoch, index, 0, index)
            assert (one[0] != other[0]).any()


def test_a_sample_has_the_frames_the_boxes_and_the_labels_of_its_key_frame(films):
    data = KeyframeTrainDataset(films, CLIPS, seed=0)
    clip, boxes, labels, present, _ = data.load_arrays(0, 1, 0, 1)
    assert clip.shape == (1, 3, 4, 32, 32)
    assert clip.dtype == np.uint8
    assert boxes.shape == (1, 3, 4)  # as many rows as the key frame that has most
    assert present.tolist() == [[True, True, False]]
    assert labels.tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 0]]]
    assert (boxes.dtype, labels.dtype, present.dtype) == (np.float32, np.float32, bool)
    assert not boxes[0, 2].any()


def test_a_test_clip_has_the_frames_around_the_second_and_all_boxes_in_pixels(films):
    data = KeyframeViewDataset(films, VIEWS)
    for index, first in enumerate((25, 50, 75, 25, 50)):
        clip, boxes, index_array = data.load_arrays(index)
        assert numbers_of(clip[0].transpose(1, 2, 3, 0)) == [first + k for k in (-4, -2, 0, 2)]
        expected = to_pixel_boxes(films[index].boxes, (32, 80), "videomae")
        np.testing.assert_allclose(boxes[0], expected, atol=1e-4)
        assert index_array.tolist() == [index]
    grown = KeyframeViewDataset(films, replace(VIEWS, box_expansion=(0.1, 0.05))).load_arrays(4)[1][0]
    np.testing.assert_allclose(grown, [[0, 0, 39 + 2.0, 15 + 0.4]], atol=1e-4)  # 40 and 16 pixels, and a half share
    larger, boxes, _ = KeyframeViewDataset(films, replace(VIEWS, short_side=64, crop_size=(64, 48))).load_arrays(0)
    assert larger.shape == (1, 3, 4, 64, 48)
    assert boxes.shape == (1, 1, 4)
    assert boxes.max() <= 64


def test_only_videomaes_rule_drops_boxes_of_less_than_two_pixels_in_training(films):
    data = replace(films, boxes=films.boxes.copy())
    data.boxes[1] = (0.5, 0.5, 0.505, 0.9)
    for rule, expected in (("videomae", [True, False, False]), ("slowfast", [True, True, False])):
        sample = KeyframeTrainDataset(data, replace(CLIPS, rule=rule), seed=0).load_arrays(0, 1, 0, 1)
        assert sample[3].tolist() == [expected]
        labels = [[0, 1, 0]] if rule == "videomae" else [[1, 0, 0], [0, 1, 0]]
        assert sample[2][0, : len(labels)].tolist() == labels
    assert KeyframeViewDataset(data, VIEWS).load_arrays(1)[1].shape == (1, 2, 4)  # a test is asked about every box


def test_a_hundred_boxes_are_drawn_from_more(tmp_path):
    path = write_video(tmp_path / "film.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 30)
    corners = [(0.01 * (n % 50), 0.02 * (n // 50), 0.01 * (n % 50) + 0.3, 0.02 * (n // 50) + 0.3) for n in range(130)]
    data = KeyframeTrainDataset(key_frames([KeyframeVideo("film", path)], [(0, 1)], [corners], tmp_path), CLIPS, seed=0)
    draws = [data.load_arrays(epoch, 0, 0, 0) for epoch in range(2)]
    for _, boxes, labels, present, _ in draws:
        assert present.shape == (1, 100)
        assert present.all()
        assert labels.sum() == 100
        assert len(np.unique(boxes[0], axis=0)) == 100
    assert (draws[0][1] != draws[1][1]).any()


def batches(data, workers: int, **options):
    options |= {"videos_per_step": 2, "steps_per_epoch": len(data) // 2, "total_steps": 4}
    return list(iter_train_batches(data, workers=workers, device=CPU, **options))


def views(data, workers: int, broken: dict[str, int]):
    return list(iter_view_batches(data, videos_per_batch=1, broken_videos=broken, workers=workers, device=CPU))


def test_the_loader_gives_the_same_with_workers_and_without(films):
    data = KeyframeTrainDataset(films, BUSY, seed=1)
    alone, helped = batches(data, 0), batches(data, 2)
    assert len(alone) == 4
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    first = alone[0]
    assert first.clip.shape == (2, 3, 4, 24, 24)
    assert first.clip.max() <= 1
    assert first.box_mask.dtype == torch.bool
    assert data.sample_num_bytes >= sum(part.nbytes for part in data.load_arrays(0, 0, 0, 0))
    tested = KeyframeViewDataset(films, VIEWS)
    lists = [views(tested, workers, {}) for workers in (0, 2)]
    for one, other in zip(*lists, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert [view.boxes.shape[1] for view in lists[0]] == [1, 2, 1, 3, 1]
    sizes = [sum(part.nbytes for part in tested.load_arrays(index)) for index in range(len(films))]
    assert tested.sample_num_bytes >= max(sizes)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_key_frame_is_replaced_by_another_with_its_own_boxes(films, caplog, workers):
    gone = replace(films, second=np.array([1, 2, 3, 901, 1902], np.int32))  # that film ends at 904
    data = KeyframeTrainDataset(gone, replace(CLIPS, flip_probability=0.0), seed=1)
    intact = [films[index_array].labels.tolist() for index_array in range(4)]
    for batch in batches(data, workers, max_broken_fraction=0.5):
        for labels, present in zip(batch.labels, batch.box_mask, strict=True):
            assert labels[present].bool().tolist() in intact
    (warning,) = {record.message for record in caplog.records}
    assert warning.startswith("key frame other,1902: ")
    assert "ends at second 904.00; another key frame replaces it" in warning
    broken: dict[int, str] = {}
    tested = views(KeyframeViewDataset(gone, VIEWS), workers, broken)
    assert [int(view.keyframe_index) for view in tested] == [0, 1, 2, 3]
    assert list(broken) == [4]


def test_a_replacement_has_its_own_frames_boxes_and_labels(films):
    data = KeyframeTrainDataset(films, CLIPS, seed=1)
    own, replacement = data.load_arrays(0, 3, 0, 3), data.load_arrays(0, 0, 0, 3)
    assert replacement[3].tolist() == own[3].tolist() == [[True] * 3]
    np.testing.assert_array_equal(own[2], replacement[2])
    assert own[-1] != replacement[-1]  # by the chance of the one that it stands in for
    frames = KeyframeClipReader().read_clip(films[3].video, 901, FRAMES)
    rng = partial(numpy_rng, derive_sample_seed(1, 0, 0))
    pixel_boxes = to_pixel_boxes(films[3].boxes, (32, 80), "videomae")
    output, boxes = CLIPS.draw_transform((32, 80), rng).apply(frames, pixel_boxes)
    np.testing.assert_array_equal(replacement[0][0], output.transpose(3, 0, 1, 2))
    np.testing.assert_allclose(replacement[1][0], boxes, atol=1e-4)
    assert data.sample_name(3) == "key frame other,0901"


def test_too_many_missing_videos_stop_training_with_their_names(films):
    gone = replace(films, videos=tuple(replace(film, path=None) for film in films.videos))
    with pytest.raises(InputError, match=r"of 5 key frames are broken.*key frame \w+,0\d+: film has neither a file"):
        batches(KeyframeTrainDataset(gone, CLIPS, seed=0), 0)
    with pytest.raises(BrokenVideo):
        KeyframeViewDataset(gone, VIEWS).load_arrays(0)


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (CLIPS, {"short_side": (40, 32)}, "from 40 to 32"),
        (CLIPS, {"short_side": (0, 32)}, "short_side is 0"),
        (CLIPS, {"size": (48, 40)}, "48x40 is larger"),
        (CLIPS, {"size": (0, 32)}, "size is 0"),
        (CLIPS, {"flip_probability": 1.5}, "flip_probability is 1.5"),
        (CLIPS, {"sampling": KeyframeSampling(num_frames=5, stride=1, rule="slowfast")}, "4 of 5 frames"),
        (VIEWS, {"short_side": 0}, "short_side is 0"),
        (VIEWS, {"crop_size": (48, 40)}, "48x40 is larger"),
        (VIEWS, {"min_person_score": 2.0}, "min_person_score is 2.0"),
        (VIEWS, {"box_expansion": (-0.1, 0.0)}, "box_expansion is -0.1"),
    ],
)
def test_an_impossible_clip_is_refused(config, wrong, message):
    with pytest.raises(InputError, match=message):
        replace(config, **wrong)


def test_a_crop_wider_than_the_frames_is_refused(tmp_path):
    film = file_film(tmp_path, 60, 25)  # of 32 × 80 pixels
    frames = key_frames([film], [(0, 1)], [[(0.1, 0.1, 0.5, 0.9)]], tmp_path)
    wide = replace(CLIPS, short_side=(32, 32), size=(32, 80))
    assert KeyframeTrainDataset(frames, wide, seed=0).load_arrays(0, 0, 0, 0)[0].shape[-2:] == (32, 80)
    for wider in ({"size": (32, 81)}, {"size": (24, 81)}):
        with pytest.raises(InputError, match="a frame of 32x80 has no room for a crop of"):
            KeyframeTrainDataset(frames, replace(wide, **wider), seed=0).load_arrays(0, 0, 0, 0)
    with pytest.raises(InputError, match="has no room"):
        KeyframeViewDataset(frames, replace(VIEWS, short_side=32, crop_size=(32, 81))).load_arrays(0)
