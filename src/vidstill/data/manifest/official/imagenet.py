"""ImageNet-1K: class directories of images, and Kaggle's archive, whose validation images are in a table."""

import re
from functools import partial

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.manifest.folder import find_classes, find_split_folders, has_media, has_suffix, read_class_folders
from vidstill.data.manifest.manifest import Manifest, ManifestReader, Split, build_manifest, match_splits, select_split
from vidstill.data.manifest.official.layout import format_missing
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_file, list_directories, list_files, read_lines
from vidstill.utils.types import InputError

_SYNSET_PATTERN = re.compile(r"n\d{8}")  # a synset of WordNet
_KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"
_SYNSET_FILES = ("LOC_synset_mapping.txt", "synset_words.txt")
_VAL_FILE = "LOC_val_solution.csv"


def detect_imagenet(folder: PathOrUrl) -> ManifestReader | None:
    """Recognize ImageNet by the names of its class directories, in `train` and `val` or in Kaggle's archive."""
    for directory in (folder, join_path(folder, _KAGGLE_FOLDER)):
        splits = find_split_folders(directory)
        classes = {name for split in splits.values() for name in list_directories(split)}
        class_folders = (join_path(part, name) for part in splits.values() for name in classes)
        if not classes:
            is_imagenet = directory != folder
        else:
            has_names = all(map(_SYNSET_PATTERN.fullmatch, classes))
            is_imagenet = has_names and any(has_media(each, IMAGE_EXTENSIONS) for each in class_folders)
        if splits and is_imagenet:
            return ManifestReader(match_splits(splits), partial(_read_split, folder, splits))
    return None


def _read_split(folder: PathOrUrl, split_folders: dict[str, PathOrUrl], split: Split | None) -> Manifest:
    """Read images in class directories, whose names are synsets of WordNet, or those of Kaggle's table."""
    split_folder = select_split(folder, split_folders, split)
    synset_names = _read_synset_names(folder)
    classes = find_classes(list(split_folders.values()), IMAGE_EXTENSIONS) or tuple(synset_names)
    if any(has_suffix(name, IMAGE_EXTENSIONS) for name in list_files(split_folder)):
        rows, num_listed = _read_val_table(folder, split_folder, classes)
    else:
        rows = read_class_folders(split_folder, classes, IMAGE_EXTENSIONS)
        num_listed = len(rows)
    name = "ImageNet-1K" if len(classes) == 1000 else f"ImageNet ({len(classes)} classes)"
    description = f"{name}, its {split or 'train'} split, {format_missing(len(rows), num_listed)}"
    class_names = tuple(f"{name} {synset_names.get(name, '')}".strip() for name in classes)
    return build_manifest(split_folder, rows, class_names, description, num_missing=num_listed - len(rows))


def _read_val_table(folder: PathOrUrl, split_folder: PathOrUrl, classes: tuple[str, ...]) -> tuple[VideoTable, int]:
    """Return the images of Kaggle's table that exist, and how many it lists.

    Its columns are `ImageId,PredictionString`; the second begins with the class.
    """
    path = join_path(folder, _VAL_FILE)
    if not is_file(path):
        raise InputError(
            f"{split_folder} holds images without class directories, and {path}, which has their classes, does not "
            "exist; put it there, or move each image into a directory of its class as in the train split (the "
            "numbers of ILSVRC2012_validation_ground_truth.txt are in an order of their own, not the directories')"
        )
    order = {name: label for label, name in enumerate(classes)}
    names, labels, num_listed, files = list[str](), list[int](), 0, set(list_files(split_folder))
    for number, line in read_lines(path):
        image, _, prediction = line.partition(",")
        class_name = prediction.partition(" ")[0]
        if number == 1:
            continue
        if class_name not in order:
            raise InputError(
                f"line {number} of {path} has the class {class_name!r}, which has no directory and no name"
            )
        num_listed += 1
        if f"{image}.JPEG" in files:
            names.append(f"{image}.JPEG")
            labels.append(order[class_name])
    return VideoTable(split_folder, names, {"label": labels}), num_listed


def _read_synset_names(folder: PathOrUrl) -> dict[str, str]:
    """Return the names of synsets, if the dataset has them: `n01440764 tench, Tinca tinca` lines."""
    path = next((path for name in _SYNSET_FILES if is_file(path := join_path(folder, name))), None)
    return {} if path is None else {line.split(" ", 1)[0]: line.partition(" ")[2] for _, line in read_lines(path)}
