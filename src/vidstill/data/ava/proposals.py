"""Boxes around persons in the files of published detectors, and annotations in those of VideoMAE's code → rows."""

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, read_box_csv
from vidstill.data.ava.safe_pickle import load_safe_pickle
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, join_path
from vidstill.data.storage.filesystem import base_name, list_files, parent_path
from vidstill.utils.types import InputError

_KEYFRAME_PATTERN = re.compile(r"\s*(.+?)\s*,\s*(\d+)\s*")


class PersonBoxFile(NamedTuple):
    """Boxes around persons.

    Args:
        description: in words, what their file was taken for.
    """

    table: BoxTable
    description: str


def read_person_boxes(path: PathOrUrl, *, image_file: PathOrUrl | None = None) -> PersonBoxFile:
    """The boxes of a file; its format is known by what is in it.

    - rows `video,second,x1,y1,x2,y2,action,score`, where the action may be empty or -1 (PySlowFast; `detect boxes`;
      annotations, whose last column counts as a score then);
    - JSON, a list of `image_id`, `bbox` (x, y, width, height in pixels) and `score` (VideoMAE's detection code);
    - a pickle, an .npz file or JSON, `video,0902` → rows of x1, y1, x2, y2 (fractions of the frame) and score
      (mmaction2). A pickle is read without running what it names.

    Args:
        image_file: the JSON file of annotations that says which `image_id` is which key frame, and how large; None: one
            beside the file that does.

    Raises:
        InputError: it is none of these, or a box in it cannot be read.
    """
    start = _read_header(path)
    if start.startswith(b"PK\x03\x04"):
        return PersonBoxFile(_parse_keyframe_dict(path, _load_npz(path)), "boxes by key frame (.npz)")
    if start.startswith((b"\x80", b"(dp", b"}")):
        return PersonBoxFile(
            _parse_keyframe_dict(path, load_safe_pickle(path, _read_bytes(path))),
            "boxes by key frame (mmaction2's pickle)",
        )
    if start.lstrip()[:1] not in (b"[", b"{"):
        return PersonBoxFile(read_box_csv(path, has_scores=True), "rows of boxes and scores")
    content = _load_json(path)
    if isinstance(content, list):
        return PersonBoxFile(
            _parse_pixel_boxes(path, content, _find_images(path, content, image_file)),
            "VideoMAE's list of person boxes",
        )
    if "images" in content:
        return PersonBoxFile(_parse_annotations(path, content), "annotations as VideoMAE's code has them")
    return PersonBoxFile(_parse_keyframe_dict(path, content), "boxes by key frame (JSON)")


def read_annotations(path: PathOrUrl) -> BoxTable:
    """Annotated boxes: rows of AVA's, or JSON of VideoMAE's detection code (`images`, `annotations`).

    Raises:
        InputError: it is neither, or a box in it cannot be read.
    """
    if _read_header(path).lstrip()[:1] != b"{":
        return read_box_csv(path, has_scores=False)
    content = _load_json(path)
    if not isinstance(content.get("images"), list) or not isinstance(content.get("annotations"), list):
        raise InputError(f"{path} has no lists `images` and `annotations`; give annotations as AVA has them")
    return _parse_annotations(path, content)


class _ImageMetadata(NamedTuple):
    video: str
    second: int
    width: float
    height: float


def _parse_annotations(path: PathOrUrl, content: Mapping[str, Any]) -> BoxTable:
    images = _parse_images(path, content)
    return _parse_pixel_boxes(path, content.get("annotations", ()), images)


def _parse_pixel_boxes(path: PathOrUrl, boxes: Sequence[Any], images: Mapping[Any, _ImageMetadata]) -> BoxTable:
    found = _BoxTableBuilder(path)
    for number, each in enumerate(boxes, 1):
        try:
            identity, (x, y, width, height) = each["image_id"], each["bbox"]
            score, actions = float(each.get("score", 1.0)), each.get("action_ids") or [NO_ACTION]
            image = images.get(identity)
            if image is None:
                raise InputError(
                    f"box {number} of {path} is of the image {identity!r}, which no annotations with `images` name; "
                    "give the file that does"
                )
            sides = (x / image.width, y / image.height, (x + width) / image.width, (y + height) / image.height)
            for action in actions:
                found.add(number, image.video, image.second, sides, score, int(action))
        except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"box {number} of {path} reads {str(each)[:80]}, which lacks an image_id, a bbox of four pixels or a "
                "number; fetch it again"
            ) from None
    return found.build()


def _find_images(path: PathOrUrl, boxes: Sequence[Any], images: PathOrUrl | None) -> Mapping[Any, _ImageMetadata]:
    """The images of a list of boxes: of the file that is named, or of the one beside it that has them all."""
    asked = {each.get("image_id") for each in boxes if isinstance(each, dict)}
    if not asked:
        return {}
    beside = [
        join_path(parent_path(path), name) for name in list_files(parent_path(path)) if name.lower().endswith(".json")
    ]
    best: Mapping[Any, _ImageMetadata] = {}
    for place in [images] if images is not None else beside:
        if base_name(place) == base_name(path) or _read_header(place).lstrip()[:1] != b"{":
            continue
        if "images" in (content := _load_json(place)):
            found = _parse_images(place, content)
            if asked <= found.keys():
                return found
            best = max(best, found, key=lambda each: len(asked & each.keys()))
    if not best:
        raise InputError(
            f"{path} numbers its images, and {'no JSON file beside it' if images is None else images} says which they "
            "are (`images` with id, movie, timestamp, width, height); put the annotations in that form beside it"
        )
    return best


def _parse_images(path: PathOrUrl, content: Mapping[str, Any]) -> dict[Any, _ImageMetadata]:
    found = {}
    for number, each in enumerate(content["images"], 1):
        try:
            found[each["id"]] = _ImageMetadata(
                str(each["movie"]), int(each["timestamp"]), float(each["width"]), float(each["height"])
            )
        except (TypeError, ValueError, KeyError):
            raise InputError(
                f"image {number} of {path} reads {str(each)[:80]}; it needs id, movie, timestamp, width and height"
            ) from None
    return found


def _parse_keyframe_dict(path: PathOrUrl, content: Any) -> BoxTable:
    """Of `video,0902` → rows of five numbers."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no boxes by key frame (`video,0902`) but a {type(content).__name__}")
    found, number = _BoxTableBuilder(path), 0
    for key, value in content.items():
        moment = _KEYFRAME_PATTERN.fullmatch(key) if isinstance(key, str) else None
        if not moment:
            raise InputError(f"{path} has boxes of {key!r}, and a key frame is named as `video,0902`")
        try:
            boxes = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            boxes = np.zeros(1)
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 5):
            raise InputError(f"{path} has no rows of four coordinates and a score for {key!r}; fetch it again")
        for *sides, score in boxes.reshape(-1, 5).tolist():
            number += 1
            found.add(number, moment[1], int(moment[2]), sides, score, NO_ACTION)
    return found.build()


class _BoxTableBuilder:
    """Boxes as they are met."""

    def __init__(self, path: PathOrUrl) -> None:
        self.path = path
        self.video_indices: dict[str, int] = {}
        self.columns: tuple[list[Any], ...] = [], [], [], [], [], []

    def add(self, number: int, video: str, second: int, sides: Sequence[float], score: float, action: int) -> None:
        values = self.video_indices.setdefault(video, len(self.video_indices)), second, sides, action, score, number
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)

    def build(self) -> BoxTable:
        video, second, box, action, score, number = self.columns
        boxes = np.array(box, np.float64).reshape(-1, 4)
        scores = np.array(score, np.float64)
        wrong = ~(np.isfinite(boxes).all(1) & np.isfinite(scores))
        if wrong.any():
            raise InputError(
                f"box {number[int(wrong.argmax())]} of {self.path} has a coordinate or a score that is no finite "
                "number; take it out"
            )
        whole = (np.array(each, np.int32) for each in (video, second, action, number))
        videos, seconds, actions, numbers = whole
        return BoxTable(self.path, tuple(self.video_indices), videos, seconds, boxes, actions, scores, numbers)


def _load_npz(path: PathOrUrl) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no readable .npz file of numbers ({error}); fetch it again") from None


def _load_json(path: PathOrUrl) -> Any:
    try:
        return json.loads(_read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path} is no readable JSON ({error}); fetch it again") from None


def _read_header(path: PathOrUrl) -> bytes:
    """Enough of a file to know it by."""
    if isinstance(path, str):
        return _read_bytes(path)[:64]
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise _make_read_error(path, error) from None


def _read_bytes(path: PathOrUrl) -> bytes:
    try:
        here = fetch_source(path)
        return here.read_bytes() if isinstance(here, Path) else here
    except (OSError, BrokenVideo) as error:
        raise _make_read_error(path, error) from None


def _make_read_error(path: PathOrUrl, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError | BrokenVideo):
        return InputError(f"{path} does not exist; give a file of boxes that is there")
    return InputError(f"{path} cannot be read ({error.strerror if isinstance(error, OSError) else error})")
