"""Windows over videos: where they are, which frames they show, what is decoded for them, and what stays in memory."""

import itertools
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from encoded_videos import X264, encode, read_number
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_videos import number_of, numbered
from vicious_videos import VICIOUS

from vidstill.data.datasets import windows as module
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.datasets.windows import Window, WindowsConfig, iter_windows
from vidstill.data.decode.reader import TimedFrame, iter_timed_frames, read_frames
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.transforms.crop import crop_views
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.types import InputError

FRAMES = 40
STEADY = [n / 25 for n in range(FRAMES)]
VARIABLE = [n * n + 7 * n + 900 * (n >= 20) for n in range(FRAMES)]
"""Milliseconds: steps from 8 to 85, and a pause in the middle."""


def make_views(frames: int, size: tuple[int, int] = (64, 64), crops: int = 1) -> ViewsConfig:
    sampling = SpanSampling(num_frames=frames, stride=1)
    return ViewsConfig(sampling=sampling, temporal_clips=1, spatial_crops=crops, short_side=min(size), size=size)


def expected_windows(
    times: Sequence[float], lasts: float, cut: WindowsConfig, frames: int
) -> list[tuple[float, float, list[float]]]:
    """Of each window its start, its end, and the moments that it shows, by looking at every moment there is."""
    result = []
    for index in itertools.count():
        start = index * cut.hop_seconds
        moments = [start + n * cut.window_seconds / frames for n in range(frames)]
        inside = [moment for moment in moments if moment <= times[-1] + lasts / 2]
        if not inside:
            return result
        if len(inside) == frames:
            result.append((start, start + cut.window_seconds, moments))
        elif index == 0 or len(inside) > frames / 2:
            result.append((start, times[-1] + lasts, moments))
    raise AssertionError


def check(
    came: Iterable[Window], numbers: list[list[int]], times: Sequence[float], lasts: float, cut: WindowsConfig
) -> None:
    """The windows are where they should be, and each frame is as near to its moment as any other."""
    came = list(came)
    expected = expected_windows(times, lasts, cut, len(numbers[0]))
    assert [window.start for window in came] == pytest.approx([start for start, _, _ in expected])
    assert [window.end for window in came] == pytest.approx([end for _, end, _ in expected], abs=1e-3)
    for shows, (_, _, moments) in zip(numbers, expected, strict=True):
        away = [abs(times[n] - moment) for n, moment in zip(shows, moments, strict=True)]
        nearest = [min(abs(time - moment) for time in times) for moment in moments]
        assert away == pytest.approx(nearest, abs=1e-6)


def shown_in(window: Window) -> list[int]:
    """The numbers of a window's frames, of its first crop."""
    return [read_number(frame.permute(1, 2, 0).numpy()) for frame in window.clip[0].unbind(1)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, tuple[Path, list[float]]]:
    """Videos by what is said of their frames' times, with these times."""
    folder = tmp_path_factory.mktemp("windows")
    steady = folder / "steady.mp4", folder / "no_stamps.h264", folder / "some_stamps.ts"
    encode(steady[0], "libx264", X264)
    encode(steady[1], "libx264", X264)
    VICIOUS["some_stamps.ts"](steady[2])
    variable = encode(folder / "variable.mkv", "libx264", f"{X264} bf=2", stamps=VARIABLE)
    return {path.name: (path, STEADY) for path in steady} | {variable.name: (variable, [n / 1000 for n in VARIABLE])}


@pytest.mark.parametrize("name", ["steady.mp4", "no_stamps.h264", "some_stamps.ts", "variable.mkv"])
@pytest.mark.parametrize(
    ("seconds", "hop", "frames"),
    [
        pytest.param(0.4, 0.4, 4, id="side_by_side"),
        pytest.param(0.7, 0.15, 5, id="overlapping"),
        pytest.param(0.2, 0.55, 3, id="gaps"),
        pytest.param(0.1, 0.3, 10, id="more_frames_than_there_are"),
        pytest.param(9.0, 1.0, 4, id="longer_than_the_video"),
        pytest.param(0.3, 0.3, 1, id="one_frame"),
    ],
)
def test_windows_show_the_frames_that_are_nearest_to_their_moments(videos, name, seconds, hop, frames):
    path, times = videos[name]
    cut = WindowsConfig(window_seconds=seconds, hop_seconds=hop)
    came = list(iter_windows(path, cut, make_views(frames)))
    lasts = next(iter_timed_frames(path)).duration_seconds
    assert lasts == pytest.approx(0.04)
    check(came, [shown_in(window) for window in came], times, lasts, cut)


def as_timed(times: Iterable[float], lasts: float, converted: list[int] | None = None):
    """Replace `iter_timed_frames`: images of one pixel that hold their number, which is recorded when one is made."""

    def picture(n: int) -> np.ndarray:
        if converted is not None:
            converted.append(n)
        return np.array([[[n // 256 % 256, n % 256, 0]]], np.uint8)

    def frames_in_turn(source: object, *, default_frame_rate: float | None = None) -> Iterator[TimedFrame]:
        for n, time in enumerate(times):
            yield TimedFrame(time, lasts, partial(picture, n))

    return frames_in_turn


def pixels_in(window: Window) -> list[int]:
    return [256 * int(red) + int(green) for red, green, _ in window.clip[0, :, :, 0, 0].T]


steps = st.lists(st.floats(0.001, 3), min_size=0, max_size=25)
spans = st.floats(0.05, 6)


@settings(max_examples=60)
@given(steps=steps, lasts=st.floats(0.001, 1), seconds=spans, hop=spans, frames=st.integers(1, 6))
def test_at_any_times_frames_are_the_nearest_and_each_is_converted_once(steps, lasts, seconds, hop, frames):
    times, converted = [0.0, *itertools.accumulate(steps)], list[int]()
    cut = WindowsConfig(window_seconds=seconds, hop_seconds=hop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "iter_timed_frames", as_timed(times, lasts, converted))
        came = list(iter_windows(b"", cut, make_views(frames, (1, 1))))
    numbers = [pixels_in(window) for window in came]
    check(came, numbers, times, lasts, cut)
    assert len(converted) == len(set(converted))


@pytest.mark.parametrize(("frames", "starts", "end"), [(35, [0], 1.0), (40, [0, 1], 1.6)])
def test_a_last_window_that_is_filled_by_half_or_less_is_left_out(tmp_path, frames, starts, end):
    """Of four frames 0.25 s apart, those at 1.0 and 1.25 s are there in 1.4 s, and that at 1.5 s in 1.6 s."""
    path = encode(tmp_path / "video.mkv", "libx264", X264, numbers=range(frames))
    came = list(iter_windows(path, WindowsConfig(window_seconds=1.0, hop_seconds=1.0), make_views(4)))
    assert [window.start for window in came] == starts
    assert came[-1].end == pytest.approx(end)
    if len(came) == 2:
        assert shown_in(came[1])[::3] == [25, 39]  # the last one is repeated


def test_a_video_shorter_than_half_a_window_is_one_window_that_ends_with_it(tmp_path):
    path = encode(tmp_path / "video.mkv", "libx264", X264, numbers=range(5))
    (window,) = iter_windows(path, WindowsConfig(window_seconds=2.0, hop_seconds=0.1), make_views(4))
    assert (window.start, window.end) == (0, pytest.approx(0.2))
    assert shown_in(window) == [0, 4, 4, 4]


def test_crops_are_those_of_an_evaluation_view(videos):
    path, _ = videos["steady.mp4"]
    views = make_views(3, (48, 32), crops=3)
    first, second = itertools.islice(iter_windows(path, WindowsConfig(window_seconds=0.36, hop_seconds=0.2), views), 2)
    assert first.clip.shape == second.clip.shape == (3, 3, 3, 48, 32)
    expected = crop_views(read_frames(path, [5, 8, 11]), 32, (48, 32), 3)
    np.testing.assert_array_equal(second.clip.permute(0, 2, 3, 4, 1), np.stack(expected))


def test_images_in_a_folder_follow_one_another_at_the_default_frame_rate(tmp_path):
    for n in range(12):
        Image.fromarray(numbered(n)).save(tmp_path / f"img_{n:05d}.png")
    came = list(
        iter_windows(
            tmp_path,
            WindowsConfig(window_seconds=1.0, hop_seconds=1.0),
            make_views(2, (32, 64)),
            default_frame_rate=4.0,
        )
    )
    assert [(window.start, window.end) for window in came] == [(0, 1), (1, 2), (2, 3)]
    shows = [[number_of(frame.permute(1, 2, 0).numpy()) for frame in window.clip[0].unbind(1)] for window in came]
    assert shows == [[0, 2], [4, 6], [8, 10]]


def test_the_windows_before_damage_come_and_then_the_error(tmp_path):
    path = tmp_path / "flip_bits_others.av1.mkv"  # 11 frames decode: up to 0.42 s one of them is the nearest
    VICIOUS[path.name](path)
    frames_in_turn, came = (
        iter_windows(path, WindowsConfig(window_seconds=0.16, hop_seconds=0.12), make_views(2)),
        list[Window](),
    )
    with pytest.raises(BrokenVideo, match="breaks after 11 frames"):
        came.extend(window for window in frames_in_turn)
    assert [window.start for window in came] == pytest.approx([0, 0.12, 0.24])
    assert [shown_in(window) for window in came] == [[0, 2], [3, 5], [6, 8]]


def test_only_frames_that_are_used_are_converted(monkeypatch):
    converted = list[int]()
    monkeypatch.setattr(module, "iter_timed_frames", as_timed((n / 25 for n in range(250)), 0.04, converted))
    came = list(iter_windows(b"", WindowsConfig(window_seconds=0.2, hop_seconds=2.0), make_views(2, (1, 1))))
    assert converted == [number for window in came for number in pixels_in(window)]
    assert len(converted) == 10


@pytest.mark.parametrize(("seconds", "hop"), [(2.0, 0.3), (1.0, 1.0), (0.5, 2.0)])
def test_memory_does_not_grow_with_a_video(monkeypatch, seconds, hop):
    frames, references = 4, list[weakref.ref]()
    crops_of = module._crop_image

    def noted(picture: np.ndarray, views: ViewsConfig) -> list[np.ndarray]:
        crops = crops_of(picture, views)
        references.extend(weakref.ref(crop) for crop in crops)
        return crops

    monkeypatch.setattr(module, "_crop_image", noted)
    monkeypatch.setattr(module, "iter_timed_frames", as_timed((n / 25 for n in itertools.count()), 0.04))
    for _ in itertools.islice(
        iter_windows(b"", WindowsConfig(window_seconds=seconds, hop_seconds=hop), make_views(frames, (1, 1))), 300
    ):
        alive = sum(each() is not None for each in references)
        assert alive <= frames * (math.ceil(seconds / hop) + 1)
    assert len(references) > 500


def test_windows_come_as_soon_as_they_are_full(monkeypatch):
    read = list[float]()

    def times() -> Iterator[float]:
        for n in range(100):
            read.append(n / 25)
            yield read[-1]

    monkeypatch.setattr(module, "iter_timed_frames", as_timed(times(), 0.04))
    for window in iter_windows(b"", WindowsConfig(window_seconds=0.4, hop_seconds=0.2), make_views(4, (1, 1))):
        assert read[-1] <= window.start + 0.3 + 0.08  # its last moment, and a frame that is farther from it


def test_a_pause_of_years_delays_nothing(monkeypatch):
    monkeypatch.setattr(module, "iter_timed_frames", as_timed([0.0, 0.04, 1e9, 1e9 + 0.04], 0.04))
    frames_in_turn = iter_windows(b"", WindowsConfig(window_seconds=2.0, hop_seconds=0.5), make_views(4, (1, 1)))
    assert [pixels_in(window) for window in itertools.islice(frames_in_turn, 100)] == [
        [0, 1, 1, 1],
        *[[1, 1, 1, 1]] * 99,
    ]


def test_a_video_without_frames_has_no_windows(monkeypatch):
    monkeypatch.setattr(module, "iter_timed_frames", as_timed([], 0.04))
    assert list(iter_windows(b"", WindowsConfig(window_seconds=1.0, hop_seconds=1.0), make_views(4, (1, 1)))) == []


@pytest.mark.parametrize("wrong", [(0.0, 1.0), (1.0, -1.0)])
def test_windows_of_no_length_or_hop_are_refused(wrong):
    with pytest.raises(InputError, match=r"window_seconds|hop_seconds"):
        WindowsConfig(window_seconds=wrong[0], hop_seconds=wrong[1])
