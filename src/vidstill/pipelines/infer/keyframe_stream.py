"""Key frames at regular seconds of a video and the clips around them, while it is decoded once, in constant memory."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from einops import rearrange
from jaxtyping import Float32, Float64, UInt8

from vidstill.data.ava.frame_sampling import round_half_up
from vidstill.data.ava.samples import BoxViewsConfig
from vidstill.data.ava.transforms import expand_boxes, to_pixel_boxes
from vidstill.data.decode.images import ImageArray
from vidstill.data.decode.reader import VideoReader
from vidstill.data.storage.fetch import BrokenVideo


@dataclass
class KeyframeClip:
    """A key frame and the frames of the clip around it, as far as they are decoded.

    Args:
        index: Of the key frame, from 0.
        keyframe: Its frame number.
        frame_numbers: Those of the clip; empty if only the key frame is needed.
        views: Of the detector's test.
    """

    index: int
    keyframe: int
    frame_numbers: Sequence[int]
    views: BoxViewsConfig
    seconds: float = field(init=False)
    image: ImageArray = field(init=False)
    frames: dict[int, ImageArray] = field(init=False, default_factory=dict)

    @property
    def last_frame(self) -> int:
        return max([self.keyframe, *self.frame_numbers])

    @property
    def frame_size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def build_clip(
        self, boxes: Float64[np.ndarray, "m 4"]
    ) -> tuple[UInt8[np.ndarray, "3 t h w"], Float32[np.ndarray, "m 4"]]:
        """Return the clip and the boxes in its pixels, as in a test."""
        views = self.views
        pixel_boxes = to_pixel_boxes(boxes, self.frame_size, views.rule)
        _, boxes = views.build_transform(self.frame_size).apply(self.image[None], pixel_boxes)
        frames = np.stack([self.frames[number] for number in self.frame_numbers])
        boxes = expand_boxes(boxes, views.box_expansion, (frames.shape[1], frames.shape[2]))
        return np.ascontiguousarray(rearrange(frames, "t h w c -> c t h w")), boxes.astype(np.float32)


def read_keyframe_clips(
    video: VideoReader, views: BoxViewsConfig, interval: float, frame_rate: float, indices: set[int] | None = None
) -> Iterator[KeyframeClip]:
    """Yield the key frames of a video in order; frames are kept only as long as a clip needs them.

    Args:
        video: The opened video.
        views: Of the detector's test.
        interval: Seconds from one key frame to the next.
        frame_rate: Frames per second.
        indices: Key frames whose clips are needed; None: all.

    Raises:
        BrokenVideo: After the last key frame that decodes, if the video ends early.
    """
    total = video.num_frames
    planned = _plan_keyframes(views, total, interval, frame_rate, indices)
    sampling = views.sampling  # a clip begins at most so many frames before its key frame
    reach = math.ceil(-min(0, *sampling.compute_offsets()) * frame_rate / sampling.frame_rate) + 1
    upcoming, open_clips = next(planned, None), deque[KeyframeClip]()
    number, size = -1, None
    for number, frame in enumerate(video.iter_timed_frames(default_frame_rate=frame_rate)):
        while upcoming is not None and upcoming.keyframe - reach <= number:
            open_clips.append(upcoming)
            upcoming = next(planned, None)
        at_keyframe = [clip for clip in open_clips if number == clip.keyframe]
        users = [clip for clip in open_clips if number in clip.frame_numbers]
        if at_keyframe or users:
            image = frame.to_image()
            height, width = image.shape[:2]
            if size not in (None, (height, width)):
                raise BrokenVideo(video.name, f"changes its size to {width}x{height} at frame {number} or before")
            size = height, width
            for clip in at_keyframe:
                clip.image, clip.seconds = image, frame.pts_seconds
            if users:
                resized = views.build_transform(size).apply(image[None], np.zeros((0, 4)))[0][0]
                for clip in users:
                    clip.frames[number] = resized
        while open_clips and open_clips[0].last_frame <= number:
            yield open_clips.popleft()
        if upcoming is None and not open_clips:
            return
    raise BrokenVideo(video.name, f"ends early: {number + 1} of {total} frames decode")


def _plan_keyframes(
    views: BoxViewsConfig, num_frames: int, interval: float, frame_rate: float, indices: set[int] | None
) -> Iterator[KeyframeClip]:
    for index in count():
        center = index * interval * frame_rate
        if (keyframe := round_half_up(center)) >= num_frames:
            return
        offsets: list[int] = []
        if indices is None or index in indices:
            ratio = frame_rate / views.sampling.frame_rate
            offsets = views.sampling.compute_video_offsets(keyframe, num_frames - keyframe, ratio, center - keyframe)
        yield KeyframeClip(index, keyframe, [keyframe + offset for offset in offsets], views)
