"""Read chosen frames of a video file, of an image, of a folder of images, or of a drawn clip, by their number.

Frames are as they are stored, with three changes: they are turned upright by the right angle that the file states
(mirrored ones stay mirrored), they are converted to 8-bit RGB by the file's own colour matrix and range, and
transparency is dropped. Pixels that are not square stay so (as in the papers' decoders), and fields stay interlaced.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import av

from vidstill.data.decode.frames import Buffer, Frames, NumberedImage, collect_frames, copy_image, to_images
from vidstill.data.decode.images import ImageArray, list_frame_images, read_image
from vidstill.data.decode.packets import PacketTable
from vidstill.data.decode.stream import UnexpectedFrameError, VideoStream
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, fetch_source, source_name
from vidstill.parallel.process import send_heartbeat
from vidstill.synthetic.made import draw_made_clip, is_made, parse_made
from vidstill.utils.types import InputError

VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)
"""Suffixes by which a folder's videos are found; a list may name any file in one of `container.CONTAINERS`."""

DEFAULT_FRAME_RATE = 25.0
"""Frames per second where none are stated: folders of images, and files whose header has no frame rate."""


@dataclass(frozen=True, kw_only=True)
class StreamMetadata:
    """What a file's header states, right or wrong; None where it states nothing."""

    codec: str
    pixel_format: str
    num_frames: int | None
    frame_rate: float | None
    duration_seconds: float | None


@dataclass(frozen=True)
class TimedFrame:
    """A frame and when it is shown; `to_image` converts it."""

    pts_seconds: float  # seconds from the video's first frame to this one
    duration_seconds: float  # seconds that a frame is shown for, by the stated frame rate
    to_image: Callable[[], ImageArray]  # convert to upright RGB


class VideoReader:
    """An opened video: its metadata and its frames come from one fetch and one opening of the file.

    A second opening is needed only where frames of a file have to be decoded after all of it has been decoded once:
    to count its frames, or because its packets were not as they stated.

    Args:
        num_frames: The number of frames that decode, if known from a scan. It spares counting, and packets that do not
            agree with it are not trusted. Of a folder of images, the number that is used.

    Raises:
        BrokenVideo: The file does not open, or has no video stream.
    """

    def __init__(self, source: VideoSource, *, num_frames: int | None = None):
        self.name = source_name(source)
        self.file = b"" if is_made(source) else fetch_source(source)
        """The local file, or the bytes that were fetched; none of a drawn clip."""
        self.num_decoded_frames = 0
        """Frames that the last `read_frames` decoded."""
        self._num_frames = num_frames
        self._table: PacketTable | None = None
        self._frame_rate: float | None = None  # of a drawn clip
        self._images: list[Callable[[], ImageArray]] = []
        if is_made(source):
            frames, self._frame_rate = draw_made_clip(source), float(parse_made(source).config.fps)
            self._images = [frame.copy for frame in frames]
        else:
            self._images = [partial(read_image, image) for image in list_frame_images(self.file) or ()]
        self._stream = None if self._images else VideoStream(self.file, self.name)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def metadata(self) -> StreamMetadata:
        """What the header states of the stream."""
        if self._stream is None:
            suffix = "" if isinstance(self.file, bytes) else self.file.suffix[1:].lower()
            codec = "drawn" if self._frame_rate else suffix or "images"
            duration = len(self._images) / self._frame_rate if self._frame_rate else None
            return StreamMetadata(
                codec=codec,
                pixel_format="",
                num_frames=None,
                frame_rate=self._frame_rate,
                duration_seconds=duration,
            )
        stream, duration = self._stream.stream, self._stream.container.duration
        return StreamMetadata(
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=stream.codec_context.pix_fmt or "",
            num_frames=stream.frames or None,
            frame_rate=float(stream.average_rate) if stream.average_rate else None,
            duration_seconds=duration / av.time_base if duration else None,
        )

    @property
    def frame_rate(self) -> float | None:
        """Mean frames per second that the header or a drawn clip states; None where it states none, and for images."""
        return self.metadata.frame_rate

    @property
    def num_frames(self) -> int:
        """The number of frames that decode.

        It is counted by the packets where each shows one frame and the header agrees; elsewhere all frames are decoded,
        to the end or to the first error.

        Raises:
            BrokenVideo: Not one frame decodes.
        """
        if self._num_frames is None:
            self._num_frames = len(self._images) if self._stream is None else self._count_frames(self._stream)
        return self._num_frames

    def _count_frames(self, stream: VideoStream) -> int:
        self._table = stream.read_seek_table() or stream.read_packet_table()
        if self._table is not None and stream.stream.frames in (0, len(self._table)):
            return len(self._table)
        self._table, num_frames = None, 0
        try:
            for _ in stream.decode_all():
                num_frames += 1
        except BrokenVideo:
            if num_frames == 0:
                raise
        if num_frames == 0:
            raise BrokenVideo(self.name, "holds no frame that decodes")
        return num_frames

    def read_frames(self, indices: Sequence[int]) -> Frames:
        """Read the frames with these numbers, upright, in RGB.

        Decoding begins at the last keyframe before them, leaves out frames that no other depends on, and stops after
        the last; where a file's packets do not state which packet is which frame, all is decoded up to the last.

        Args:
            indices: Numbers from 0 in presentation order; in any order, and they may repeat.

        Raises:
            BrokenVideo: The file does not decode up to the last of the frames.
        """
        if not len(indices) or min(indices) < 0:
            raise InputError(f"frames are numbered from 0 and at least one is read, not {list(indices)[:3]}")
        last = max(indices)
        if self._stream is None:
            if last >= len(self._images):
                raise BrokenVideo(
                    self.name, f"ends early: {len(self._images)} frames decode and frame {last} (from 0) was requested"
                )
            return self._collect_frames(indices, self._number_images(indices))
        for table in self._iter_tables(self._stream, last):
            try:
                return self._collect_frames(indices, to_images(self._stream.decode_selected(table, set(indices))))
            except (av.FFmpegError, UnexpectedFrameError):
                pass
        return self._collect_frames(indices, to_images(enumerate(self._stream.decode_all())))

    def _iter_tables(self, stream: VideoStream, last: int) -> Iterator[PacketTable]:
        """Yield the packet tables that tell where a frame is, until one of them holds true."""
        table = self._table or stream.read_seek_table(self._num_frames)
        if table is not None and last < len(table):
            yield table
        if table is None or table.pts is not None:
            table = stream.read_packet_table(last, self._num_frames)
            if table is not None and last < len(table):
                yield table

    def read_all_frames(self, buffer: Buffer) -> Frames | None:
        """Read every frame into a buffer; any that `read_frames` would read are among them.

        Returns:
            The frames, at the buffer's start; None where they do not fit, or one of them does not decode, or the stream
            is damaged, so that `read_frames` may number or conceal frames in another way.
        """
        try:
            indices = range(self.num_frames)
            if self._stream is None:
                images = self._number_images(indices)
            elif (table := self._table or self._stream.read_packet_table(indices[-1], self._num_frames)) is not None:
                images = to_images(self._stream.decode_selected(table, set(indices)))
            elif self._stream.read_packet_table(0, self._num_frames) is None:  # no read has a table
                images = to_images(enumerate(self._stream.decode_all()))
            else:
                return None
            return self._collect_frames(indices, map(_report_progress, images), buffer)
        except Exception:  # a library may raise anything on a damaged file; `read_frames` says what
            return None

    def _number_images(self, indices: Iterable[int]) -> Iterator[NumberedImage]:
        """Yield the images of a folder that are wanted and exist."""
        return ((n, self._images[n]) for n in sorted(set(indices)) if n < len(self._images))

    def _collect_frames(
        self, indices: Sequence[int], images: Iterable[NumberedImage], buffer: Buffer | None = None
    ) -> Frames:
        return collect_frames(self.name, indices, self._count_decoded(images), buffer)

    def _count_decoded(self, images: Iterable[NumberedImage]) -> Iterator[NumberedImage]:
        self.num_decoded_frames = 0
        for each in images:
            self.num_decoded_frames += 1
            yield each

    def iter_timed_frames(self, *, default_frame_rate: float | None = None) -> Iterator[TimedFrame]:
        """Yield every frame in presentation order, with the time at which it is shown.

        A frame without a time stamp, or with one that does not follow the last one's, is shown when the last one ends.

        Args:
            default_frame_rate: Frames per second where the file states none; None: `DEFAULT_FRAME_RATE`.

        Raises:
            BrokenVideo: After the last frame that decodes, if something is wrong behind it.
        """
        duration = 1 / (self.frame_rate or default_frame_rate or DEFAULT_FRAME_RATE)
        if self._stream is None:
            for n, image in enumerate(self._images):
                yield TimedFrame(n * duration, duration, image)
            return
        start, latest = None, -duration
        for frame, to_image in to_images((frame, frame) for frame in self._stream.decode_all()):
            following = latest + duration
            if start is None and frame.time is not None:
                start = frame.time - following
            time = following if frame.time is None or start is None else frame.time - start
            latest = time if time > latest else following
            convert = partial(copy_image, to_image)
            yield TimedFrame(latest, duration, convert().copy if self._stream.must_release_frames else convert)

    def read_pixel_aspect_ratio(self) -> float:
        """Return the width to height at which a pixel of the upright frames is shown; 1 where nothing is stated.

        Raises:
            BrokenVideo: The first frame does not decode.
        """
        if self._stream is None:
            return 1.0
        stream = self._stream.stream
        ratio = float(stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or 1)
        first = next(self._stream.decode_all(), None)
        if first is None:
            raise BrokenVideo(self.name, "holds no frame that decodes")
        return 1 / ratio if round(first.rotation / 90) % 2 else ratio


def _report_progress(image: NumberedImage) -> NumberedImage:
    send_heartbeat()  # all frames may take longer than a worker has for some
    return image


def read_frames(source: VideoSource, indices: Sequence[int]) -> Frames:
    """Read the frames with these numbers, see `VideoReader.read_frames`."""
    with VideoReader(source) as reader:
        return reader.read_frames(indices)


def count_frames(source: VideoSource) -> int:
    """Return the number of frames that decode, see `VideoReader.num_frames`."""
    with VideoReader(source) as reader:
        return reader.num_frames


def read_stream_metadata(source: VideoSource) -> StreamMetadata:
    """Return what the header states of the video stream."""
    with VideoReader(source) as reader:
        return reader.metadata


def iter_timed_frames(source: VideoSource, *, default_frame_rate: float | None = None) -> Iterator[TimedFrame]:
    """Yield every frame with the time at which it is shown, see `VideoReader.iter_timed_frames`."""
    with VideoReader(source) as reader:
        yield from reader.iter_timed_frames(default_frame_rate=default_frame_rate)


def iter_frames(source: VideoSource) -> Iterator[ImageArray]:
    """Yield every frame, upright, in RGB, in presentation order."""
    return (frame.to_image() for frame in iter_timed_frames(source))
