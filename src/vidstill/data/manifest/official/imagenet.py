"""ImageNet-1K: class folders of pictures, and Kaggle's form of it, whose val pictures are named in a table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.manifest.folder import find_classes, has_suffix, iter_media_files, read_class_folders
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Manifest, Split, build_manifest, match_splits, select_split
from vidstill.data.manifest.official.layout import format_missing
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, is_file, list_directories, list_files, read_lines
from vidstill.utils.types import InputError

_SYNSET_PATTERN = re.compile(r"n\d{8}")  # a synset of WordNet
_KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"
_SYNSET_FILES = ("LOC_synset_mapping.txt", "synset_words.txt")
_VAL_FILE = "LOC_val_solution.csv"


def detect_imagenet(folder: PathOrUrl) -> "ImageNetReader | None":
    """ImageNet by the names of its class folders, in `train` and `val` or where Kaggle's archive has them."""
    for place in (folder, join_path(folder, _KAGGLE_FOLDER)):
        parts = {
            name: part
            for names in SPLIT_ALIASES.values()
            for name in names
            if is_directory(part := join_path(place, name))
        }
        classes = {name for part in parts.values() for name in list_directories(part)}
        if parts and (_has_synset_folders(parts.values(), classes) if classes else place != folder):
            return ImageNetReader(folder, parts)
    return None


def _has_synset_folders(parts: Iterable[PathOrUrl], classes: set[str]) -> bool:
    """Whether the folders have the names of ImageNet's classes, and not all are empty, or of videos."""
    inside = (join_path(part, name) for part in parts for name in classes)
    return all(map(_SYNSET_PATTERN.fullmatch, classes)) and any(
        next(iter_media_files(each, IMAGE_EXTENSIONS), None) for each in inside
    )


@dataclass(frozen=True)
class ImageNetReader:
    """Pictures in class folders with the numbers of WordNet for names.

    Args:
        folder: where the tables are looked for.
        split_folders: by the split's name.
    """

    folder: PathOrUrl
    split_folders: dict[str, PathOrUrl]

    def list_splits(self) -> tuple[Split, ...]:
        return match_splits(self.split_folders)

    def read_manifest(self, split: Split | None) -> Manifest:
        part = select_split(self.folder, self.split_folders, split)
        words = _read_synset_names(self.folder)
        classes = find_classes(list(self.split_folders.values()), IMAGE_EXTENSIONS) or tuple(words)
        if any(has_suffix(name, IMAGE_EXTENSIONS) for name in list_files(part)):
            rows, named = self._read_val_table(part, classes)
        else:
            rows = read_class_folders(part, classes, IMAGE_EXTENSIONS)
            named = len(rows)
        name = "ImageNet-1K" if len(classes) == 1000 else f"ImageNet ({len(classes)} classes)"
        kind = f"{name}, its {split or 'train'} split, {format_missing(len(rows), named)}"
        called = tuple(f"{name} {words[name]}" if name in words else name for name in classes)
        return build_manifest(part, rows, called, kind, num_missing=named - len(rows))

    def _read_val_table(self, part: PathOrUrl, classes: tuple[str, ...]) -> tuple[VideoTable, int]:
        """The pictures that Kaggle's table names and that are there, and how many it names.

        Its columns are `ImageId,PredictionString`, of which the second begins with the class.
        """
        path = join_path(self.folder, _VAL_FILE)
        if not is_file(path):
            raise InputError(
                f"{part} holds pictures without class folders, and {path}, which would say their classes, is not "
                "there; put it there, or move each picture into a folder of its class as the train split has them (the "
                "numbers of ILSVRC2012_validation_ground_truth.txt are an order of their own, not the folders')"
            )
        order = {name: label for label, name in enumerate(classes)}
        names, labels, num_listed, files = list[str](), list[int](), 0, set(list_files(part))
        for number, line in read_lines(path):
            picture, _, said = line.partition(",")
            called = said.partition(" ")[0]
            if number == 1:
                continue
            if called not in order:
                raise InputError(f"line {number} of {path} has the class {called!r}, which has no folder and no name")
            num_listed += 1
            if f"{picture}.JPEG" in files:
                names.append(f"{picture}.JPEG")
                labels.append(order[called])
        return VideoTable(part, names, {"label": labels}), num_listed


def _read_synset_names(folder: PathOrUrl) -> dict[str, str]:
    """What WordNet's numbers stand for, where the data set says it: `n01440764 tench, Tinca tinca` lines."""
    path = next((path for name in _SYNSET_FILES if is_file(path := join_path(folder, name))), None)
    return {} if path is None else {line.split(" ", 1)[0]: line.partition(" ")[2] for _, line in read_lines(path)}
