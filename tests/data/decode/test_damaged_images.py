"""Damaged FFV1 and Motion JPEG: a frame that is read by its number is that of a full decode, or is reported."""

import io
import random
from contextlib import suppress

import av
import numpy as np
import pytest
from encoded_videos import encode

from vidstill.data.decode.reader import count_frames, iter_timed_frames, read_frames
from vidstill.data.storage.fetch import BrokenVideo

FRAMES = 8
KINDS = {
    "checked.mkv": ("ffv1", "level=3 g=1 slicecrc=1 slices=4"),
    "unchecked.mkv": ("ffv1", "level=3 g=1 slicecrc=0 slices=4"),
    "old.avi": ("ffv1", "level=1 g=1"),
    "mjpeg.avi": ("mjpeg", "", "yuvj420p"),
    "mjpeg.mov": ("mjpeg", "", "yuvj422p"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return {name: encode(folder / name, *kind, numbers=range(FRAMES)).read_bytes() for name, kind in KINDS.items()}


def flip_bits(data: bytes, seed: str) -> bytes:
    """Flip one bit or four behind the file's head."""
    rng, changed = random.Random(seed), bytearray(data)
    for _ in range(rng.choice((1, 1, 4))):
        changed[rng.randrange(600, len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def decode_all(data: bytes) -> list[np.ndarray]:
    """Decode in PyAV's plain loop."""
    frames = []
    with suppress(av.FFmpegError, IndexError), av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            return []
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
    return frames


def decode_for_windows(data: bytes) -> list[np.ndarray]:
    """Decode as a reader of windows does, who looks at frames after the next one has come."""
    frames, waiting = [], []
    try:
        for frame in iter_timed_frames(data):
            waiting.append(frame)
            if len(waiting) > 2:
                frames.append(waiting.pop(0).to_image())
    except BrokenVideo:
        pass
    return frames + [frame.to_image() for frame in waiting]


def differ(frame: np.ndarray, other: np.ndarray) -> bool:
    return frame.shape != other.shape or bool((frame != other).any())


def compare_reads(data: bytes) -> list[str]:
    """Return what is wrong with a file's frames."""
    frames = decode_all(data)
    held = decode_for_windows(data)
    wrong = [] if len(frames) == len(held) else [f"{len(frames)} frames, {len(held)} where more are held"]
    pairs = enumerate(zip(frames, held, strict=False))
    wrong += [f"frame {n} depends on how many are held" for n, pair in pairs if differ(*pair)]
    try:
        num_frames = count_frames(data)
    except BrokenVideo:
        num_frames = 0
    for n in range(max(num_frames, len(frames))):
        try:
            frame = read_frames(data, [n])[0]
        except BrokenVideo:
            if n < len(frames):
                wrong.append(f"frame {n} of {len(frames)} is not read")
            continue
        if n < len(frames) and differ(frame, frames[n]):
            wrong.append(f"frame {n} is another than in a full decode")
    return wrong


def check(data: bytes, kind: str, count: int) -> None:
    wrong = []
    for n in range(count):
        wrong += [f"{kind} {n}: {line}" for line in compare_reads(flip_bits(data, f"{kind} {n}"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_damaged_images_are_those_of_a_full_decode_however_they_are_read(sources, kind):
    check(sources[kind], kind, 20)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_many_damaged_images_are_those_of_a_full_decode(sources, kind):
    check(sources[kind], kind, 100)


def test_a_motion_jpeg_whose_scan_has_lost_its_marker_is_not_decoded_by_itself(sources):
    data = bytearray(sources["mjpeg.avi"])
    at = -1
    for _ in range(3):
        at = data.index(b"\xff\xda\0\x0c\3", at + 1)
    data[at + 1] = 0xDE
    assert not compare_reads(bytes(data))
