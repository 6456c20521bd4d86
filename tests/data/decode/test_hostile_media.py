"""A file that is read as a video is all that is read: no socket, no other file; and its cost is bounded."""

import io
import resource
import shutil
from contextlib import suppress

import av
import numpy as np
import pytest
from hostile_media import (
    SESSION,
    add_compressed_text,
    compress_header,
    list_in_ffconcat,
    list_in_hls,
    rebuild_atom,
    refer_to,
    repeat_edit,
    state_samples,
    state_size,
)
from PIL import Image
from system_calls import call_without, read_alone
from tiny_videos import number_of, write_video

from vidstill.bench.reading import read_with_pyav
from vidstill.data.decode.container import CONTAINERS, OPEN_OPTIONS
from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import count_frames, iter_frames, read_frames
from vidstill.data.storage.fetch import BrokenVideo


def read_or_refuse(source) -> str:
    """Return what a refusal says; "frames" if there are any."""
    try:
        read_frames(source, [0])
    except BrokenVideo as error:
        return str(error)
    return "frames"


@pytest.fixture
def other(tmp_path):
    """A video that no other file should show."""
    return write_video(tmp_path / "other" / "other.mp4", numbers=[200] * 8)


@pytest.mark.parametrize("suffix", [None, "sdp", "mp4"])
def test_a_session_description_opens_no_socket(tmp_path, suffix):
    source = SESSION if suffix is None else tmp_path / f"session.{suffix}"
    if suffix is not None:
        source.write_bytes(SESSION)
    answer = call_without(("socket",), lambda: read_or_refuse(source))
    assert "is in none of the containers that are read, such as MP4" in answer


@pytest.mark.parametrize("make_list", [list_in_ffconcat, list_in_hls])
@pytest.mark.parametrize("suffix", [None, "ffconcat", "m3u8", "mp4"])
def test_a_list_of_other_videos_shows_none_of_them(tmp_path, other, make_list, suffix):
    for video in (other, other.name):
        source = make_list(video)
        if suffix is not None:
            source = other.parent / f"list.{suffix}"
            source.write_bytes(make_list(video))
        with pytest.raises(BrokenVideo):
            read_frames(source, [0])
        with pytest.raises(BrokenVideo):
            count_frames(source)
        with pytest.raises((BrokenVideo, av.FFmpegError)):
            read_with_pyav(source, [0])


def test_a_movie_whose_samples_lie_in_another_file_shows_nothing_of_it(tmp_path, other):
    movie = write_video(tmp_path / "movie.mov", numbers=[200] * 8)
    data = refer_to(movie.read_bytes(), other)
    (tmp_path / "alias.mov").write_bytes(data.replace(b"mdat", b"free"))
    assert other.name.encode() in data
    for source in (data, tmp_path / "alias.mov"):
        assert read_or_refuse(source) != "frames"


def test_ffmpeg_opens_no_file_by_itself(other):
    data = other.read_bytes()
    read_frames(data, [0])
    frames = call_without(("socket", "open"), lambda: read_frames(data, [3]))
    assert number_of(frames[0]) == 200


@pytest.mark.parametrize(
    "name",
    ["-i.mp4", "concat:a.mp4", "http:a.mp4", "img%03d.gif", "img?.gif", "a{b,c}.gif", "pipe:0.mp4", "data:,a.mkv"],
)
def test_whatever_a_file_is_called_it_is_a_plain_file(tmp_path, monkeypatch, name):
    codec = "gif" if name.endswith("gif") else "libx264"
    source = write_gif(tmp_path / "source.gif") if codec == "gif" else write_video(tmp_path / "source.mp4")
    if name.endswith("mkv"):
        source = write_video(tmp_path / "source.mkv")
    shutil.move(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert count_frames(tmp_path / name) == 20


def write_gif(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "rgb8"
        for n in range(20):
            image = np.full((32, 32, 3), 10 * n, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def list_demuxers() -> list[str]:
    return [name for name in sorted(av.formats_available) if av.ContainerFormat(name).is_input]


def test_every_demuxer_that_is_not_on_the_list_is_refused_before_it_reads(other):
    others = [name for name in list_demuxers() if not {*name.split(",")} & {*CONTAINERS, "3gp", "3g2", "mp4", "webm"}]

    def open_all() -> list[str]:
        opened = []
        for name in others:
            for content in (SESSION, list_in_ffconcat(other), list_in_hls(other), data):
                with suppress(av.ArgumentError), av.open(io.BytesIO(content), format=name, options=OPEN_OPTIONS):
                    opened.append(name)
        return opened

    data = other.read_bytes()
    read_frames(data, [0])
    assert len(others) > 300
    assert call_without(("socket", "open"), open_all) == []


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_no_suffix_of_a_demuxer_makes_a_file_show_another(other):
    suffixes = {suffix for name in list_demuxers() for suffix in (name, *av.ContainerFormat(name).extensions)}
    data = other.read_bytes()
    contents = [
        SESSION,
        list_in_ffconcat(other),
        list_in_hls(other),
        list_in_ffconcat(other.name),
        refer_to(data, other),
    ]
    contents[-1] = contents[-1].replace(b"mdat", b"free")
    assert len(suffixes) > 400
    for suffix in sorted(suffixes - {name[1:] for name in IMAGE_EXTENSIONS}):  # Pillow's
        paths = [other.parent / f"{n}.{suffix.replace(',', '.')}" for n in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        assert "frames" not in read_alone(read_or_refuse, *paths), suffix
        for path in paths:
            path.unlink()


def test_containers_that_are_read_need_a_file_and_are_known_to_ffmpeg():
    for name in CONTAINERS:
        container = av.ContainerFormat(name, "r")
        assert container.is_input
        assert not container.flags & av.format.Flags.no_file.value


def test_no_container_that_is_read_names_other_files():
    names = {name for container in CONTAINERS for name in av.ContainerFormat(container, "r").name.split(",")}
    others = (
        "concat",
        "hls",
        "dash",
        "imf",
        "sdp",
        "rtsp",
        "rtp",
        "sap",
        "tty",
        "lavfi",
        "image2",
        "image2pipe",
        "mlv",
    )
    assert not names.intersection((*others, "vobsub", "webm_dash_manifest", "mpjpeg", "rawvideo", "data", "v4l2"))


def measure_growth(source) -> int:
    """Return by how many bytes the most memory that this process had grows while a source is read or refused."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_or_refuse(source)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_an_image_that_states_more_pixels_than_a_video_may_have_is_not_decoded(tmp_path):
    bomb = state_size(9000, 9000)
    (tmp_path / "bomb.jpg").write_bytes(bomb)
    for source in (bomb, tmp_path / "bomb.jpg"):
        with pytest.raises(BrokenVideo, match=r"has 9000x9000 pixels: more than 33554432 are not read$"):
            read_frames(source, [0])
    assert len(bomb) < 1000
    assert call_without((), lambda: measure_growth(bomb)) < 2**24


def test_an_edit_list_has_a_limit_of_entries(tmp_path):
    data = write_video(tmp_path / "video.mp4").read_bytes()
    for many in (repeat_edit(data, 1_001, 800), compress_header(repeat_edit(data, 1_001, 800))):
        for read in (count_frames, lambda source: read_frames(source, [0])):
            with pytest.raises(BrokenVideo, match=r"an edit list of 1001 entries: more than 1000 are not read"):
                read(many)
    few = repeat_edit(data, 3, 800)
    assert count_frames(few) == count_frames(compress_header(few)) > 50


def test_an_edit_list_that_repeats_a_video_without_end_is_refused(tmp_path):
    data = write_video(tmp_path / "video.mp4").read_bytes()
    many = repeat_edit(data, 1_000, 800)
    for read in (lambda source: read_frames(source, [15_000]), lambda source: list(iter_frames(source))):
        with pytest.raises(BrokenVideo, match="has an edit list that shows its frames more than 16 times"):
            read(many)
    assert count_frames(many) < 5_000  # of 18,000: those before the limit


def test_a_header_that_states_more_frames_than_are_indexed_takes_no_memory(tmp_path):
    data = state_samples(write_video(tmp_path / "video.mp4").read_bytes(), 10**7)
    assert len(data) < 10_000
    with pytest.raises(BrokenVideo, match="states 10000000 frames or sounds: more than 8388608 are not indexed"):
        count_frames(data)
    assert call_without((), lambda: measure_growth(data)) < 2**24


def test_a_compressed_header_is_not_decompressed_beyond_measure(tmp_path):
    data = write_video(tmp_path / "video.mp4").read_bytes()
    bomb = compress_header(rebuild_atom(data, (b"moov", b"udta"), bytes(2**26)))
    assert len(bomb) < 2**17
    with pytest.raises(BrokenVideo, match="has a compressed header of more than 16777216 bytes"):
        count_frames(bomb)


def test_text_in_an_image_is_not_decompressed_beyond_measure():
    bomb = add_compressed_text(2**27)
    assert len(bomb) < 2**19
    assert call_without((), lambda: measure_growth(bomb)) < 2**26


def test_an_image_that_pillow_would_give_to_another_program_is_not_read(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.eps")
    shutil.move(tmp_path / "image.eps", tmp_path / "image.jpg")
    with pytest.raises(BrokenVideo, match="cannot identify"):
        read_frames(tmp_path / "image.jpg", [0])
