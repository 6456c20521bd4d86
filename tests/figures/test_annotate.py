"""Annotated videos: every frame at its time and as it was, with panels and boxes drawn over it."""

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
from vidstill.figures.boxes import BoxPainter, get_track_color
from vidstill.figures.timeline import Timeline
from vidstill.figures.tracks import KeyframeDetections, PersonTracks

# ---- Classes --------------------------------------------------------------------------------------------------------


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
    """Encode without loss, so that pixels can be compared."""
    monkeypatch.setattr(drawing, "_ENCODER_OPTIONS", {"preset": "ultrafast", "qp": "0"})


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


# ---- Boxes ----------------------------------------------------------------------------------------------------------


ACTIONS = ["stand", "talk to (e.g., self, a person, a group)", "走る"]
LEFT, RIGHT = (0.05, 0.2, 0.25, 0.8), (0.6, 0.1, 0.9, 0.9)


def moment(
    seconds: float, *boxes: tuple[float, ...], scores: tuple[float, ...] = (0.9, 0.2, 0.05)
) -> KeyframeDetections:
    count = len(boxes)
    return KeyframeDetections(
        float(seconds),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.ones(count),
        np.tile(np.array(scores, np.float32), (count, 1)),
    )


def shifted(box: tuple[float, ...], by: float) -> tuple[float, ...]:
    return box[0] + by, box[1], box[2] + by, box[3]


def numbers(tracks: PersonTracks) -> list[list[int]]:
    return [each.tolist() for each in tracks.track_ids]


# ---- Tracks ---------------------------------------------------------------------------------------------------------


def test_boxes_that_overlap_from_moment_to_moment_are_one_persons():
    tracks = PersonTracks(
        [moment(0, LEFT, RIGHT), moment(1, shifted(RIGHT, 0.05), shifted(LEFT, 0.05)), moment(2, LEFT)]
    )
    assert numbers(tracks) == [[1, 2], [2, 1], [1]]


def test_the_largest_overlap_is_linked_first():
    near, nearer = shifted(LEFT, 0.06), shifted(LEFT, 0.02)
    assert numbers(PersonTracks([moment(0, LEFT), moment(1, near, nearer)])) == [[1], [2, 1]]


def test_boxes_that_hardly_overlap_are_two_persons():
    assert numbers(PersonTracks([moment(0, LEFT), moment(1, shifted(LEFT, 0.15))])) == [[1], [2]]


def test_a_person_who_is_missed_at_a_moment_begins_anew():
    assert numbers(PersonTracks([moment(0, LEFT), moment(1), moment(2, LEFT)])) == [[1], [], [2]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_a_number_is_had_once_at_a_moment_and_by_neighbouring_moments(counts, seed):
    rng = np.random.default_rng(seed)
    boxes = [np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4) for count in counts]
    track_ids = numbers(PersonTracks([moment(n, *map(tuple, each)) for n, each in enumerate(boxes)]))
    assert [len(each) for each in track_ids] == counts
    assert all(len(set(each)) == len(each) for each in track_ids)
    for track in {number for each in track_ids for number in each}:
        indices = [index for index, each in enumerate(track_ids) if track in each]
        assert indices == list(range(indices[0], indices[-1] + 1))
    every = sorted({number for each in track_ids for number in each})
    assert every == list(range(1, 1 + len(every)))


@given(st.floats(0, 1, exclude_max=True))
def test_a_box_is_on_the_straight_way_from_moment_to_moment(way):
    end = shifted(LEFT, 0.08)
    (track_box,) = PersonTracks([moment(2, LEFT), moment(3, end)]).interpolate_boxes(2 + way)
    np.testing.assert_allclose(track_box.box, np.array(LEFT) * (1 - way) + np.array(end) * way, atol=1e-12)
    assert track_box.keyframe_index == round(way + 1e-12) if way != 0.5 else 1


def test_a_box_without_a_next_one_ends_half_way():
    tracks = PersonTracks([moment(0, LEFT), moment(1, RIGHT), moment(2)])
    tracks_at = {
        seconds: [each.track_id for each in tracks.interpolate_boxes(seconds)]
        for seconds in (0.0, 0.49, 0.51, 1.0, 1.49, 1.51, 9.0)
    }
    assert tracks_at == {0.0: [1], 0.49: [1], 0.51: [2], 1.0: [2], 1.49: [2], 1.51: [], 9.0: []}


def test_before_the_first_moment_and_behind_the_last_boxes_stay():
    tracks = PersonTracks([moment(1, LEFT), moment(2, LEFT)])
    for seconds in (0.0, 2.7):
        np.testing.assert_allclose(tracks.interpolate_boxes(seconds)[0].box, LEFT)
    assert PersonTracks([]).interpolate_boxes(0.3) == []


# ---- Drawing --------------------------------------------------------------------------------------------------------


def draw(
    tmp_path, tracks: PersonTracks, *, frames: int = 50, size=(480, 640), min_score: float = 0.0
) -> list[np.ndarray]:
    source = film(tmp_path / "in.mp4", frames, size=size)
    redraw_video(source, tmp_path / "out.mp4", partial(BoxPainter, tracks, ACTIONS, 3, min_score))
    return [image for _, image in read_frames(tmp_path / "out.mp4")]


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    return np.abs(picture.astype(int) - ImageColor.getrgb(colour)[:3]).max(axis=-1) < 40


def test_every_frame_has_the_box_where_it_is_then_in_its_tracks_colour(tmp_path, exact):
    tracks = PersonTracks(
        [moment(0, LEFT, RIGHT), moment(1, shifted(LEFT, 0.1), RIGHT), moment(2, shifted(LEFT, 0.2), RIGHT)]
    )
    pictures = draw(tmp_path, tracks)
    assert len(pictures) == 50
    for number, picture in enumerate(pictures):
        for track, left in ((1, 0.05 + 0.1 * number / RATE), (2, RIGHT[0])):
            column = round(left * 640)
            edge = near(picture[200:260, column : column + 3], get_track_color(track))
            assert edge.mean() > 0.3, (number, track)  # its colour is coded for two columns at a time
            beside = near(picture[200:260, column + 12 : column + 30], get_track_color(track))
            assert beside.mean() < 0.2


def test_inside_of_a_box_and_far_from_it_the_picture_stays_as_it_is(tmp_path, exact):
    pictures = draw(tmp_path, PersonTracks([moment(0, LEFT)]), frames=4)
    for (_, old), new in zip(read_frames(tmp_path / "in.mp4"), pictures, strict=True):
        inside, far = np.s_[120:360, 50:140], np.s_[:80, :]
        for part in (inside, far):
            np.testing.assert_allclose(new[part].astype(int), old[part].astype(int), atol=6)


def test_a_bar_is_as_long_as_its_score(tmp_path, exact):
    lengths = []
    for score in (0.9, 0.45):
        tracks = PersonTracks([moment(0, LEFT, scores=(score, 0.0, 0.0))])
        picture = draw(tmp_path, tracks, frames=1, min_score=0.1)[0]
        rows = near(picture[:, 190:], get_track_color(1))  # to the right of the box and of the number
        lengths.append(rows.sum(axis=1).max())
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.1)


def test_actions_below_the_minimum_score_are_not_drawn(tmp_path, exact):
    heights = []
    for least in (0.0, 0.1, 0.95):
        picture = draw(tmp_path, PersonTracks([moment(0, LEFT)]), frames=1, min_score=least)[0]
        dark = (picture[:, 175:260].astype(int).sum(axis=-1) < 240).mean(axis=1) > 0.3
        heights.append(int(dark.sum()))
    assert heights[0] > heights[1] > heights[2] == 0


def test_a_panel_is_not_over_the_faces_of_others_where_there_is_room(tmp_path, exact):
    other = (0.26, 0.2, 0.5, 0.8)  # where the panel of the first would be
    before = film(tmp_path / "in.mp4", 1, size=(480, 640))
    old = next(iter(iter_timed_frames(before))).to_image()
    picture = draw(tmp_path, PersonTracks([moment(0, LEFT, other)]), frames=1)[0]
    for box in (LEFT, other):
        x1, y1, x2, y2 = np.multiply(box, [640, 480, 640, 480]).astype(int)
        face = np.s_[y1 + 8 : y1 + (y2 - y1) // 3, x1 + 8 : x2 - 8]
        np.testing.assert_allclose(picture[face].astype(int), old[face].astype(int), atol=6)


@pytest.mark.parametrize("size", [(16, 16), (62, 34), (48, 400)])
@pytest.mark.parametrize(
    "boxes",
    [
        [(0.0, 0.0, 1.0, 1.0), LEFT],
        [(-0.5, 0.9, 0.01, 1.7), LEFT],
        [(0.999, 0.999, 1.0, 1.0), LEFT],
        [(x / 10, 0.2, x / 10 + 0.09, 0.9) for x in range(10)],
    ],
)
def test_any_boxes_can_be_drawn_in_a_video_of_any_size(tmp_path, size, boxes):
    assert len(draw(tmp_path, PersonTracks([moment(0, *boxes)]), frames=2, size=size)) == 2


def test_a_crowd_can_be_drawn(tmp_path):
    crowd = [(x / 10, 0.2, x / 10 + 0.09, 0.9) for x in range(10)]
    assert len(draw(tmp_path, PersonTracks([moment(0, *crowd)]), frames=2)) == 2
