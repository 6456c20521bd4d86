"""One opened video stream: all of its frames in turn, or only the packets that some frames need."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import av

from vidstill.data.decode.container import MAX_PIXELS, open_container
from vidstill.data.decode.packets import PacketBuffer, PacketTable, build_packet_table
from vidstill.data.storage.fetch import BrokenVideo, format_error

_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}  # frames may not grow beyond it either
# where a picture of these is damaged, it shows what its memory held, which an earlier frame may have left there
_MEMORY_CODECS = frozenset({"ffv1", "mjpeg"})
_STRICT_OPTIONS = {"err_detect": "explode"}  # a damaged picture is an error instead of being concealed


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
            self.container: Any = opening.enter_context(open_container(self._file, self.name))
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
        self._restart("lenient" if any(map(table.is_open_gop, runs)) else "strict")
        packets = enumerate(self._packets)
        for run in runs:
            if self._decoder.is_open:
                self._decoder.flush_buffers()
            run_packets = (packet for position, packet in packets if position >= run.start)
            yield from self._decode_run(table, run, run_packets, indices)

    def _decode_run(
        self, table: PacketTable, run: range, packets: Iterator[Any], indices: Collection[int]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        first, latest = table.frame_indices[run[0]], -1
        missing = {table.frame_indices[position] for position in run} & set(indices)
        last: tuple[int, av.VideoFrame] | None = None  # of the wanted frames
        for position in [*run, None]:  # None: the decoder outputs what it holds back
            packet, frame_index = None, None
            if position is not None:
                packet, frame_index = next(packets), table.frame_indices[position]
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

    def _restart(self, mode: DecodeMode | None) -> None:
        """Prepare to read packets from the first, and to decode them unless the mode is None."""
        is_decoder_usable = mode is None or self._mode is None or (mode != "all" and self._mode == mode)
        if not is_decoder_usable or self._packets.packets is None:
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
