"""Synthetic videos of benchmarks: the same every time, encoded with B-frames, neither static nor noise alone."""

import io

import av
import numpy as np
from av.video.frame import PictureType

from vidstill.data.tools.transcode import TranscodeConfig, transcode_video
from vidstill.synthetic.footage import FootageConfig, encode_footage, render_footage

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
    apart = transcode_video(raw, TranscodeConfig(short_side=96)).data  # coarser, but each frame by itself
    plane = SMALL.size[0] * SMALL.size[1] * SMALL.frames
    assert 0.02 * plane < len(raw) < len(apart)  # of a still picture it is 0.005
