"""Frames by number are those of a full decode, which is made here plainly, for every awkward kind of file."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import av
import numpy as np
import pytest
from damaged_videos import CONCEALED, MISCOUNTED
from encoded_videos import make_base, read_number
from paths import DATA
from remuxed_videos import draw_change, remux
from vicious_videos import VICIOUS

from vidstill.data.decode import packets, stream
from vidstill.data.decode.reader import VideoReader, count_frames, read_frames
from vidstill.data.storage.fetch import BrokenVideo

REQUESTS = 6
MANY_REQUESTS = 200
CHANGES = 30


@dataclass(frozen=True)
class Whole:
    """A full decode: of each frame what tells it from others; what stopped it, if not the end."""

    frames: list[bytes]
    sizes: list[tuple[int, int]]
    numbers: list[int]
    error: str

    def __len__(self) -> int:
        return len(self.frames)


def digest(frame: np.ndarray) -> bytes:
    return blake2b(frame.tobytes(), digest_size=16).digest()


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The picture in RGB, turned by the right angles that the file states."""
    picture = frame.to_ndarray(format="rgb24")
    for _ in range(round(frame.rotation / 90) % 4):
        picture = picture.transpose(1, 0, 2)[::-1]  # a quarter turn to the left
    return picture


def whole(path: Path) -> Whole:
    """Decodes the best video stream from its first packet to its last, or to the first error."""
    decoded_video = Whole([], [], [], "")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                return Whole([], [], [], "no video stream that can be decoded")
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                picture = upright(frame)
                decoded_video.frames.append(digest(picture))
                decoded_video.sizes.append(picture.shape[:2])
                decoded_video.numbers.append(read_number(picture))
    except av.FFmpegError as error:
        return Whole(decoded_video.frames, decoded_video.sizes, decoded_video.numbers, str(error))
    except IndexError:  # PyAV's, at the end of a file in which a stream turned up that its head does not name
        return decoded_video
    return decoded_video


def requests(frames: int, count: int, seed: str) -> Iterator[list[int]]:
    """Random lists of frames: one, some at a stride, a run, unordered ones, one twice, the first and the last."""
    rng = random.Random(seed)
    yield [frames - 1, 0]
    for n in range(count - 1):
        first = rng.randrange(frames)
        kind = n % 5
        if kind == 0:
            yield [first]
        elif kind == 1:
            yield list(range(first, frames, rng.randint(2, 6)))[:16]
        elif kind == 2:
            yield list(range(first, min(first + rng.randint(2, 9), frames)))
        elif kind == 3:
            yield [rng.randrange(frames) for _ in range(rng.randint(2, 6))]
        else:
            yield [first, first, rng.randrange(frames), first]


def differences(path: Path, truth: Whole, requested: list[int], num_frames: int | None = None) -> list[str]:
    """What is wrong with the answer to one request."""
    if len({truth.sizes[n] for n in requested}) > 1:
        with pytest.raises(BrokenVideo, match="changes its size"):
            read_frames(path, requested)
        return []
    try:
        with VideoReader(path, num_frames=num_frames) as reader:
            answer = reader.read_frames(requested)
    except BrokenVideo as error:
        return [f"{requested}: {error}"]
    wrong = []
    for n, frame in zip(requested, answer, strict=True):
        if digest(frame) != truth.frames[n]:
            position = truth.frames.index(digest(frame)) if digest(frame) in truth.frames else "none"
            wrong.append(
                f"{requested}: for {n} came frame {position}; shows {read_number(frame)}, not {truth.numbers[n]}"
            )
    return wrong


def compared(path: Path, truth: Whole, count: int, num_frames: int | None = None) -> list[str]:
    return [
        line
        for requested in requests(len(truth), count, path.name)
        for line in differences(path, truth, requested, num_frames)
    ]


@pytest.fixture(scope="module")
def make_video(tmp_path_factory):
    """Each video once, with its full decode."""
    folder, cache = tmp_path_factory.mktemp("vicious"), {}

    def make(name: str) -> tuple[Path, Whole]:
        if name not in cache:
            VICIOUS[name](folder / name)
            cache[name] = folder / name, whole(folder / name)
        return cache[name]

    return make


SOUND = [name for name in VICIOUS if name not in {*CONCEALED, *MISCOUNTED}]


@pytest.mark.parametrize("name", SOUND)
def test_frames_and_their_count_are_those_of_a_full_decode(make_video, name):
    path, truth = make_video(name)
    if not len(truth):
        for read in (count_frames, lambda path: read_frames(path, [0])):
            with pytest.raises(BrokenVideo, match=re.escape(path.name)):
                read(path)
        return
    assert count_frames(path) == len(truth), truth.error
    wrong = compared(path, truth, REQUESTS) + compared(path, truth, REQUESTS, len(truth))
    assert not wrong, "\n".join(wrong)


UNREAD = [
    name
    for name in SOUND
    if name.startswith(("shorten_", "flip_bits_others.x264_slices")) and name.endswith(".mp4") and "mpeg4" not in name
]
"""MP4 files with damage at which a full decode stops; their headers list the packets behind it, as if it were not."""

SOUGHT = [name for name in SOUND if name.endswith((".mp4", ".mov", ".3gp", ".mkv", ".webm")) and name not in UNREAD]


@pytest.fixture
def seek_always(monkeypatch):
    """Packets are sought as if every file were long."""
    monkeypatch.setattr(stream, "_MIN_SEEK_BYTES", 0)


@pytest.mark.usefixtures("seek_always")
@pytest.mark.parametrize("name", SOUGHT)
def test_frames_and_their_count_are_those_of_a_full_decode_also_where_packets_are_sought(make_video, name):
    path, truth = make_video(name)
    if len(truth):
        assert count_frames(path) == len(truth), truth.error
        wrong = compared(path, truth, REQUESTS) + compared(path, truth, REQUESTS, len(truth))
        assert not wrong, "\n".join(wrong)
    with pytest.raises(BrokenVideo, match=re.escape(path.name)):
        read_frames(path, [len(truth)])


@pytest.mark.usefixtures("seek_always")
@pytest.mark.parametrize("name", UNREAD)
def test_a_scans_count_shows_damage_that_is_not_read(make_video, name):
    path, truth = make_video(name)
    wrong = compared(path, truth, REQUESTS, len(truth))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", SOUND)
def test_there_is_no_frame_after_the_last(make_video, name):
    path, truth = make_video(name)
    for n in (len(truth), len(truth) + 5):
        with pytest.raises(BrokenVideo, match=re.escape(path.name)):
            read_frames(path, [n])


@pytest.mark.parametrize("name", MISCOUNTED)
def test_a_scans_count_certifies_the_packets_of_a_stream(make_video, name):
    path, truth = make_video(name)
    wrong = [line for n in range(len(truth)) for line in differences(path, truth, [n], len(truth))]
    assert not wrong, "\n".join(wrong)
    with VideoReader(path, num_frames=len(truth)) as reader, pytest.raises(BrokenVideo, match="ends early"):
        reader.read_frames([len(truth)])


@pytest.mark.parametrize("name", CONCEALED)
def test_before_damage_that_a_decoder_conceals_frames_are_those_of_a_full_decode(make_video, name):
    path, truth = make_video(name)
    first = CONCEALED[name]
    wrong = [line for n in range(first) for line in differences(path, truth, [n])]
    assert not wrong, "\n".join(wrong)
    for n in range(first, count_frames(path)):
        with suppress(BrokenVideo):
            assert read_frames(path, [n]).shape == (1, *truth.sizes[0], 3)


@pytest.mark.parametrize("name", ["noise.mkv", "stamps_in_decode_order_hevc.mp4", "first_slice_lost.mp4"])
def test_each_frame_alone_is_that_of_a_full_decode(make_video, name):
    path, truth = make_video(name)
    wrong = [line for n in range(len(truth)) for line in differences(path, truth, [n])]
    assert not wrong, "\n".join(wrong)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SOUND)
def test_many_requests_give_the_frames_of_a_full_decode_also_where_packets_are_read_again(
    make_video, name, monkeypatch
):
    path, truth = make_video(name)
    wrong = [line for n in range(len(truth)) for line in differences(path, truth, [n])]
    wrong += compared(path, truth, MANY_REQUESTS) if len(truth) else []
    monkeypatch.setattr(packets, "_MAX_BUFFER_BYTES", 0)  # as if the stream were too large to be held
    wrong += compared(path, truth, REQUESTS) if len(truth) else []
    assert not wrong, "\n".join(wrong)


CHANGED = ("mpeg4.mp4", "mpeg4_b.mp4", "vp8.webm", "vp8_hidden.webm", "vp9.webm", "vp9_layers.webm", "mjpeg.mov")


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHANGED)
def test_after_random_changes_of_packets_frames_are_those_of_a_full_decode(tmp_path, name):
    wrong = []
    for number in range(CHANGES):
        rng = random.Random(f"{name}/{number}")
        path = tmp_path / f"{number}{rng.choice(('.mkv', Path(name).suffix))}"
        remux(make_base(path, name), path, draw_change(rng))
        truth = whole(path)
        try:
            num_counted = count_frames(path)
        except BrokenVideo:
            num_counted = 0
        if num_counted != len(truth):
            wrong.append(f"change {number}: {num_counted} counted, {len(truth)} decode")
        lines = [line for n in range(len(truth)) for line in differences(path, truth, [n])]
        wrong += [f"change {number}: {line}" for line in lines + (compared(path, truth, 10) if len(truth) else [])]
    assert not wrong, "\n".join(wrong)


def entries(*, broken: bool) -> list:
    """What every clips.json under the data's folder lists, whole or broken, each with its folder."""
    lines = [
        pytest.param(listing.parent / entry["file"], id=str((listing.parent / entry["file"]).relative_to(DATA)))
        for listing in sorted(DATA.rglob("clips.json"))
        for entry in json.loads(listing.read_text())
        if (entry["kind"] == "broken") == broken
    ]
    absent = pytest.param(None, marks=pytest.mark.skip(f"no clips.json is under {DATA}; set VIDSTILL_DATA"))
    return lines or [absent]


@pytest.fixture(scope="module")
def decoded():
    """Each real file's full decode, made once."""
    cache = {}
    return lambda path: cache[path] if path in cache else cache.setdefault(path, whole(path))


@pytest.mark.files
@pytest.mark.nightly  # by itself `pytest -m files` runs it too
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", entries(broken=False))
def test_many_requests_of_real_files_give_the_frames_of_a_full_decode(decoded, path):
    truth = decoded(path)
    assert not truth.error
    assert count_frames(path) == len(truth)
    wrong = compared(path, truth, MANY_REQUESTS)
    assert not wrong, "\n".join(wrong)


@pytest.mark.files
@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", entries(broken=True))
def test_broken_real_files_give_what_decodes_and_are_named(decoded, path):
    truth = decoded(path)
    if len(truth):
        wrong = compared(path, truth, 20)
        assert not wrong, "\n".join(wrong)
    with pytest.raises(BrokenVideo, match=re.escape(path.name)):
        read_frames(path, [len(truth)])
