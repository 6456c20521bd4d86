"""A video that is drawn again: every frame of it, at its time and as it was, with what is seen over its lower edge."""

from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageColor
from tiny_predictions import CLASSES, RATE, film

from vidstill.data.decode.reader import iter_timed_frames
from vidstill.figures import annotate as drawing
from vidstill.figures.annotate import ClassPainter, compute_video_size, redraw_video
from vidstill.figures.timeline import Timeline

EXACTLY = {"preset": "ultrafast", "qp": "0"}  # so that pixels can be compared


def line(*shares: float, hop: float = 0.4) -> Timeline:
    """Windows one after another in which `jump, high` has these shares, and the others have what is left."""
    starts = hop * np.arange(len(shares))
    rest = (1 - np.array(shares)) / 2
    return Timeline(starts, starts + hop, np.stack([shares, rest, rest * 0.9], 1).astype(np.float32))


def annotate(folder, source, timeline: Timeline, classes=CLASSES, **options):
    """The frames of `out.mp4` and their times."""
    redraw_video(source, folder / "out.mp4", partial(ClassPainter, timeline, classes, 3), **options)
    return read_frames(folder / "out.mp4")


def read_frames(path):
    return [(frame.pts_seconds, frame.to_image()) for frame in iter_timed_frames(path)]


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(drawing, "_ENCODER_OPTIONS", EXACTLY)


@pytest.mark.parametrize("ticks", [None, [0, 1, 2, 5, 6, 10, 11, 12, 20, 21]])
def test_every_frame_is_there_at_its_time(tmp_path, ticks):
    source = film(tmp_path / "in.mkv", 10, ticks=ticks)
    times = [seconds for seconds, _ in annotate(tmp_path, source, line(0.9, 0.2))]
    assert times == pytest.approx([n / RATE for n in ticks or range(10)], abs=2e-3)  # Matroska counts milliseconds


def test_above_the_panel_the_picture_stays_as_it_is(tmp_path, exact):
    source = film(tmp_path / "in.mp4", 4, size=(480, 640))
    for (_, before), (_, after) in zip(read_frames(source), annotate(tmp_path, source, line(0.9)), strict=True):
        assert after.shape == before.shape
        np.testing.assert_allclose(after[:330].astype(int), before[:330].astype(int), atol=6)
        assert np.abs(after[400:, :100].astype(int) - before[400:, :100]).mean() > 60


def blue(picture: np.ndarray) -> int:
    """Pixels of the first bar's colour."""
    colour = np.array(ImageColor.getrgb("#0072B2")[:3])
    return int((np.abs(picture.astype(int) - colour).max(axis=-1) < 24).sum())


def test_the_bar_is_as_long_as_the_class_is_probable(tmp_path, exact):
    source = film(tmp_path / "in.mp4", 20, size=(480, 640))
    bars = [blue(picture) for _, picture in annotate(tmp_path, source, line(0.9, 0.45))]
    assert max(np.ptp(bars[:10]), np.ptp(bars[10:])) < 0.1 * bars[0]  # it stays as it is while a window speaks
    assert bars[10] == pytest.approx(bars[0] / 2, rel=0.15)


def test_small_videos_are_enlarged_and_large_ones_stay():
    assert compute_video_size(64, 64, 1.0) == (512, 512)
    assert compute_video_size(240, 320, 1.0) == (480, 640)
    assert compute_video_size(1080, 1920, 1.0) == (1080, 1920)
    assert compute_video_size(1920, 1080, 1.0) == (1920, 1080)
    assert compute_video_size(481, 853, 1.0) == (480, 852)
    assert compute_video_size(20, 1000, 1.0) == (20, 1000)
    assert compute_video_size(576, 720, 64 / 45) == (576, 1024)  # PAL, wide


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1.0, 4 / 3, 0.1, 1e-9, 1e9]))
def test_sizes_are_even_and_keep_their_shape(rows, columns, aspect):
    height, width = compute_video_size(rows, columns, aspect)
    assert height % 2 == width % 2 == 0
    assert height >= 2
    assert width >= 2
    assert max(height, width) <= max(1920, rows + 1, 10 * columns + 1)


@pytest.mark.parametrize("size", [(16, 16), (62, 34), (48, 400)])
def test_a_video_of_any_size_can_be_drawn(tmp_path, size):
    source = film(tmp_path / "in.mp4", 2, size=size)
    assert len(annotate(tmp_path, source, line(0.9), ["a very long name of a class " * 20, "", "走る"])) == 2


def test_pixels_become_square(tmp_path):
    source = film(tmp_path / "in.mp4", 2, size=(480, 480), aspect=Fraction(4, 3))
    annotate(tmp_path, source, line(0.9))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (480, 640)
        assert stream.sample_aspect_ratio in (None, 0, 1)
        assert [each.type for each in container.streams] == ["video"]


def test_where_it_fails_what_was_there_is_there_still(tmp_path):
    source = film(tmp_path / "in.mp4", 4)
    (tmp_path / "out.mp4").write_text("mine")

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate(tmp_path, source, line(0.9), progress=stop)
    assert (tmp_path / "out.mp4").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out.mp4"}
