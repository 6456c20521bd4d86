"""Decoded videos in memory that all workers of all epochs share: each is opened and decoded once."""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from vidstill.data.decode.frames import Buffer, Frames
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.data.storage.fetch import PathOrUrl, ShardMember, join_path
from vidstill.data.storage.filesystem import stat_source
from vidstill.synthetic.made import draw_made_block, is_made, parse_made

_ENTRY = np.dtype(
    [
        ("num_frames", np.int64),  # 0: the slot is empty; it is written last
        ("height", np.int32),
        ("width", np.int32),
        ("frame_rate", np.float64),  # as the header of the file states it; 0 for none
        ("file_size", np.int64),  # the file's state before it was read
        ("mtime_ns", np.int64),
    ]
)
_NOT_CACHED = -1  # in place of the number of frames: the video is read as if there were no cache

FileStamp = tuple[int, int]
"""What differs when a file was changed in place."""


@dataclass(frozen=True)
class CachedVideo:
    """A decoded video; it answers as an opened `VideoReader` does."""

    frames: Frames
    frame_rate: float | None

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def read_frames(self, indices: Sequence[int]) -> Frames:
        """Return a copy of the frames with these numbers."""
        return self.frames[list(indices)]

    def __enter__(self) -> "CachedVideo":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FrameCache:
    """A slot for each row of a dataset, which holds all frames of its video in uint8 RGB at their stored size.

    There is no lock, since a worker may be killed at any moment: an entry is complete or absent, and workers that fill
    the same one at the same time write the same bytes. The system commits memory as slots are filled.

    Args:
        rows: The rows of the dataset.
        slot_num_bytes: The most that a video may take; a larger one is read as if there were no cache.

    Raises:
        OSError: The system does not give so much memory.
    """

    def __init__(self, rows: VideoTable, slot_num_bytes: int):
        num_rows = len(rows)
        self.num_bytes = num_rows * (_ENTRY.itemsize + slot_num_bytes)
        """Memory that it may take; what it takes is `count_bytes`."""
        self.users: WeakSet[Any] = WeakSet()
        """Datasets that read through it."""
        self._rows, self._slot_num_bytes = rows, slot_num_bytes
        # anonymous memory that a fork shares; not in /dev/shm, which is often small
        memory = np.frombuffer(mmap.mmap(-1, self.num_bytes), np.uint8)
        self._entries = memory[: num_rows * _ENTRY.itemsize].view(_ENTRY)
        self._slots = memory[num_rows * _ENTRY.itemsize :]

    def count_videos(self) -> int:
        """Return how many videos are held now."""
        return int((self._entries["num_frames"] > 0).sum())

    def count_bytes(self) -> int:
        """Return how many bytes the videos take that are held now."""
        sizes = [self._entries[name].astype(np.int64) for name in ("num_frames", "height", "width")]
        return 3 * int(np.prod(sizes, axis=0).clip(0).sum())

    def open_video(self, index: int, row: VideoRow, *, num_frames: int | None) -> VideoReader | CachedVideo:
        """Open a row's video: from memory, or from its file, whose frames are then kept.

        Where not all of its frames decode, or they do not fit, or the file was changed since it was read, it is read as
        if there were no cache.

        Args:
            num_frames: As for `VideoReader`.

        Raises:
            BrokenVideo: As `VideoReader` does.
        """
        count, height, width, frame_rate, *stamp = self._entries[index].item()
        if not count:
            if is_made(row.source):
                self._fill_drawn(index, row.source)
                return self.open_video(index, row, num_frames=num_frames)
            return self._fill(index, row.source, num_frames)
        if count != _NOT_CACHED and tuple(stamp) == _read_stamp(row.source):
            frames = self._get_slot(index)[: 3 * count * height * width].reshape(count, height, width, 3)
            return CachedVideo(frames, frame_rate or None)
        self._entries["num_frames"][index] = _NOT_CACHED
        return VideoReader(row.source, num_frames=num_frames)

    def _fill(self, index: int, source: PathOrUrl | ShardMember, num_frames: int | None) -> VideoReader | CachedVideo:
        stamp = _read_stamp(source)
        reader = VideoReader(source, num_frames=num_frames)
        frames = reader.read_all_frames(self._get_slot(index))
        if frames is None:
            self._entries["num_frames"][index] = _NOT_CACHED
            return reader
        with reader:
            video = CachedVideo(frames, reader.frame_rate)
        self._write_entry(index, video, stamp)
        return video

    def _fill_drawn(self, index: int, address: str) -> None:
        """Draw a clip with those that are drawn together with it, and keep all that are rows of the dataset."""
        clips, frame_rate = draw_made_block(address), float(parse_made(address).config.fps)
        for near in range(max(0, index - len(clips)), min(len(self._rows), index + len(clips))):
            other = str(join_path(self._rows.root, self._rows.get_path(near)))
            if other in clips and not self._entries["num_frames"][near]:
                if clips[other].nbytes > self._slot_num_bytes:
                    self._entries["num_frames"][near] = _NOT_CACHED
                    continue
                self._get_slot(near)[: clips[other].nbytes] = clips[other].reshape(-1)
                self._write_entry(near, CachedVideo(clips[other], frame_rate), _read_stamp(other))

    def _write_entry(self, index: int, video: CachedVideo, stamp: FileStamp) -> None:
        num_frames, *size = video.frames.shape[:3]
        self._entries[index] = (0, *size, video.frame_rate or 0.0, *stamp)
        self._entries["num_frames"][index] = num_frames  # long after the frames: no processor delays stores so far

    def _get_slot(self, index: int) -> Buffer:
        return self._slots[index * self._slot_num_bytes : (index + 1) * self._slot_num_bytes]


def _read_stamp(source: PathOrUrl | ShardMember) -> FileStamp:
    """Return the present state of a video's file, or of all files of a directory of frames.

    What lies behind an address counts as unchanged.
    """
    size, mtime_ns = (-1, -1) if is_made(source) else stat_source(source) or (-1, -1)
    if not size and isinstance(source, Path) and source.is_dir():
        states = [each.stat() for each in sorted(os.scandir(source), key=lambda each: each.name)]
        size = hash(tuple((state.st_size, state.st_mtime_ns) for state in states))
    return size, -1 if mtime_ns is None else mtime_ns
