"""Copies of a video are found among many, whatever was done to them; videos that show something else are not."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA
from tiny_videos import write_images

from vidstill.data.decode.reader import iter_frames
from vidstill.data.tools.near_duplicates import (
    NUM_MOTION_COEFFICIENTS,
    NUM_STILL_COEFFICIENTS,
    SIGNATURE_LENGTH,
    VideoSignature,
    decode_signatures,
    group_near_duplicates,
    iter_near_pairs,
)
from vidstill.synthetic.drawing import draw_clip

SIZE, FRAMES = (96, 128), 40


def sketch(pictures) -> str:
    of = VideoSignature()
    for picture in pictures:
        of.update(picture)
    return of.digest()


def encoded(path: Path, images, *, size=None, codec="libx264", rate=25, **options: str) -> Path:
    height, width = size or images[0].shape[:2]
    frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24") for image in images]
    resized = [frame.reformat(width, height, interpolation="AREA").to_ndarray(format="rgb24") for frame in frames]
    return write_images(path, resized, codec, rate, options=options)


COPIES = {
    "coarse": lambda path, frames: encoded(path, frames, crf="35"),
    "half the size": lambda path, frames: encoded(path, frames, size=(48, 64), crf="28"),
    "half the rate": lambda path, frames: encoded(path, frames[::2], rate=12),
    "without the first two": lambda path, frames: encoded(path, frames[2:]),
    "another codec": lambda path, frames: encoded(path.with_suffix(".avi"), frames, codec="mpeg4"),
    "all of that": lambda path, frames: encoded(path, frames[1:-1:2], size=(48, 64), rate=12, crf="30"),
}


@pytest.fixture(scope="module")
def clips():
    """Eight drawn clips, two by two of the same looks before the same background, doing something else."""
    return [draw_clip(action, seed, FRAMES, SIZE) for seed in range(4) for action in ("circling", "growing")]


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_detected_among_videos_of_the_same_objects(clips, tmp_path, change):
    copies = [COPIES[change](tmp_path / f"{number}.mp4", clip) for number, clip in enumerate(clips)]
    sketches = [sketch(clip) for clip in clips] + [sketch(iter_frames(copy)) for copy in copies]
    assert group_near_duplicates(sketches) == [[number, number + len(clips)] for number in range(len(clips))]


def test_what_is_shown_backwards_or_mirrored_is_another_video(clips):
    for clip in clips:
        assert group_near_duplicates([sketch(clip), sketch(clip[::-1]), sketch(clip[:, :, ::-1])]) == []


def test_a_video_of_any_length_and_size_has_a_signature(clips):
    for frames in (*range(1, 20), 63, 64, 65, 129, 1000):
        assert len(sketch(clips[0][np.arange(frames) % FRAMES])) == SIGNATURE_LENGTH
    assert sketch([]) == ""
    once = decode_signatures([sketch(clips[0])])[0]
    for times in (2, 3, 7):  # how often each frame is shown does not matter
        repeated = decode_signatures([sketch(np.repeat(clips[0], times, 0))])[0]
        assert np.linalg.norm(once - repeated) < 0.05 * np.linalg.norm(once)
    for size in ((1, 1), (2, 300), (7, 9), (173, 227)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        assert len(sketch([image] * 3)) == SIGNATURE_LENGTH


def test_coefficients_are_grey_levels_of_the_mean_frame_and_of_the_motion(clips):
    numbers = decode_signatures([sketch([clips[0][0]] * 30)])[0]
    assert numbers.shape == (NUM_STILL_COEFFICIENTS + NUM_MOTION_COEFFICIENTS,)
    assert np.abs(numbers[:NUM_STILL_COEFFICIENTS]).max() > 1
    assert np.abs(numbers[NUM_STILL_COEFFICIENTS:]).max() < 0.01  # nothing moves
    image = np.full((64, 64, 3), 60, np.uint8)
    image[:, 32:] += 100  # half of it is 100 levels brighter: 50 from the mean everywhere
    assert np.linalg.norm(decode_signatures([sketch([image])])[0]) == pytest.approx(50, rel=0.03)


def test_paler_and_brighter_copies_are_near_and_two_black_videos_are_not(clips):
    for clip in clips:
        paler = (2 * clip.astype(int) // 3 + 60).astype(np.uint8)
        assert group_near_duplicates([sketch(clip), sketch(paler)]) == [[0, 1]]
    stills = [sketch([clips[0][0]]), sketch([clips[0][0] // 2 + 40]), sketch([clips[2][0]])]
    assert group_near_duplicates(stills) == [[0, 1]]
    noise = np.random.default_rng(0).integers(0, 3, (2, 20, *SIZE, 3), np.uint8)
    assert group_near_duplicates([sketch(black) for black in noise]) == []


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 150), st.sampled_from((0.01, 0.04, 0.08)))
def test_the_grid_finds_what_comparing_all_with_all_finds(seed, number, spread):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (1 + number // 10, 147))
    points = centres[rng.integers(0, len(centres), number)] + rng.normal(0, spread, (number, 147))
    points = points.astype(np.float32)
    distances = np.linalg.norm(points[:, None].astype(float) - points, axis=-1)
    expected = {(i, j) for i, j in np.argwhere(distances <= 1 - 1e-4).tolist() if i < j}
    doubtful = {(i, j) for i, j in np.argwhere(np.abs(distances - 1) < 1e-4).tolist()}
    near_pairs = [tuple(sorted(pair)) for pairs in iter_near_pairs(points) for pair in pairs.tolist()]
    assert len(near_pairs) == len(set(near_pairs))
    assert set(near_pairs) - doubtful == expected - doubtful


def test_near_ones_of_near_ones_are_in_one_group():
    blocks = np.indices((8, 8)).sum(0) % 2
    picture = np.kron(blocks, np.ones((8, 8)))[..., None] * np.full(3, 100) + 50
    ramp = np.linspace(0, 1, 64)[:, None, None]
    chain = [sketch([(picture + level * ramp).astype(np.uint8)]) for level in (0, 8, 16, 24, 32, 40)]
    assert group_near_duplicates([chain[0], chain[-1]]) == []
    assert group_near_duplicates(chain) == [[0, 1, 2, 3, 4, 5]]
    assert group_near_duplicates([]) == []


def data_sets() -> list:
    """The rows of each labelled set of real clips, at most about 100 of them, with the clip's path."""
    sets = []
    for meta in sorted(DATA.rglob("meta.csv")):
        with meta.open() as file:
            rows = [{**row, "path": meta.parent / row["path"]} for row in csv.DictReader(file)]
        sets.append(pytest.param(rows[:: 1 + len(rows) // 101], id=meta.parent.name))
    return sets or [pytest.param([], marks=pytest.mark.skip(f"no meta.csv is under {DATA}; set VIDSTILL_DATA"))]


@pytest.mark.files
@pytest.mark.parametrize("rows", data_sets())
def test_no_real_clip_of_one_person_is_near_to_one_of_another(rows):
    assert {"train", "val"} == {row["split"] for row in rows}
    for group in group_near_duplicates([sketch(iter_frames(row["path"])) for row in rows]):
        assert len({rows[i]["split"] for i in group}) == 1


@pytest.mark.files
@pytest.mark.parametrize("change", ["coarse", "half the rate", "all of that"])
@pytest.mark.parametrize("rows", data_sets())
def test_copies_of_real_clips_are_detected(tmp_path, rows, change):
    clips = list({row["group"]: row["path"] for row in rows}.values())[:9]  # one of each person or place
    frames = [list(iter_frames(path)) for path in clips]
    frames = [[frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2] for frame in each] for each in frames]
    changed = dict(COPIES)
    changed["all of that"] = lambda path, clip: encoded(path, clip[1:-1:2], size=(80, 120), rate=12, crf="30")
    copies = [sketch(iter_frames(changed[change](tmp_path / f"{i}.mp4", clip))) for i, clip in enumerate(frames)]
    groups = group_near_duplicates([sketch(clip) for clip in frames] + copies)
    assert groups == [[number, number + len(clips)] for number in range(len(clips))]
