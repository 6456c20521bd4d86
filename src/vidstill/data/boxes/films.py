"""Where the frames of a video with key frames are: in a file, in a folder of frames, or in files of one second each."""

from dataclasses import dataclass
from typing import Literal

from vidstill.data.sources import Place


@dataclass(frozen=True)
class Film:
    """A video that has key frames.

    Args:
        name: as the annotations call it.
        place: None: it is not there, and nothing can be read of it.
        form: "file": a video file; "frames": a folder of pictures; "seconds": a folder of video files `902.mp4`, each
            of one second, as VideoMAE's detection code cuts them.
        start: the second of the annotations' time at which it begins: 0 for whole films, 900 for the 15 minutes that
            are annotated in AVA.
        rate: frames per second of a folder of frames.
    """

    name: str
    place: Place | None
    form: Literal["file", "frames", "seconds"] = "file"
    start: float = 0.0
    rate: float = 30.0
