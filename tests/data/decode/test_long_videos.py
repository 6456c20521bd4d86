"""Clips of long files: what is read of them, and that it gives the right frames."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from encoded_videos import read_number
from long_videos import GROUP, PERIOD, write_long_video

from vidstill.data.ava.clip_reader import KeyframeClipReader, KeyframeVideo
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.decode import container, table_cache
from vidstill.data.decode.packets import PacketTable
from vidstill.data.decode.reader import VideoReader, read_frames

HOUR = 3600 * 25
FILM = 15 * 60 * 30 // PERIOD * PERIOD
MB = 1_000_000


@pytest.fixture(scope="module")
def make_video(tmp_path_factory):
    """Each long video once."""
    folder, cache = tmp_path_factory.mktemp("long"), {}

    def make(name: str, frames: int, **options) -> Path:
        if name not in cache:
            cache[name] = write_long_video(folder / name, frames, **options)
        return cache[name]

    return make


@pytest.fixture
def count_bytes(monkeypatch) -> Callable[[], tuple[int, int]]:
    """Counts the files that were opened and the bytes that were read of them since the last call."""
    counts = [0, 0]

    class CountedFile(io.FileIO):
        def __init__(self, path: Path):
            super().__init__(path)
            counts[0] += 1

        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            counts[1] += len(data)
            return data

    def count() -> tuple[int, int]:
        opened, num_bytes = counts
        counts[:] = 0, 0
        return opened, num_bytes

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: CountedFile(path))
    monkeypatch.setattr("vidstill.data.decode.stream._TABLES", table_cache.TableCache())
    return count


def draw_clip(num_frames: int, share: float) -> list[int]:
    first = int(num_frames * share) + 7
    return list(range(first, first + 64, 4))


@pytest.mark.parametrize("options", ["bf=3 b_strategy=0", "bf=2 b_strategy=0 x264-params=open-gop=1", "bf=0"])
def test_of_an_hour_of_mp4_a_clip_near_the_end_costs_its_header_and_a_few_packets(make_video, count_bytes, options):
    path = make_video(f"{options[:4]}.mp4", HOUR, packet_bytes=800, rate=25, options=options)
    assert path.stat().st_size > 20 * 3 * MB
    for share in (0.95, 0.5, 0.95):
        with VideoReader(path) as reader:
            indices = draw_clip(reader.num_frames, share)
            frames = reader.read_frames(indices)
            assert reader.num_decoded_frames <= 64 + GROUP
        assert [read_number(frame) for frame in frames] == [index % PERIOD for index in indices]
        opened, num_bytes = count_bytes()
        assert opened == 1
        assert num_bytes < 3 * MB


def test_frames_that_lie_far_apart_are_read_without_what_lies_between(make_video, count_bytes):
    path = make_video("bf=3.mp4", HOUR, packet_bytes=800, rate=25)
    indices = list(range(100, HOUR, HOUR // 16))
    assert [read_number(frame) for frame in read_frames(path, indices)] == [index % PERIOD for index in indices]
    assert count_bytes()[1] < 4 * MB


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_film_is_read_whole_at_most_once(make_video, count_bytes, suffix):
    path = make_video(f"film.{suffix}", FILM, packet_bytes=1000)
    size = path.stat().st_size
    read_bytes = []
    for share in (0.95, 0.1, 0.95, 0.6):
        with VideoReader(path, num_frames=FILM) as reader:
            indices = draw_clip(FILM, share)
            frames = reader.read_frames(indices)
        assert [read_number(frame) for frame in frames] == [index % PERIOD for index in indices]
        opened, num_bytes = count_bytes()
        assert opened == 1
        read_bytes.append(num_bytes)
    assert read_bytes[0] < (MB if suffix == "mp4" else size + 2 * MB)
    assert max(read_bytes[1:]) < MB


def test_a_key_frame_of_a_film_costs_its_packets_once_the_film_has_been_listed(make_video, count_bytes):
    path = make_video("film.mkv", FILM, packet_bytes=1000)
    video, reader = KeyframeVideo("film", path), KeyframeClipReader()
    sampling, read_bytes = KeyframeSampling(num_frames=8, stride=4), []
    for second in (800, 30, 801, 420):
        frames = reader.read_clip(video, second, sampling)
        assert 0 <= (read_number(frames[4]) - 30 * second) % PERIOD <= 4
        opened, num_bytes = count_bytes()
        assert opened == 1
        read_bytes.append(num_bytes)
    assert max(read_bytes[1:]) < MB


def test_a_film_that_was_written_anew_is_read_anew(make_video, tmp_path):
    path = tmp_path / "film.mkv"
    for frames in (20 * PERIOD, 21 * PERIOD):
        path.write_bytes(make_video(f"{frames}.mkv", frames, packet_bytes=1000).read_bytes())
        with VideoReader(path) as reader:
            assert reader.num_frames == frames


def test_only_the_tables_used_last_are_kept(tmp_path):
    table = PacketTable(np.ones(1000, bool), np.arange(1000), np.arange(1000), may_skip_unreferenced=False)
    cache, built = table_cache.TableCache(max_bytes=5 * table.num_bytes // 2), []
    for name in "abc":
        (tmp_path / name).touch()
    for name in "abacab":
        cache.get_or_build(tmp_path / name, None, lambda name=name: built.append(name) or table)
    assert built == ["a", "b", "c", "b"]


def test_a_header_is_read_from_the_file_once(make_video):
    path = make_video("bf=3.mp4", HOUR, packet_bytes=800, rate=25)
    header = container.read_mov_header(io.BytesIO(path.read_bytes()), path.name)
    file = container._NamelessFile(io.BytesIO(b""), header)
    file.seek(header.offset + 8)
    assert file.read(100) == header.data[8:108]
    assert file.tell() == header.offset + 108
