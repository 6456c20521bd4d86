"""Labelled videos to train and test on, checked before the work: every video has a label, and the classes agree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest, open_test_manifest
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.types import InputError


def open_labeled_test(
    data: PathOrUrl | str | Path,
    *,
    fold: int = 1,
    multi_label: bool = False,
    classes: Sequence[str] | None = None,
    classes_source: object = "",
) -> Manifest:
    """Open the labelled videos of a test: the val split, or all videos of a dataset without splits.

    Args:
        fold: Which of the three official splits of UCF101 and HMDB51.
        multi_label: Videos may have several labels.
        classes: The class names that the labels must refer to; None: any.
        classes_source: What these classes belong to, for the error.

    Raises:
        InputError: A video has no label, or several where one is needed, or the classes differ.
    """
    manifest = require_labels(open_test_manifest(data, fold=fold), multi_label=multi_label)
    if classes is not None:
        _check_classes(manifest, classes, str(classes_source))
    return manifest


def open_train_test(
    data: PathOrUrl | str | Path, test_data: PathOrUrl | str | Path | None, *, fold: int = 1, multi_label: bool = False
) -> tuple[Manifest, Manifest]:
    """Open the labelled training videos of a dataset, and its test videos.

    Args:
        test_data: Other videos to test on; None: the dataset's own val split.
        fold: Which of the three official splits of UCF101 and HMDB51.
        multi_label: Videos may have several labels.

    Raises:
        InputError: There is no such split, a video has no label, the classes differ, there is only one class, or a
            class is tested that has no training video.
    """
    train = require_labels(open_manifest(data, split="train", fold=fold), multi_label=multi_label)
    test = open_test_manifest(test_data, fold=fold) if test_data else open_manifest(data, split="val", fold=fold)
    require_labels(test, multi_label=train.multi_label)
    _check_classes(test, train.classes, str(train.source))
    trained, tested = (np.unique(each.rows.list_label_pairs()[1]) for each in (train, test))
    if len(trained) < 2:
        raise InputError(
            f"all videos of {train.source} have the class {train.classes[trained[0]]!r}; give two or more classes"
        )
    if len(missing := np.setdiff1d(tested, trained)):
        raise InputError(
            f"{test.source} has the class {train.classes[missing[0]]!r}, of which {train.source} has no training "
            "video; add some there, or remove the class from the test"
        )
    return train, test


def require_labels(manifest: Manifest, *, multi_label: bool = False) -> Manifest:
    """Return the manifest if every video has a label, and only one unless several are allowed.

    Raises:
        InputError: It has not.
    """
    if manifest.multi_label and not multi_label:
        raise InputError(f"{manifest.source} has videos with several labels; give each video one label")
    if not manifest.classes or manifest.rows.labels.min() < 0:
        raise InputError(
            f"{manifest.source} has no labels ({manifest.description}); give class directories or a list `path label`"
        )
    return manifest


def _check_classes(manifest: Manifest, expected_classes: Sequence[str], expected_source: str) -> None:
    """Raise an InputError unless labels mean the same; numbered classes match any names."""
    names, expected = list(manifest.classes), list(expected_classes)
    is_numbered = names == [str(label) for label in range(len(names))]
    unknown = names[len(expected) :] if is_numbered else [each for each in names if each not in expected]
    if unknown:
        difference = f"the class {unknown[0]!r}, which {expected_source} does not have"
    elif is_numbered or names == expected:
        return
    else:
        difference = f"{len(names)} classes, {expected_source} {len(expected)}"
    raise InputError(f"{manifest.source} has {difference}; give both the same classes, in the same order")
