"""Which frames around a key frame a clip has, and what is done where a video ends too soon."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vidstill.data.ava.frame_sampling import KeyframeSampling, round_half_up
from vidstill.utils.types import InputError

RULES = st.sampled_from(["videomae", "slowfast"])
samplings = st.builds(
    KeyframeSampling, num_frames=st.integers(1, 32), stride=st.integers(1, 16), frame_rate=st.just(25.0), rule=RULES
)


def test_the_two_released_rules_take_the_frames_that_are_stated_of_them():
    assert KeyframeSampling(rule="videomae").compute_offsets() == list(range(-31, 30, 4))
    assert KeyframeSampling(rule="slowfast").compute_offsets() == list(range(-32, 29, 4))


def frame_indices(sampling: KeyframeSampling, key: int, total: int) -> list[int]:
    """The frames of a video of `total` frames around the frame `key`."""
    return [key + offset for offset in sampling.compute_video_offsets(key, total - key)]


@given(samplings)
def test_the_frames_of_a_clip_are_a_stride_apart(sampling):
    assume(sampling.rule == "videomae" or sampling.num_frames * sampling.stride % 2 == 0 or sampling.stride > 1)
    offsets = sampling.compute_offsets()
    assert len(offsets) == sampling.num_frames
    assert {b - a for a, b in pairwise(offsets)} <= {sampling.stride}


def released(frames: int, stride: int, before: int, after: int) -> list[int]:
    """VideoMAE's rule, as it is described: lists of frames, counted from the key frame, trimmed, and the middle taken.

    A side is loaded in whole seconds of 25 frames until it has half a clip's span.
    """
    span = frames * stride
    sides = [0, 0]
    for side, available in enumerate((before, after)):
        while sides[side] < span / 2 and sides[side] < available:
            sides[side] = min(sides[side] + 25, available)
    equal = min(sides)
    loaded = list(range(-equal, equal))
    start = (len(loaded) - span) // 2 + (stride - 1) // 2
    return [loaded[min(max(start + k * stride, 0), len(loaded) - 1)] for k in range(frames)]


@given(st.integers(1, 32), st.integers(1, 16), st.integers(1, 400), st.integers(1, 400))
def test_videomaes_rule_is_as_described_for_any_number_of_frames_on_either_side(frames, stride, before, after):
    sampling = KeyframeSampling(num_frames=frames, stride=stride, rule="videomae")
    assert sampling.compute_video_offsets(before, after) == released(frames, stride, before, after)


@given(st.integers(1, 32), st.integers(1, 16), st.integers(0, 300), st.integers(1, 300))
def test_pyslowfasts_rule_repeats_the_first_and_the_last_frame(frames, stride, centre, total):
    half_span = frames * stride // 2
    expected = [min(max(n, 0), total - 1) for n in range(centre - half_span, centre + half_span, stride)]
    sampling = KeyframeSampling(num_frames=frames, stride=stride, rule="slowfast")
    assert frame_indices(sampling, centre, total) == expected


@given(samplings, st.integers(0, 50), st.integers(1, 100))
def test_every_frame_index_is_within_the_video(sampling, centre, total):
    assume(centre < total)
    assert all(0 <= n < total for n in frame_indices(sampling, centre, total))


def test_at_the_first_frame_of_a_video_videomaes_rule_has_that_frame_alone():
    assert frame_indices(KeyframeSampling(num_frames=4, stride=2, rule="videomae"), 0, 100) == [0] * 4


@pytest.mark.parametrize("ratio", [0.5, 1.2, 2.0])
def test_at_another_frame_rate_the_frames_nearest_in_time_are_used(ratio):
    sampling = KeyframeSampling(num_frames=8, stride=4, rule="slowfast")
    offsets = sampling.compute_video_offsets(1000, 1000, frame_rate_ratio=ratio, subframe_offset=0.25)
    for shown_offset, offset in zip(offsets, sampling.compute_offsets(), strict=True):
        assert abs(shown_offset - (0.25 + offset * ratio)) <= 0.5


def test_halves_are_rounded_up_so_that_regular_steps_stay_regular():
    assert [round_half_up(n / 2) for n in (-3, -1, 1, 3, 5)] == [-1, 0, 1, 2, 3]
    assert round_half_up(2.5 - 1e-12) == 3


@pytest.mark.parametrize("wrong", [{"num_frames": 0}, {"stride": 0}, {"frame_rate": 0.0}, {"frame_rate": float("nan")}])
def test_a_sampling_without_frames_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        KeyframeSampling(**wrong)
