"""Reads boxes in the formats of published person detectors, and annotations in those of VideoMAE's detection code."""

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, convert_read_errors, read_box_csv
from vidstill.data.ava.safe_pickle import load_safe_pickle
from vidstill.data.storage.fetch import PathOrUrl, fetch_source, join_path
from vidstill.data.storage.filesystem import base_name, list_files, parent_path, read_first_line
from vidstill.utils.types import InputError

_KEYFRAME_PATTERN = re.compile(r"\s*(.+?)\s*,\s*(\d+)\s*")

_Row = tuple[int, str, Sequence[Any]]
"""The number of a box, its video, and second, x1, y1, x2, y2, action and score."""


def read_person_boxes(path: PathOrUrl, *, image_file: PathOrUrl | None = None) -> BoxTable:
    """Read boxes of persons; the format is recognised by the content.

    - CSV rows `video,second,x1,y1,x2,y2,action,score`, where the action may be empty or -1 (PySlowFast; `vidstill
      detect boxes`; annotations, whose last column is read as a score);
    - JSON, a list of `image_id`, `bbox` (x, y, width, height in pixels) and `score` (VideoMAE's detection code);
    - a pickle, an .npz file or JSON, `video,0902` → rows of x1, y1, x2, y2 (fractions of the frame) and score
      (mmaction2). A pickle is read without running what it names.

    Args:
        image_file: JSON annotations that say which `image_id` is which key frame, and how large; None: such a file in
            the same directory.

    Raises:
        InputError: The file has none of these formats, or a box in it cannot be read.
    """
    start = _read_start(path)
    if start.startswith("PK\x03\x04"):
        return _parse_keyframe_dict(path, _load_npz(path))
    if start.startswith(("\N{REPLACEMENT CHARACTER}", "(dp", "}")):  # byte 0x80, or protocols 0 and 1
        return _parse_keyframe_dict(path, load_safe_pickle(path, _read_bytes(path)))
    if not start.startswith(("[", "{")):
        return read_box_csv(path, has_scores=True)
    content = _load_json(path)
    if isinstance(content, list):
        return _parse_pixel_boxes(path, content, _find_images(path, content, image_file))
    if "images" in content:
        return _parse_pixel_boxes(path, content.get("annotations", ()), _parse_images(path, content))
    return _parse_keyframe_dict(path, content)


def read_annotations(path: PathOrUrl) -> BoxTable:
    """Read annotated boxes: AVA's CSV rows, or the JSON of VideoMAE's detection code (`images`, `annotations`)."""
    if not _read_start(path).startswith("{"):
        return read_box_csv(path, has_scores=False)
    content = _load_json(path)
    if not isinstance(content.get("images"), list) or not isinstance(content.get("annotations"), list):
        raise InputError(f"{path} has no lists `images` and `annotations`; give annotations in AVA's CSV format")
    return _parse_pixel_boxes(path, content["annotations"], _parse_images(path, content))


_ImageMetadata = tuple[str, int, float, float]
"""Video, second, width and height."""


def _parse_pixel_boxes(path: PathOrUrl, boxes: Sequence[Any], images: Mapping[Any, _ImageMetadata]) -> BoxTable:
    rows: list[_Row] = []
    for number, box in enumerate(boxes, 1):
        try:
            image_id, (x, y, width, height) = box["image_id"], box["bbox"]
            score, actions = float(box.get("score", 1.0)), box.get("action_ids") or [NO_ACTION]
            image = images.get(image_id)
            if image is not None:
                video, second, image_width, image_height = image
                right, bottom = (x + width) / image_width, (y + height) / image_height
                values = second, x / image_width, y / image_height, right, bottom
                rows += [(number, video, [*values, int(action), score]) for action in actions]
        except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError):
            raise InputError(
                f"box {number} of {path} reads {str(box)[:80]}; it needs an image_id and a bbox of four numbers"
            ) from None
        if image is None:
            raise InputError(
                f"box {number} of {path} is of the image {image_id!r}, which no annotations with `images` list; "
                "put the file that lists it beside it"
            )
    return _build_table(path, rows)


def _find_images(path: PathOrUrl, boxes: Sequence[Any], image_file: PathOrUrl | None) -> Mapping[Any, _ImageMetadata]:
    """Return the images of `image_file`, or of the file in the same directory that has most of those of the boxes."""
    image_ids = {box.get("image_id") for box in boxes if isinstance(box, dict)}
    if not image_ids:
        return {}
    directory = parent_path(path)
    json_files = [join_path(directory, name) for name in list_files(directory) if name.lower().endswith(".json")]
    best: Mapping[Any, _ImageMetadata] = {}
    for candidate in json_files if image_file is None else [image_file]:
        if base_name(candidate) == base_name(path) or not _read_start(candidate).startswith("{"):
            continue
        if "images" in (content := _load_json(candidate)) and not image_ids <= best.keys():
            best = max(best, _parse_images(candidate, content), key=lambda images: len(image_ids & images.keys()))
    if not best:
        raise InputError(
            f"{path} numbers its images, and {image_file or 'no JSON file beside it'} says which they are (`images` "
            "with id, movie, timestamp, width, height); put annotations in this format beside it"
        )
    return best


def _parse_images(path: PathOrUrl, content: Mapping[str, Any]) -> dict[Any, _ImageMetadata]:
    images = {}
    for number, image in enumerate(content["images"], 1):
        try:
            keyframe = str(image["movie"]), int(image["timestamp"])
            images[image["id"]] = (*keyframe, float(image["width"]), float(image["height"]))
        except (TypeError, ValueError, KeyError):
            raise InputError(
                f"image {number} of {path} reads {str(image)[:80]}; it needs id, movie, timestamp, width and height"
            ) from None
    return images


def _parse_keyframe_dict(path: PathOrUrl, content: Any) -> BoxTable:
    """Parse `video,0902` → rows of four coordinates and a score."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no boxes by key frame (`video,0902`) but a {type(content).__name__}")
    rows: list[_Row] = []
    for key, value in content.items():
        keyframe = _KEYFRAME_PATTERN.fullmatch(key) if isinstance(key, str) else None
        if not keyframe:
            raise InputError(f"{path} has boxes of {key!r}; the key of a key frame is `video,0902`")
        try:
            boxes = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            boxes = np.zeros(1)
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 5):
            raise InputError(f"{path} has no rows of four coordinates and a score for {key!r}; download it again")
        for *corners, score in boxes.reshape(-1, 5).tolist():
            rows.append((len(rows) + 1, keyframe[1], [int(keyframe[2]), *corners, NO_ACTION, score]))
    return _build_table(path, rows)


def _build_table(path: PathOrUrl, rows: Sequence[_Row]) -> BoxTable:
    numbers, names, values = zip(*rows, strict=True) if rows else ((), (), ())
    table = BoxTable.from_rows(path, names, values, numbers)
    infinite = ~(np.isfinite(table.box).all(axis=1) & np.isfinite(table.score))
    if infinite.any():
        number = table.line_number[infinite.argmax()]
        raise InputError(f"box {number} of {path} has a number that is not finite; delete the box")
    return table


def _load_npz(path: PathOrUrl) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no readable .npz file of numbers ({error}); download it again") from None


def _load_json(path: PathOrUrl) -> Any:
    try:
        return json.loads(_read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path} is no readable JSON ({error}); download it again") from None


def _read_start(path: PathOrUrl) -> str:
    with convert_read_errors(path, "a file of boxes"):
        return read_first_line(path)


def _read_bytes(path: PathOrUrl) -> bytes:
    with convert_read_errors(path, "a file of boxes"):
        source = fetch_source(path)
        return source.read_bytes() if isinstance(source, Path) else source
