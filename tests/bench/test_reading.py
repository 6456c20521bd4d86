"""Readers are compared if they give the same frames, and named if they do not."""

import sys

import numpy as np
import pytest
from transcoded import transcode

from vidstill.bench.reading import (
    DECORD,
    PYAV_LOOP,
    TORCHCODEC,
    VIDSTILL,
    ReadRequest,
    draw_frame_indices,
    find_readers,
    measure_reading,
    read_with_pyav,
)
from vidstill.data.decode.reader import read_frames
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.synthetic.footage import FootageConfig, encode_footage
from vidstill.utils.rng import derive_sample_seed, numpy_rng

SAMPLING = SpanSampling(num_frames=4, stride=3)
FILMS = [encode_footage(FootageConfig(frames=24, size=(48, 64)), seed) for seed in range(2)]


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / f"{n}.mp4" for n in range(2)]
    for path, film in zip(paths, FILMS, strict=True):
        path.write_bytes(film)
    return [
        ReadRequest(path.name, {"raw": path, "packed": path.read_bytes()}, draw_frame_indices(SAMPLING, 24, 3, n, 0))
        for n, path in enumerate(paths)
    ]


def by_name(timings):
    return {(timing.reader, timing.file_kind): timing for timing in timings}


def test_every_round_draws_a_clip_as_an_epoch_of_training_does():
    for n, draws in enumerate(draw_frame_indices(SAMPLING, 24, 3, index=5, seed=7)):
        assert draws == SAMPLING.draw_indices(24, numpy_rng(derive_sample_seed(7, n, 5), "frames"))


def test_each_reader_reads_every_clip_once_when_timed(videos):
    requests_made = []

    def counting(source, indices):
        requests_made.append((source, tuple(indices)))
        return read_frames(source, indices)

    timings = by_name(
        measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav, "counting": counting}, videos, 0)
    )
    for video in videos:
        for source in video.sources.values():
            in_race = [indices for where, indices in requests_made if where is source]
            in_race.remove(tuple(video.frame_indices[0]))  # when frames were compared
            assert in_race == [tuple(indices) for indices in video.frame_indices]
    one = timings["counting", "raw"]
    assert np.shape(one.all_seconds) == (3, 2)
    assert one.seconds_per_clip == pytest.approx(np.mean(np.median(one.all_seconds, axis=0)))
    assert one.clips_per_second == pytest.approx(1 / one.seconds_per_clip)


def test_the_plain_loop_has_a_speedup_of_one_over_itself_and_missing_readers_give_none(videos):
    timings = by_name(measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav}, videos, 0))
    plain = timings[PYAV_LOOP, "raw"]
    assert (plain.speedup_over_pyav, plain.min_speedup_over_pyav) == (1, 1)
    assert all(each.speedup_over_decord is None for each in timings.values())
    result = timings[VIDSTILL, "raw"]
    assert result.speedup_over_pyav == pytest.approx(plain.seconds_per_clip / result.seconds_per_clip)


def test_a_reader_of_other_frames_is_not_compared_and_says_which(videos):
    def one_late(source, indices):
        return read_frames(source, [n + 1 for n in indices])

    timings = by_name(measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav, DECORD: one_late}, videos, 0))
    late = timings[DECORD, "raw"]
    assert "other frames of 2 of 2 videos, first of 0.mp4" in late.error
    assert (late.speedup_over_pyav, late.min_speedup_over_pyav) == (None, None)
    assert late.pixel_difference > 2
    assert timings[VIDSTILL, "raw"].speedup_over_decord is None  # nor is anyone with it


def test_a_reader_of_another_size_is_not_compared(videos):
    def turned(source, indices):
        return np.rot90(read_frames(source, indices), axes=(1, 2)).copy()

    timings = by_name(measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav, "turned": turned}, videos, 0))
    assert "48x64 pixels" in timings["turned", "packed"].error


def test_a_reader_that_fails_is_named_with_its_reason_and_the_rest_goes_on(videos):
    def failing(source, indices):
        raise OSError("no such thing\nat all")

    timings = by_name(
        measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav, "failing": failing}, videos, 0)
    )
    assert timings["failing", "raw"].error == "fails on 0.mp4: no such thing"
    assert timings["failing", "raw"].seconds_per_clip is None
    assert timings[VIDSTILL, "raw"].speedup_over_pyav is not None


def test_frame_utilization_counts_decoded_frames():
    apart = transcode(FILMS[0], TranscodeConfig(gop=1))[1]
    video = ReadRequest("one", {"raw": apart}, [[0, 5, 5, 20]])
    timings = by_name(measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav}, [video], 0))
    assert timings[VIDSTILL, "raw"].frame_utilization == 1
    assert timings[PYAV_LOOP, "raw"].frame_utilization is None


@pytest.mark.parametrize("name", [DECORD, TORCHCODEC])
def test_a_reader_that_is_not_installed_is_missing_with_the_way_to_get_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    available, missing = find_readers()
    assert name not in available
    assert missing[name] == f"not installed: pip install {name}"
    assert {VIDSTILL, PYAV_LOOP} <= set(available)


@pytest.mark.parametrize("name", [DECORD, TORCHCODEC])
def test_another_reader_gives_a_full_decode_s_frames(name, videos):
    available, missing = find_readers()
    if name not in available:
        pytest.skip(f"{name}: {missing[name]}")
    timings = by_name(
        measure_reading({VIDSTILL: read_frames, PYAV_LOOP: read_with_pyav, name: available[name]}, videos, 0)
    )
    assert [timings[name, files].error for files in ("raw", "packed")] == ["", ""]
