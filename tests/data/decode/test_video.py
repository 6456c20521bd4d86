"""Frames by their number, whatever the file."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from encoded_videos import X264, encode
from PIL import Image
from remuxed_videos import remux, restamp
from tiny_videos import cut_short, number_of, numbered, write_video

from vidstill.data.decode.reader import (
    VideoReader,
    count_frames,
    iter_frames,
    iter_timed_frames,
    read_frames,
    read_stream_metadata,
)
from vidstill.data.storage.fetch import BrokenVideo, ShardMember

pytestmark = pytest.mark.usefixtures("memory_addresses")

KINDS = [("libx264", "mp4"), ("libx264", "mkv"), ("libx264", "ts"), ("mpeg4", "avi"), ("libvpx-vp9", "webm")]
FRAMES = 20


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: ".".join(kind))
def video(request, tmp_path_factory):
    codec, suffix = request.param
    return write_video(tmp_path_factory.mktemp("videos") / f"numbered.{suffix}", FRAMES, codec=codec)


def test_bytes_a_url_and_a_shard_member_are_read_like_the_file(video, tmp_path):
    data, frames = video.read_bytes(), read_frames(video, [3, 7])
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"before" + data + b"behind")
    fsspec.filesystem("memory").pipe(f"/{video.name}", data)
    for source in (data, f"memory://{video.name}", ShardMember(shard, 6, len(data), video.name)):
        np.testing.assert_array_equal(read_frames(source, [3, 7]), frames)
        assert count_frames(source) == FRAMES
        assert read_stream_metadata(source) == read_stream_metadata(video)


def test_all_frames_are_iterated_in_order(video):
    np.testing.assert_array_equal(np.stack(list(iter_frames(video))), read_frames(video, range(FRAMES)))


@pytest.mark.parametrize(
    ("codec", "suffix", "options", "requested", "most"),
    [
        ("libx264", "mp4", {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=0:open-gop=0"}, [18], 3),
        ("libx264", "mp4", {"x264-params": "keyint=20:scenecut=0:bframes=3:b-pyramid=none:b-adapt=0"}, [12], 4),
        ("libx264", "mp4", {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2:b-adapt=0:open-gop=1"}, [18], 5),
        ("libx264", "mkv", {"x264-params": "keyint=1"}, [3, 11, 17], 3),
        ("mjpeg", "avi", {}, [3, 11, 17], 3),
        ("mpeg4", "avi", {"g": "5", "bf": "0"}, [17], 3),
        ("libvpx-vp9", "webm", {"g": "5"}, [17], 3),
    ],
)
def test_frames_that_no_requested_frame_depends_on_are_not_decoded(tmp_path, codec, suffix, options, requested, most):
    path = write_video(tmp_path / f"video.{suffix}", FRAMES, codec=codec, options=options)
    with VideoReader(path, num_frames=FRAMES) as reader:  # without the count, MPEG-4 is decoded from the start
        assert [number_of(frame) for frame in reader.read_frames(requested)] == requested
        assert reader.num_decoded_frames <= most


def test_a_stream_too_large_to_keep_is_read_twice_and_gives_the_same(video, monkeypatch):
    frames = read_frames(video, [2, 9, 17])
    monkeypatch.setattr("vidstill.data.decode.packets._MAX_BUFFER_BYTES", 100)
    np.testing.assert_array_equal(read_frames(video, [2, 9, 17]), frames)


def test_a_frame_without_a_time_stamp_is_shown_when_the_last_one_ends(tmp_path):
    stamps = [n * n + 7 * n for n in range(30)]  # ms; those before 0 are none to FFmpeg
    video = encode(tmp_path / "video.mkv", "libx264", f"{X264} bf=0", numbers=range(30), stamps=stamps)
    earlier = restamp(lambda n, sample: (sample.pts - 300, sample.dts - 300))
    path = remux(video, tmp_path / "earlier.mkv", earlier, muxing="avoid_negative_ts=disabled")
    whole, frames = [frame.pts_seconds for frame in iter_timed_frames(video)], list(iter_timed_frames(path))
    assert whole == pytest.approx([stamp / 1000 for stamp in stamps])
    none = sum(stamp < 300 for stamp in stamps)
    expected = [n * frames[0].duration_seconds for n in range(none)]
    expected += [none * frames[0].duration_seconds + (stamp - stamps[none]) / 1000 for stamp in stamps[none:]]
    assert [frame.pts_seconds for frame in frames] == pytest.approx(expected)


class Allocated(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keep")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def bytes_left(do: Callable[[], object], times: int = 200) -> float:
    """Bytes outside Python's own heap that each call leaves behind, once the first ones have been."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("the C library does not tell what is allocated")
    mallinfo.restype = Allocated
    for _ in range(20):
        do()
    gc.collect()
    before = mallinfo().uordblks
    for _ in range(times):
        do()
    gc.collect()
    return (mallinfo().uordblks - before) / times


def test_reading_leaves_no_memory_behind(tmp_path):
    path = write_video(tmp_path / "video.mp4")
    for read in (count_frames, lambda path: read_frames(path, [3]), lambda path: next(iter_frames(path))):
        assert bytes_left(lambda read=read: read(path)) < 100  # PyAV: 160 for each demuxer that is left early


def test_a_frame_past_the_end_names_the_file_and_its_frames(video):
    with pytest.raises(BrokenVideo, match=rf"{video.name} ends early: {FRAMES} frames decode and frame {FRAMES} "):
        read_frames(video, [0, FRAMES])


def test_a_file_without_its_index_cannot_be_read(tmp_path):
    broken = cut_short(write_video(tmp_path / "cut.mp4"))
    for read in (count_frames, read_stream_metadata, lambda path: read_frames(path, [0])):
        with pytest.raises(BrokenVideo, match=r"cut\.mp4 does not decode"):
            read(broken)


def test_frames_before_a_cut_are_counted_and_read(tmp_path):
    whole = read_frames(write_video(tmp_path / "cut.mkv", 200), range(200))
    broken = cut_short(tmp_path / "cut.mkv")
    frames = count_frames(broken)
    assert 0 < frames < 200
    np.testing.assert_array_equal(read_frames(broken, [0, frames - 2]), whole[[0, frames - 2]])


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_header_that_states_too_many_frames_is_not_trusted(tmp_path, share):
    broken = cut_short(write_video(tmp_path / "cut.mp4", 200, index_first=True), share)
    frames = count_frames(broken)
    assert 0 < frames < 200
    assert len(read_frames(broken, [0, frames - 1])) == 2
    with pytest.raises(BrokenVideo, match=rf"cut\.mp4 .* {frames} frames"):
        read_frames(broken, [frames])


@pytest.mark.parametrize("content", [b"", b"no video at all\n" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_video_is_named(tmp_path, content):
    (tmp_path / "not.mp4").write_bytes(content)
    with pytest.raises(BrokenVideo, match=r"not\.mp4"):
        count_frames(tmp_path / "not.mp4")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BrokenVideo, match=r"nowhere\.mp4"):
        read_frames(tmp_path / "nowhere.mp4", [0])


def test_a_path_is_never_read_as_a_url(tmp_path, monkeypatch):
    write_video(tmp_path / "concat:a.mp4")
    monkeypatch.chdir(tmp_path)
    assert count_frames(Path("concat:a.mp4")) == 20


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_an_image_is_a_video_of_one_frame(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(numbered(37)).save(path)
    assert count_frames(path) == 1
    assert number_of(read_frames(path, [0])[0]) == 37
    with pytest.raises(BrokenVideo, match="1 frames decode and frame 1 "):
        read_frames(path, [1])


def test_a_grey_image_has_three_channels(tmp_path):
    Image.fromarray(numbered(5)[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_frames(tmp_path / "grey.png", [0])[0], numbered(5))


def test_an_image_is_turned_by_its_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: to be turned clockwise
    Image.fromarray(numbered(1)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_frames(tmp_path / "turned.png", [0])[0], np.rot90(numbered(1), -1))


def test_a_folder_of_images_is_a_video_in_the_order_of_their_names(tmp_path):
    for n in range(12):
        Image.fromarray(numbered(n)).save(tmp_path / f"img_{n + 1:05d}.png")
    assert count_frames(tmp_path) == 12
    assert [number_of(frame) for frame in read_frames(tmp_path, [11, 0, 9])] == [11, 0, 9]


def test_an_empty_folder_is_no_video(tmp_path):
    with pytest.raises(BrokenVideo, match="a folder without images"):
        count_frames(tmp_path)
