"""Pictures as frames: one, or a folder of them in the order of their names."""

import io
import os
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from vidstill.data.storage.fetch import BrokenVideo, format_error

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Suffixes of files that hold one frame."""

ImageArray = UInt8[np.ndarray, "h w 3"]

_EXIF_TRANSPOSES = {  # from how a camera says that it stored a picture; PIL's own function fails where another of its tags is bad
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image_file(name: str) -> bool:
    """Whether a file of this name holds one frame."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def list_frame_images(source: Path | bytes) -> list[Path | bytes] | None:
    """The pictures that are the frames, or None for what FFmpeg reads.

    Raises:
        BrokenVideo: a folder without pictures.
    """
    if isinstance(source, bytes):
        return [source] if source.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")) else None
    if is_image_file(source.name):
        return [source]
    if not source.is_dir():
        return None
    pictures: list[Path | bytes] = [source / name for name in sorted(os.listdir(source)) if is_image_file(name)]
    if not pictures:
        raise BrokenVideo(source, "is a folder without pictures; give a video, or a folder of its frames")
    return pictures


def read_image(source: Path | bytes) -> ImageArray:
    """A picture, upright, in RGB.

    Raises:
        BrokenVideo: it does not decode.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()  # a PNG may say how it was stored behind its pixels
            turn = _EXIF_TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            upright = image if turn is None else image.transpose(turn)
            return np.array(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:  # all are Pillow's
        raise BrokenVideo(source, f"does not decode: {format_error(error)}") from error
