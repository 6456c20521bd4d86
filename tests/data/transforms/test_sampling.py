"""Which frames are looked at."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling
from vidstill.utils.types import InputError

lengths = st.integers(1, 2000)
counts = st.integers(1, 40)
strides = st.integers(1, 9)
seeds = st.integers(0, 2**32)
rates = st.floats(0.5, 120)
timed = st.builds(
    TimedSampling,
    num_frames=counts,
    stride=st.floats(0.1, 9),
    frame_rate=rates,
    start_mode=st.sampled_from(["between", "frame"]),
)
samplings = st.one_of(
    timed,
    st.builds(SpanSampling, num_frames=counts, stride=strides),
    st.builds(DenseSampling, num_frames=counts, stride=strides),
    st.builds(SegmentSampling, num_frames=counts, rule=st.sampled_from(["videomae", "amd", "mvd"])),
)


def ascending_and_in_range(frames: list[int], total: int) -> bool:
    return frames == sorted(frames) and frames[0] >= 0 and frames[-1] < total


@given(samplings, lengths, seeds)
def test_drawn_frames_ascend_and_lie_in_the_video_and_a_seed_repeats_them(sampling, total, seed):
    frames, again = (sampling.draw_indices(total, np.random.default_rng(seed)) for _ in range(2))
    assert frames == again
    assert len(frames) == sampling.num_frames
    assert ascending_and_in_range(frames, total)


@given(st.builds(SegmentSampling, num_frames=counts), lengths, seeds)
def test_frame_is_drawn_from_each_segment_in_turn_and_of_one_frame_nothing_is_drawn(sampling, total, seed):
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    expected = [int(other.integers(segment.start, segment.stop)) for segment in sampling.list_segments(total)]
    assert sampling.draw_indices(total, rng) == expected
    assert rng.bit_generator.state == other.bit_generator.state
    if total == sampling.num_frames:
        assert rng.bit_generator.state == np.random.default_rng(seed).bit_generator.state


@given(samplings, lengths, st.integers(1, 12))
def test_every_view_has_all_its_frames_ascending_and_in_the_video(sampling, total, views):
    frames_of_views = sampling.list_view_indices(total, views)
    assert len(frames_of_views) == views
    for frames in frames_of_views:
        assert len(frames) == sampling.num_frames
        assert ascending_and_in_range(frames, total)


@given(samplings, seeds)
def test_an_image_is_a_video_of_one_frame(sampling, seed):
    assert set(sampling.draw_indices(1, np.random.default_rng(seed))) == {0}
    assert sampling.list_view_indices(1, 3) == [[0] * sampling.num_frames] * 3


@given(st.builds(SpanSampling, num_frames=counts, stride=strides), lengths, st.integers(1, 5), seeds)
def test_repeated_clips_start_in_separate_parts(sampling, total, repeats, seed):
    clips = sampling.draw_repeat_indices(total, repeats, np.random.default_rng(seed))
    starts = [frames[0] for frames in clips]
    room = total - sampling.num_frames * sampling.stride + 1
    if room < repeats:
        assert starts == [0] * repeats
    else:
        assert [start // (room // repeats) for start in starts] == list(range(repeats))


@given(st.builds(SpanSampling, num_frames=counts, stride=st.integers(2, 9)), st.data())
def test_a_span_that_fits_has_its_stride_throughout(sampling, data):
    total = data.draw(st.integers(sampling.num_frames * sampling.stride, 2000))
    (starts,) = sampling.list_start_ranges(total)
    for start in (starts[0], starts[-1]):
        assert sampling.list_indices_from(start, total) == [
            start + sampling.stride * i for i in range(sampling.num_frames)
        ]
    assert starts[-1] + sampling.num_frames * sampling.stride == total


@pytest.mark.parametrize(
    ("num_frames", "stride", "start", "total", "frames"),  # of the authors' rule: on by s only if (current + 1) + s < n
    [
        (16, 4, 0, 40, [*range(0, 36, 4), *[36] * 7]),  # the example of the papers' codes
        (16, 4, 0, 41, [*range(0, 36, 4), *[36] * 7]),  # 40 is the last frame, which is never reached
        (16, 4, 0, 42, [*range(0, 40, 4), *[40] * 6]),
        (16, 4, 0, 5, [0] * 16),
        (16, 4, 0, 6, [0, *[4] * 15]),
        (4, 2, 0, 8, [0, 2, 4, 6]),
        (4, 2, 1, 8, [1, 3, 5, 5]),
        (4, 1, 0, 3, [0, 1, 1, 1]),
        (4, 1, 0, 1, [0, 0, 0, 0]),
    ],
)
def test_a_span_never_reaches_the_last_frame_of_a_video_that_ends_too_soon(num_frames, stride, start, total, frames):
    assert SpanSampling(num_frames=num_frames, stride=stride).list_indices_from(start, total) == frames


@given(st.builds(DenseSampling, num_frames=counts, stride=strides), st.data())
def test_a_dense_clip_fills_its_span_and_never_shows_the_last_frame(sampling, data):
    span = sampling.num_frames * sampling.stride
    total = data.draw(st.integers(span + 1, span + 500))
    for end in (sampling.get_end_range(total)[0], sampling.get_end_range(total)[-1]):
        frames = sampling.list_indices_until(end)
        assert frames[0] == end - span
        assert frames[-1] < total - 1
        if sampling.num_frames > 1:
            assert frames[-1] == end - 1


@given(st.builds(DenseSampling, num_frames=counts, stride=strides), lengths, st.integers(2, 8))
def test_dense_views_reach_from_the_first_frame_to_the_last_stride(sampling, total, views):
    """Or to the stride before it: the released rule cuts off a product that may lie just below a whole number.

    Of 935 frames, one a clip, the last of 8 views starts at 7 · (934 / 7) = 933.99….
    """
    frames_of_views = sampling.list_view_indices(total, views)
    assert frames_of_views[0][0] == 0
    assert frames_of_views[-1][-1] >= total - 2 * sampling.stride or total < sampling.stride


@given(st.builds(DenseSampling, num_frames=counts, stride=strides), lengths)
def test_one_dense_view_is_at_the_start(sampling, total):
    (frames,) = sampling.list_view_indices(total, 1)
    assert frames == [min(i, (total - 1) // sampling.stride) * sampling.stride for i in range(sampling.num_frames)]


@given(counts, st.integers(1, 400), seeds)
def test_segments_of_whole_length_each_give_one_frame(frames, total, seed):
    sampling = SegmentSampling(num_frames=frames, rule="videomae")
    draws = sampling.draw_indices(total, np.random.default_rng(seed))
    if total >= frames:
        assert [frame // (total // frames) for frame in draws] == list(range(frames))
    else:
        assert draws == [0] * frames


@given(counts, st.data())
def test_amd_shows_every_frame_of_a_short_video(frames, data):
    total = data.draw(st.integers(1, frames))
    draws = SegmentSampling(num_frames=frames, rule="amd").draw_indices(total, np.random.default_rng(0))
    assert draws == [0] * (frames - total) + list(range(total))


@given(counts, lengths)
def test_mvd_segments_meet_at_their_borders_and_cover_the_video(frames, total):
    segments = SegmentSampling(num_frames=frames, rule="mvd").list_segments(total)
    assert [segment[-1] for segment in segments[:-1]] == [segment[0] for segment in segments[1:]]
    assert (segments[0][0], segments[-1][-1]) == (0, total - 1)


@given(st.sampled_from(["videomae", "amd", "mvd"]), counts, st.integers(1, 6), st.data())
def test_segment_views_take_every_segment_once(rule, frames, views, data):
    per_segment = data.draw(st.integers(1, 20)) * views
    total = frames * per_segment + (rule == "mvd")  # so that no segment's length is a fraction
    for frames_of_views in SegmentSampling(num_frames=frames, rule=rule).list_view_indices(total, views):
        assert [frame // per_segment for frame in frames_of_views] == list(range(frames))


@given(timed, rates, lengths, st.integers(1, 5), seeds)
def test_the_same_span_of_time_is_seen_at_any_frame_rate(sampling, rate, total, repeats, seed):
    own = sampling.adapt_to_frame_rate(rate)
    assert own.span_frames / rate == pytest.approx(sampling.span_frames / sampling.frame_rate)
    assert (own.num_frames, own.frame_rate, own.start_mode) == (sampling.num_frames, rate, sampling.start_mode)
    assert sampling.adapt_to_frame_rate(sampling.frame_rate).span_frames == pytest.approx(sampling.span_frames)
    for frames in own.draw_repeat_indices(total, repeats, np.random.default_rng(seed)):
        assert frames[-1] - frames[0] <= max(own.span_frames, 1)
        assert ascending_and_in_range(frames, total)


@given(st.integers(2, 40), st.integers(1, 9), st.data())
def test_a_timed_span_that_fits_is_filled_evenly_from_any_fraction(frames, stride, data):
    sampling = TimedSampling(num_frames=frames, stride=float(stride))
    total = data.draw(st.integers(frames * stride, 2000))
    start = data.draw(st.floats(0, sampling.get_last_start(total)))
    frames_of_views = sampling.list_indices_from(start, total)
    assert frames_of_views[0] == int(np.float32(start))  # places are float32, as in the released code
    gaps = np.diff(frames_of_views)
    assert gaps.max() - gaps.min() <= 1  # a place is rounded down by less than a frame
    assert abs(frames_of_views[-1] - (start + frames * stride - 1)) <= 1


@given(timed, lengths, seeds)
def test_a_span_whose_frames_alone_are_decoded_starts_at_the_first_whole_one(sampling, total, seed):
    start = np.random.default_rng(seed).uniform(0, sampling.get_last_start(total))
    between, whole = (
        replace(sampling, start_mode=rule).list_indices_from(start, total) for rule in ("between", "frame")
    )
    assert whole[0] == min(int(np.ceil(start)), total - 1)
    assert 0 <= whole[0] - between[0] <= 1


@given(timed, lengths, st.integers(2, 12))
def test_timed_views_start_at_the_videos_start_and_whole_frames_apart(sampling, total, views):
    starts = [frames[0] for frames in sampling.list_view_indices(total, views)]
    step = int(sampling.get_last_start(total) // (views - 1))
    assert starts == [k * step for k in range(views)]
    assert sampling.list_view_indices(total, 1)[0][0] == int(sampling.get_last_start(total) / 2)


def test_the_repeated_clips_of_a_timed_sampling_start_anywhere():
    clips = TimedSampling(num_frames=4).draw_repeat_indices(1016, 2000, np.random.default_rng(0))
    starts = np.array([frames[0] for frames in clips])
    assert np.quantile(starts, [0.0, 0.25, 0.5, 0.75, 1.0]) == pytest.approx([0, 250, 500, 750, 1000], abs=40)


def test_the_example_clips_of_timed_sampling_are_the_authors():
    sampling = TimedSampling()
    assert sampling.list_indices_from(0.0, 300) == [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]
    assert sampling.adapt_to_frame_rate(60.0) == TimedSampling(stride=8.0, frame_rate=60.0)


def test_the_example_of_45_frames_has_the_views_that_the_papers_codes_give():
    videomae = SegmentSampling(rule="videomae").list_view_indices(45, 2)
    assert videomae[0] == [0, 2, 5, 8, 11, 14, 16, 19, 22, 25, 28, 30, 33, 36, 39, 42]
    assert videomae[1] == [1, 4, 7, 9, 12, 15, 18, 21, 23, 26, 29, 32, 35, 37, 40, 43]
    assert SegmentSampling(rule="amd").list_view_indices(45, 2) == videomae
    mvd = SegmentSampling(rule="mvd").list_view_indices(45, 2)
    assert mvd[0] == [0, 3, 6, 9, 11, 14, 17, 20, 22, 25, 28, 31, 33, 36, 39, 42]
    assert mvd[1] == [2, 5, 7, 10, 13, 15, 18, 21, 24, 27, 29, 32, 35, 37, 40, 43]


def test_the_example_clips_of_dense_sampling_are_the_authors():
    dense = DenseSampling()
    assert dense.list_indices_until(100) == [36, 40, 44, 48, 53, 57, 61, 65, 70, 74, 78, 82, 87, 91, 95, 99]
    assert dense.list_short_video_indices(40)[:11] == [0, 4, 8, 13, 17, 22, 26, 31, 35, 39, 39]
    assert DenseSampling(num_frames=1, stride=1).list_view_indices(935, 8)[-1] == [int(7 * (934 / 7))] == [933]
    assert SpanSampling().list_indices_from(0, 40) == [*range(0, 37, 4), *[36] * 6]


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        *((DenseSampling, each, "at least 1") for each in ({"num_frames": 0}, {"stride": 0})),
        *((TimedSampling, each, "above 0") for each in ({"num_frames": 0}, {"stride": 0.0}, {"frame_rate": -1.0})),
        (TimedSampling, {"stride": float("inf")}, "above 0"),
    ],
)
def test_a_clip_needs_a_frame_a_step_and_a_rate(kind, settings, message):
    with pytest.raises(InputError, match=message):
        kind(**settings)
