"""One opened video stream: all of its frames in turn, or only the packets that some frames need."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from jaxtyping import Int64

from vidstill.data.decode.codecs import find_keyframe_reader
from vidstill.data.decode.container import MAX_PIXELS, open_container
from vidstill.data.decode.mov_index import build_mov_table
from vidstill.data.decode.packets import PacketBuffer, PacketTable, build_packet_table, is_doubtful, states_pts
from vidstill.data.decode.table_cache import TableCache
from vidstill.data.storage.fetch import BrokenVideo, format_error

_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}  # frames may not grow beyond it either
# where a picture of these is damaged, it shows what its memory held, which an earlier frame may have left there
_MEMORY_CODECS = frozenset({"ffv1", "mjpeg"})
_STRICT_OPTIONS = {"err_detect": "explode"}  # a damaged picture is an error instead of being concealed
_MIN_SEEK_BYTES = 2**21  # a smaller file is read from its first byte, which costs no more than seeking in it
_TABLES = TableCache()

DecodeMode = Literal["all", "strict", "lenient"]
"""All packets from the first; or only some, where damage is an error, or is concealed."""


class UnexpectedFrameError(Exception):
    """The decoder gave another frame than the packet table states."""


class VideoStream:
    """The best video stream of an opened file.

    Args:
        file: A path, or the bytes of a file.
        name: What error messages call it.

    Raises:
        BrokenVideo: FFmpeg cannot open it, or it has no video stream that FFmpeg can decode.
    """

    def __init__(self, file: Path | bytes, name: str):
        self._file, self.name = file, name
        self._open()

    def _open(self) -> None:
        self._mode: DecodeMode | None = None  # nothing has been decoded
        with _raise_broken_video(self.name), ExitStack() as opening:
            opened = opening.enter_context(open_container(self._file, self.name))
            self.container: Any = opened[0]
            self._header = opened[1]
            self.stream: Any = _find_video_stream(self.container, self.name)
            self._decoder = self.stream.codec_context
            self._packets = PacketBuffer(self.container, self.stream, self.name)
            self._opened = opening.pop_all()

    def close(self) -> None:
        self._packets.close()
        self._opened.close()

    @property
    def must_release_frames(self) -> bool:
        """Whether a frame has to be released before the one after the next is decoded, as a plain loop does.

        Else damaged frames depend on how many of those before them are held.
        """
        return self._decoder.codec.canonical_name in _MEMORY_CODECS

    def read_packet_table(self, last_index: int | None = None, num_frames: int | None = None) -> PacketTable | None:
        """Build the packet table up to a frame, or whole, see `build_packet_table`."""
        self._restart(None)
        with _raise_broken_video(self.name):
            return build_packet_table(
                self.container, self.stream, self._packets, last_index=last_index, num_frames=num_frames
            )

    def read_seek_table(self, num_frames: int | None = None) -> PacketTable | None:
        """Return the whole packet table of a long file, with which `decode_selected` reads only the packets it needs.

        That of an MP4 stands in its header; else all packets are read once, and the table is kept for further streams
        of the same file.

        Returns:
            None for a short file, and where packets cannot be sought.
        """
        if self.container.size < _MIN_SEEK_BYTES or not states_pts(self.container):
            return None
        with _raise_broken_video(self.name):
            return _TABLES.get_or_build(self._file, num_frames, lambda: self._build_seek_table(num_frames))

    def _build_seek_table(self, num_frames: int | None) -> PacketTable | None:
        table = build_mov_table(self.container, self.stream, self._header, num_frames=num_frames)
        if table is None:
            self._restart(None)
            table = build_packet_table(self.container, self.stream, self._packets.drain(), num_frames=num_frames)
        return None if table is None or table.pts is None else table

    def decode_all(self) -> Iterator[av.VideoFrame]:
        """Decode every frame, in presentation order.

        Raises:
            BrokenVideo: After the last frame that decodes, if something is wrong behind it.
        """
        self._restart("all")
        num_decoded = 0
        with _raise_broken_video(self.name):
            try:
                for packet in self._packets.drain():
                    for frame in packet.decode():
                        yield frame
                        num_decoded += 1
            except av.FFmpegError as error:
                raise BrokenVideo(self.name, f"breaks after {num_decoded} frames: {format_error(error)}") from error

    def decode_selected(self, table: PacketTable, indices: Collection[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode the wanted frames, and those that they need, each with its number.

        The frame's number passes the decoder as its time stamp.

        Raises:
            UnexpectedFrameError, av.FFmpegError: The packets are not as the table states; decode all.
        """
        runs = table.find_decode_runs(indices)
        # in an open GOP, a frame behind the keyframe may tell the decoder to forget one before it, which is no damage
        mode: DecodeMode = "lenient" if any(map(table.is_open_gop, runs)) else "strict"
        self._restart(mode, must_rewind=table.pts is None)
        packets = enumerate(self._packets if table.pts is None else ())
        for run in runs:
            if self._decoder.is_open:
                self._decoder.flush_buffers()
            run_packets = (
                (packet for position, packet in packets if position >= run.start)
                if table.pts is None
                else self._seek_packets(table.pts, run.start)
            )
            yield from self._decode_run(table, run, run_packets, indices)

    def _seek_packets(self, pts: Int64[np.ndarray, "packets"], start: int) -> Iterator[Any]:
        """Yield the packets from a keyframe's position on.

        Raises:
            UnexpectedFrameError: One is not as the table states, or the container does not find the keyframe.
        """
        codec = self._decoder.codec.canonical_name
        read_keyframe = find_keyframe_reader(codec, bytes(self._decoder.extradata or b""))
        position = None
        for packet in self._packets.seek(int(pts[start])):
            if position is None:
                position = next(iter(np.flatnonzero(pts == packet.pts).tolist()), len(pts))
            is_expected = position < len(pts) and packet.size and packet.pts == pts[position]
            if not is_expected or is_doubtful(packet) or read_keyframe is None:
                raise UnexpectedFrameError
            is_keyframe = read_keyframe(packet)
            if is_keyframe is None or (position == start and not is_keyframe):
                raise UnexpectedFrameError
            if position >= start:
                yield packet
            position += 1

    def _decode_run(
        self, table: PacketTable, run: range, packets: Iterator[Any], indices: Collection[int]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        frame_indices = table.frame_indices[run.start : run.stop].tolist()
        first, latest = frame_indices[0], -1
        missing = set(frame_indices) & set(indices)
        last: tuple[int, av.VideoFrame] | None = None  # of the wanted frames
        for frame_index in [*frame_indices, None]:  # None: the decoder outputs what it holds back
            packet = None
            if frame_index is not None:
                packet = next(packets)
                packet.pts = frame_index
                may_skip = table.may_skip_unreferenced and frame_index not in indices
                self._decoder.skip_frame = "NONREF" if may_skip else "DEFAULT"
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError:
                if frame_index is not None and frame_index < first:
                    continue  # it is shown before the keyframe and needs frames from before it
                raise
            for frame in frames:
                if last is not None:  # it is shown later, but the wanted frames may be predicted from it
                    if frame.is_corrupt:
                        raise UnexpectedFrameError
                    continue
                if frame.pts is None or frame.pts <= latest:
                    raise UnexpectedFrameError
                if frame.pts >= first and not _is_expected(frame, first, latest, table.may_skip_unreferenced):
                    raise UnexpectedFrameError
                latest = frame.pts
                missing.discard(latest)
                if missing:
                    yield latest, frame
                else:
                    last = latest, frame
        if last is None:
            raise UnexpectedFrameError
        yield last

    def _restart(self, mode: DecodeMode | None, *, must_rewind: bool = True) -> None:
        """Prepare to read packets, from the first if it must be, and to decode them unless the mode is None."""
        is_decoder_usable = mode is None or self._mode is None or (mode != "all" and self._mode == mode)
        if not is_decoder_usable or (must_rewind and self._packets.packets is None):
            self.close()
            self._open()
        if mode is not None and self._mode is None:
            self._decoder.options = _DECODER_OPTIONS | (_STRICT_OPTIONS if mode == "strict" else {})
            self._mode = mode


def _is_expected(frame: av.VideoFrame, first: int, latest: int, may_skip: bool) -> bool:
    """Return whether a frame can follow frame `latest` in a run whose keyframe shows frame `first`."""
    if latest < first:
        return frame.pts == first and frame.key_frame and not frame.is_corrupt
    return not frame.is_corrupt and (may_skip or frame.pts == latest + 1)


def _find_video_stream(container: Any, name: str) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise BrokenVideo(name, "has no video stream")
    codec: Any = stream.codec_context
    if codec is None:
        raise BrokenVideo(name, "is coded in a way that FFmpeg does not know")
    if codec.width * codec.height > MAX_PIXELS:
        raise BrokenVideo(name, f"states frames of {codec.width}x{codec.height}: more than {MAX_PIXELS} pixels")
    codec.options = _DECODER_OPTIONS
    if codec.codec.name == "libdav1d":
        codec.extradata = None  # it opens by the largest size that this allows, and takes nothing else from there
    codec.thread_count = 1  # workers run in parallel, not decoders
    return stream


@contextmanager
def _raise_broken_video(name: str) -> Iterator[None]:
    """Turn FFmpeg's errors into BrokenVideo."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(name, f"does not decode: {format_error(error)}") from error
    except IndexError as error:  # PyAV's, for a packet of a stream that the file's header does not have
        raise BrokenVideo(name, "does not decode: it has packets of no stream") from error
