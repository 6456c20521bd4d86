"""Images as frames: one file, or a folder of them in the order of their names."""

import io
import os
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from vidstill.data.decode.container import MAX_PIXELS
from vidstill.data.storage.fetch import BrokenVideo, check_file_type, format_error

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Suffixes of files that hold one frame."""

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
"""Pillow's names of what such a file may hold, whatever its suffix; some of its other formats start programs."""

ImageArray = UInt8[np.ndarray, "h w 3"]

_EXIF_TRANSPOSES = {  # EXIF orientation → how to turn the image; PIL's own function fails where another tag is bad
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image_file(name: str) -> bool:
    """Return whether a file of this name is an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def list_frame_images(source: Path | bytes) -> list[Path | bytes] | None:
    """Return the images that are a source's frames; None for a video file, which FFmpeg reads.

    Raises:
        BrokenVideo: It is a folder without images.
    """
    if isinstance(source, bytes):
        return [source] if source.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")) else None
    if is_image_file(source.name):
        return [source]
    if not source.is_dir():
        return None
    images: list[Path | bytes] = [source / name for name in sorted(os.listdir(source)) if is_image_file(name)]
    if not images:
        raise BrokenVideo(source, "is a folder without images; give a video, or a folder of its frames")
    return images


def read_image(source: Path | bytes) -> ImageArray:
    """Read an image, upright, in RGB.

    Raises:
        BrokenVideo: It does not decode, or has more than `MAX_PIXELS`.
    """
    if isinstance(source, Path):
        check_file_type(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BrokenVideo(
                    source, f"has {image.width}x{image.height} pixels: more than {MAX_PIXELS} are not read"
                )
            image.load()  # a PNG may state its orientation behind its pixels
            transpose = _EXIF_TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            upright = image if transpose is None else image.transpose(transpose)
            return np.array(upright.convert("RGB"))
    except BrokenVideo:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:  # all are Pillow's
        raise BrokenVideo(source, f"does not decode: {format_error(error)}") from error
