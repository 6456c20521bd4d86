"""ImageNet-1K: class folders of pictures, and Kaggle's form of it, whose val pictures are named in a table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vidstill.data.decode.images import PICTURES
from vidstill.data.manifest.folder import classes_in, has_suffix, media_in, rows_of
from vidstill.data.manifest.manifest import SPLIT_NAMES, Listing, Split, chosen, make_listing, splits_among
from vidstill.data.manifest.official.layout import how_many
from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import files_in, folders_in, is_file, is_folder, lines_of
from vidstill.utils.types import InputError

_CLASS = re.compile(r"n\d{8}")  # a synset of WordNet
_KAGGLE = "ILSVRC/Data/CLS-LOC"
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")
_VAL = "LOC_val_solution.csv"


def found(folder: Place) -> "ImageNet | None":
    """ImageNet by the names of its class folders, in `train` and `val` or where Kaggle's archive has them."""
    for place in (folder, below(folder, _KAGGLE)):
        parts = {
            name: part for names in SPLIT_NAMES.values() for name in names if is_folder(part := below(place, name))
        }
        classes = {name for part in parts.values() for name in folders_in(part)}
        if parts and (_hold_pictures(parts.values(), classes) if classes else place != folder):
            return ImageNet(folder, parts)
    return None


def _hold_pictures(parts: Iterable[Place], classes: set[str]) -> bool:
    """Whether the folders have the names of ImageNet's classes, and not all are empty, or of videos."""
    inside = (below(part, name) for part in parts for name in classes)
    return all(map(_CLASS.fullmatch, classes)) and any(next(media_in(each, PICTURES), None) for each in inside)


@dataclass(frozen=True)
class ImageNet:
    """Pictures in class folders with the numbers of WordNet for names.

    Args:
        folder: where the tables are looked for.
        parts: by the split's name.
    """

    folder: Place
    parts: dict[str, Place]

    def splits(self) -> tuple[Split, ...]:
        return splits_among(self.parts)

    def listing(self, split: Split | None) -> Listing:
        part = chosen(self.folder, self.parts, split)
        words = _words(self.folder)
        classes = classes_in(list(self.parts.values()), PICTURES) or tuple(words)
        if any(has_suffix(name, PICTURES) for name in files_in(part)):
            rows, named = self._rows_by_table(part, classes)
        else:
            rows = rows_of(part, classes, PICTURES)
            named = len(rows)
        name = "ImageNet-1K" if len(classes) == 1000 else f"ImageNet ({len(classes)} classes)"
        kind = f"{name}, its {split or 'train'} split, {how_many(len(rows), named)}"
        called = tuple(f"{name} {words[name]}" if name in words else name for name in classes)
        return make_listing(part, rows, called, kind, missing=named - len(rows))

    def _rows_by_table(self, part: Place, classes: tuple[str, ...]) -> tuple[Rows, int]:
        """The pictures that Kaggle's table names and that are there, and how many it names.

        Its columns are `ImageId,PredictionString`, of which the second begins with the class.
        """
        path = below(self.folder, _VAL)
        if not is_file(path):
            raise InputError(
                f"{part} holds pictures without class folders, and {path}, which would say their classes, is not "
                "there; put it there, or move each picture into a folder of its class as the train split has them (the "
                "numbers of ILSVRC2012_validation_ground_truth.txt are an order of their own, not the folders')"
            )
        order = {name: label for label, name in enumerate(classes)}
        rows, named, pictures = Rows(part), 0, set(files_in(part))
        for number, line in lines_of(path):
            picture, _, said = line.partition(",")
            called = said.partition(" ")[0]
            if number == 1:
                continue
            if called not in order:
                raise InputError(f"line {number} of {path} has the class {called!r}, which has no folder and no name")
            named += 1
            if f"{picture}.JPEG" in pictures:
                rows.add(f"{picture}.JPEG", order[called])
        return rows, named


def _words(folder: Place) -> dict[str, str]:
    """What WordNet's numbers stand for, where the data set says it: `n01440764 tench, Tinca tinca` lines."""
    path = next((path for name in _NAMES if is_file(path := below(folder, name))), None)
    return {} if path is None else {line.split(" ", 1)[0]: line.partition(" ")[2] for _, line in lines_of(path)}
