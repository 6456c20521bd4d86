"""Synthetic clips: files and lists as configured, in classes that no single frame reveals; and videos of benchmarks."""

import io
from itertools import pairwise, product
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from hypothesis import given, settings
from hypothesis import strategies as st
from transcoded import transcode

from vidstill.data.decode.reader import count_frames, read_frames
from vidstill.data.manifest.open import open_manifest
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.synthetic.dataset import SyntheticClipsConfig, encode_h264, make_dataset
from vidstill.synthetic.drawing import (
    MAX_RADIUS,
    MIN_RADIUS,
    MOTION_CLASSES,
    draw_clip,
    draw_clips,
    draw_trajectories,
)
from vidstill.synthetic.footage import FootageConfig, encode_footage, render_footage
from vidstill.utils.types import InputError

TINY = SyntheticClipsConfig(train=5, val=3, unlabelled=4, frames=4, size=(16, 24), fps=10)
REVERSED = [("left", "right"), ("up", "down"), ("clockwise", "counterclockwise"), ("growing", "shrinking")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("made"), TINY, workers=1)


def test_the_lists_name_every_clip_with_classes_in_turn(tiny):
    for split, count in (("train", 5), ("val", 3)):
        listing = open_manifest(tiny, split=split)
        assert listing.classes == MOTION_CLASSES
        assert [row.label for row in listing.rows] == list(range(count))
        assert [row.source.parent.name for row in listing.rows] == [split] * count
    unlabelled = open_manifest(tiny / "unlabelled.txt")
    assert [row.label for row in unlabelled.rows] == [None] * 4
    listed = sum((tiny / name).read_text().count(".mp4") for name in ("train.csv", "val.csv", "unlabelled.txt"))
    assert listed == len(list(tiny.rglob("*.mp4"))) == 12


def test_clips_have_the_configured_size_and_number_of_frames(tiny):
    path = tiny / "train" / "000000.mp4"
    assert count_frames(path) == 4
    assert read_frames(path, range(4)).shape == (4, 16, 24, 3)


def test_an_encoded_file_has_the_drawn_frames():
    draws = draw_clip("circling", 3, 6, (64, 48))
    read = read_frames(encode_h264(draws, 8), range(6))
    grey = draws.mean(-1) - read.mean(-1)  # colours are stored at half the resolution
    assert np.sqrt((grey**2).mean()) < 8


def test_every_frame_is_encoded_on_its_own():
    draws = draw_clip("right", 5, 6, (32, 32))
    forth, back = (read_frames(encode_h264(clip, 8), range(6)) for clip in (draws, draws[::-1].copy()))
    assert np.array_equal(forth, back[::-1])


# Only in motion: the paths themselves. Each of them is a point on a torus, so uniform means uniform on circles.

FRAMES, DRAWS = 8, 2000
LIMIT = 2.4 / np.sqrt(DRAWS)  # of Kolmogorov and Smirnov: exceeded twice in 100 000 samples that are uniform


def states(action: str) -> np.ndarray:
    """(draws, frames, 6): x, y, angle, log size, distance to the bar in the bar's direction, bar; each in [0, 1)."""
    actions = torch.full((DRAWS,), MOTION_CLASSES.index(action))
    path = draw_trajectories(actions, torch.arange(DRAWS), action, FRAMES)
    size = torch.log(path.radius / MIN_RADIUS) / np.log(MAX_RADIUS / MIN_RADIUS)
    bar = path.bar_position[:, None].expand(-1, FRAMES)
    away = torch.where(path.has_vertical_bar[:, None], path.x, path.y) - bar
    columns = [path.x, path.y, path.angle / (2 * np.pi) % 1, size, away % 1, bar]
    return torch.stack(columns, dim=-1).numpy()


@pytest.fixture(scope="module")
def drawn_states() -> dict[str, np.ndarray]:
    return {action: states(action) for action in MOTION_CLASSES}


def furthest(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance between two samples."""
    values = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def test_in_every_frame_positions_angles_and_sizes_have_the_same_distribution_for_every_class(drawn_states):
    grid = (np.arange(20 * DRAWS) + 0.5) / (20 * DRAWS)
    for action, frame, number in product(MOTION_CLASSES, range(FRAMES), range(6)):
        sample = drawn_states[action][:, frame, number]
        assert furthest(sample, grid) < LIMIT, f"{action}, frame {frame}, number {number} is not uniform"
    for one, other in pairwise(MOTION_CLASSES):
        for frame, number in product(range(FRAMES), range(6)):
            a, b = (drawn_states[action][:, frame, number] for action in (one, other))
            assert furthest(a, b) < 2**0.5 * LIMIT, f"{one} and {other} differ in number {number} of frame {frame}"


def test_in_every_frame_the_numbers_of_a_state_are_uncorrelated(drawn_states):
    for action, frame in product(MOTION_CLASSES, range(FRAMES)):
        circles = np.exp(2j * np.pi * drawn_states[action][:, frame])[:, [0, 1, 2, 3, 5]]
        for a, b in product(range(5), range(5)):
            if a < b:
                # one of these is 1 where b is a multiple of a, plus a constant
                for k, m in product((-2, -1, 1, 2), (1, 2)):
                    together = abs((circles[:, a] ** k * circles[:, b] ** m).mean())
                    assert together < 4 / np.sqrt(DRAWS), f"{action}, frame {frame}: {a} and {b} hang together"


def test_differences_of_two_frames_separate_the_classes(drawn_states):
    def steps(action):
        return (drawn_states[action][:, 1, :4] - drawn_states[action][:, 0, :4] + 0.5) % 1

    for one, other in product(MOTION_CLASSES, MOTION_CLASSES):
        if one < other:
            distances = [furthest(steps(one)[:, n], steps(other)[:, n]) for n in range(4)]
            assert max(distances) > 0.2, f"{one} and {other} move alike"


@pytest.mark.parametrize(("forth", "back"), REVERSED)
def test_opposite_actions_are_time_reversals(forth, back, drawn_states):
    one, other = drawn_states[forth], drawn_states[back][:, ::-1]
    for frame, number in product(range(1, FRAMES), range(4)):
        a, b = ((sample[:, frame, number] - sample[:, 0, number] + 0.25) % 1 for sample in (one, other))
        assert furthest(a, b) < 2**0.5 * LIMIT


@given(st.integers(0, 2**32), st.integers(2, 40))
def test_an_object_stays_in_the_frame_and_in_its_size_range(seed, frames):
    actions = torch.arange(len(MOTION_CLASSES))
    path = draw_trajectories(actions, seed + actions, "path", frames)
    for number in (path.x, path.y):
        assert number.shape == (len(actions), frames)
        assert (number >= 0).all()
        assert (number <= 1).all()
    assert (path.radius >= MIN_RADIUS - 1e-6).all()
    assert (path.radius <= MAX_RADIUS + 1e-6).all()


# Only in motion: the pixels.


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(16, 16), (16, 40), (64, 32)]))
def test_opposite_actions_of_the_same_seed_begin_with_the_same_frame(seed, size):
    first = [draw_clip(action, seed, 2, size)[0] for pair in REVERSED for action in pair]
    assert all(np.array_equal(first[0], other) for other in first)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MOTION_CLASSES))
def test_more_than_the_main_object_moves(seed, action):
    """Even the quarters of the frame that the largest thing stays out of change."""
    clip = draw_clip(action, seed, 4, (32, 32)).astype(int)
    quarters = np.abs(np.diff(clip, axis=0)).reshape(3, 2, 16, 2, 16, 3)
    assert (quarters.max((0, 2, 4, 5)) > 0).all()


@pytest.mark.parametrize("size", [(16, 24), (32, 32)])
def test_a_clip_is_the_same_whichever_clips_are_drawn_with_it(size):
    actions = [MOTION_CLASSES[i % len(MOTION_CLASSES)] for i in range(40)]
    clips = draw_clips(actions, torch.arange(40), 5, size)
    assert clips.shape == (40, 3, 5, *size)
    assert clips.dtype == torch.uint8
    for index in range(0, 40, 3):
        alone = torch.from_numpy(draw_clip(actions[index], index, 5, size)).permute(3, 0, 1, 2)
        assert (alone.int() - clips[index].int()).abs().max() <= 1  # sums in another order may be rounded otherwise
        assert (alone != clips[index]).float().mean() < 1e-3


def test_clips_of_different_seeds_show_different_things():
    clips = draw_clips(["left"] * 16, torch.arange(16), 2, (32, 32)).flatten(1).float()
    assert torch.pdist(clips).min() > 1000


def test_an_unknown_action_is_refused():
    with pytest.raises(InputError, match="hopping is not an action; take one of left, right"):
        draw_clip("hopping", 0, 4, (16, 16))


def grey_frames(actions: tuple[str, ...], count: int) -> np.ndarray:
    """(count, frames, 16, 16): small grey clips, the actions in turn."""
    drawn = [draw_clips(list(actions), each, FRAMES, (32, 32)) for each in torch.arange(count).split(len(actions))]
    grey = torch.cat(drawn).float().mean(1).numpy() / 255 - 0.5
    return grey.reshape(count, FRAMES, 16, 2, 16, 2).mean((3, 5))


def least_squares_accuracy(features: np.ndarray, labels: np.ndarray, ridge: float) -> float:
    """Of a linear classifier that learned from the first two thirds, on the last third."""
    cut = 2 * len(features) // 3
    features = (features - features[:cut].mean(0)) / (features[:cut].std(0) + 1e-6)
    train_features, targets = features[:cut], np.eye(labels.max() + 1)[labels[:cut]]
    gram = train_features.T @ train_features + ridge * np.eye(train_features.shape[1])
    weights = np.linalg.solve(gram, train_features.T @ targets)
    return float(((features[cut:] @ weights).argmax(1) == labels[cut:]).mean())


def test_a_linear_classifier_learns_nothing_from_a_single_frame_and_much_from_differences():
    actions = ("left", "right", "up", "down")
    grey = grey_frames(actions, 1200)
    labels = np.arange(1200) % 4
    for frame in (0, FRAMES // 2, FRAMES - 1):
        accuracy = least_squares_accuracy(grey[:, frame].reshape(1200, -1), labels, ridge=300)
        assert abs(accuracy - 1 / 4) < 4 * np.sqrt(3 / 16 / 400), frame  # four standard errors of guessing
    change = np.diff(grey, axis=1)
    here = (grey[:, 1:] + grey[:, :-1]) / 2
    slopes = [(np.roll(here, -1, axis) - np.roll(here, 1, axis)) / 2 for axis in (2, 3)]
    flow = np.stack([(change * slope).mean((2, 3)) for slope in slopes], -1)  # the gradients' constraint on the flow
    assert least_squares_accuracy(flow.reshape(1200, -1), labels, ridge=1) > 0.5


# ---- Videos of benchmarks -------------------------------------------------------------------------------------------


SMALL = FootageConfig(frames=48, size=(96, 128))


def frame_types(data):
    with av.open(io.BytesIO(data)) as container:
        return [PictureType(frame.pict_type).name for frame in container.decode(video=0)]


def test_the_seed_decides_the_video():
    assert encode_footage(SMALL, 0) == encode_footage(SMALL, 0)
    assert not np.array_equal(render_footage(SMALL, 0), render_footage(SMALL, 1))


def test_a_video_has_the_configured_frames_and_size():
    assert render_footage(SMALL, 3).shape == (48, 96, 128, 3)


def test_the_file_has_b_frames_and_few_key_frames():
    types = frame_types(encode_footage(SMALL, 0))
    assert len(types) == SMALL.frames
    assert types.count("B") > SMALL.frames / 4
    assert types.count("I") < SMALL.frames / 8


def test_frames_are_predicted_from_others_at_a_realistic_size():
    raw = encode_footage(SMALL, 0)
    apart = transcode(raw, TranscodeConfig(short_side=96))[1]  # coarser, but each frame by itself
    plane = SMALL.size[0] * SMALL.size[1] * SMALL.frames
    assert 0.02 * plane < len(raw) < len(apart)  # of a still picture it is 0.005
