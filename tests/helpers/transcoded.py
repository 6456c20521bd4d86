"""Transcoded videos in memory, for tests that look at their bytes."""

import io

from vidstill.data.storage.fetch import VideoSource
from vidstill.data.tools.transcode import TranscodeConfig, TranscodedVideo, transcode_video


def transcode(
    source: VideoSource, config: TranscodeConfig, frame_rate: float | None = None
) -> tuple[TranscodedVideo, bytes]:
    file = io.BytesIO()
    return transcode_video(source, file, config, frame_rate), file.getvalue()
