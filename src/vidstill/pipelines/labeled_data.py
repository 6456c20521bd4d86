"""Labelled videos to train and test on, checked before the work: every video has a label, and the classes agree."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidstill.data.manifest.hold_out import SplitBy, hold_out, identify_files, list_missing_classes, read_groups
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import list_splits, open_manifest, open_test_manifest
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.types import InputError


class LabeledSplits(NamedTuple):
    """The labelled videos of a dataset."""

    train: Manifest
    validation: Manifest  # scored while training; the test set itself where there are no others
    test: Manifest


def open_labeled_test(
    data: PathOrUrl | str | Path,
    *,
    fold: int = 1,
    multi_label: bool = False,
    allow_train: bool = False,
    classes: Sequence[str] | None = None,
    classes_source: object = "",
) -> Manifest:
    """Open the labelled videos of a test: the val split, or all videos of a dataset without splits.

    Args:
        fold: Which of the three official splits of UCF101 and HMDB51.
        multi_label: Videos may have several labels.
        allow_train: Open the train split of a dataset that has no other, of which a part may have been held out.
        classes: The class names that the labels must refer to; None: any.
        classes_source: What these classes belong to, for the error.

    Raises:
        InputError: A video has no label, or several where one is needed, or the classes differ.
    """
    open_test = open_manifest if allow_train and list_splits(data) == ("train",) else open_test_manifest
    manifest = require_labels(open_test(data, fold=fold), multi_label=multi_label)
    if classes is not None:
        _check_classes(manifest, classes, str(classes_source))
    return manifest


def open_labeled_splits(
    data: PathOrUrl | str | Path,
    *,
    test_data: PathOrUrl | str | Path | None = None,
    val_data: PathOrUrl | str | Path | None = None,
    val_share: float | None = None,
    fold: int = 1,
    multi_label: bool = False,
) -> LabeledSplits:
    """Open the labelled videos of a dataset: those to train on, to validate on, and to test on.

    The test set is `test_data`, or the dataset's val split, or what `val_share` holds out. The validation set is
    `val_data`, or what `val_share` holds out, or a val split that is not the test set, or else the test set.

    Args:
        test_data: Other videos to test on; their val split if they have splits.
        val_data: Other videos to validate on; their val split if they have splits.
        val_share: Share of the training videos that is held out, in (0, 1), as `hold_out` does.
        fold: Which of the three official splits of UCF101 and HMDB51.
        multi_label: Videos may have several labels.

    Raises:
        InputError: There are no videos to test on but training videos, a video has no label, the classes differ, there
            is only one class, or a class is tested that has no training video.
    """
    splits = list_splits(data)
    train = require_labels(open_manifest(data, split="train", fold=fold), multi_label=multi_label)
    own_val = open_manifest(data, split="val", fold=fold) if "val" in splits else None
    held_out = None
    if val_share is not None:
        train, held_out = _hold_out_labeled(train, val_share)
    test = open_test_manifest(test_data, fold=fold) if test_data else own_val or held_out
    if test is None:
        raise InputError(
            f"{data} has no val split and would be tested on its training {train.noun}s; hold out a share of them with "
            f"--val-share 0.2, or whole persons or places: {_describe_group_split(train, data)}"
        )
    validation = open_test_manifest(val_data, fold=fold) if val_data else held_out or own_val or test
    for other in {id(each): each for each in (test, validation)}.values():
        require_labels(other, multi_label=train.multi_label)
        _check_classes(other, train.classes, str(train.source))
        _check_trained(train, other)
    _check_not_shared(train, test)
    return LabeledSplits(train, validation, test)


def select_held_out(test: Manifest, run: Mapping[str, Any]) -> tuple[Manifest, int]:
    """Return the part of the tested videos that a run held out, if it did, and how many of them it was trained on.

    Args:
        run: The content of the run's `recipe.json`.

    Returns:
        The videos, and the number of training videos among them: 0 where the training set cannot be read any more.
    """
    share, data = run.get("val_share"), run["data"]
    if test.fingerprint == data["test"]["fingerprint"]:
        return test, 0  # the run has made sure that it was trained on none of them
    with suppress(InputError):
        if share and (held_out := _hold_out_labeled(test, share)[1]).fingerprint == data["test"]["fingerprint"]:
            return held_out, 0
    if test.fingerprint == data["train"]["fingerprint"]:
        return test, len(test)
    with suppress(InputError):
        for fold in (1, 2, 3):
            train = require_labels(open_manifest(data["train"]["source"], split="train", fold=fold), multi_label=True)
            train = _hold_out_labeled(train, share)[0] if share else train
            if train.fingerprint == data["train"]["fingerprint"]:
                return test, len(list_shared_rows(train, test))
    return test, 0


def require_labels(manifest: Manifest, *, multi_label: bool = False) -> Manifest:
    """Return the manifest if every video has a label, and only one unless several are allowed.

    Raises:
        InputError: It has not.
    """
    if manifest.multi_label and not multi_label:
        raise InputError(f"{manifest.source} has {manifest.noun}s with several labels; give each one label")
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


def _check_trained(train: Manifest, test: Manifest) -> None:
    """Raise an InputError if there is a single class, or one is tested that has no training video."""
    trained, tested = (np.unique(each.rows.list_label_pairs()[1]) for each in (train, test))
    if len(trained) < 2:
        only = train.classes[trained[0]]
        raise InputError(f"all {train.noun}s of {train.source} have the class {only!r}; give two or more classes")
    if len(missing := np.setdiff1d(tested, trained)):
        raise InputError(
            f"{test.source} has the class {train.classes[missing[0]]!r}, of which {train.source} has no training "
            f"{train.noun}; add some there, or remove the class from the test"
        )


def _check_not_shared(train: Manifest, test: Manifest) -> None:
    """Raise an InputError if a video is in both."""
    if shared := list_shared_rows(train, test):
        raise InputError(
            f"{len(shared)} of the {len(test)} {test.noun}s of {test.source} are training {test.noun}s too, first "
            f"{test.rows.get_name(shared[0])}; test on others: hold some out with --val-share 0.2, or whole persons "
            f"or places: {_describe_group_split(train, train.source)}"
        )


def _describe_group_split(train: Manifest, data: object) -> str:
    """Return the command that splits by group, and what it needs first where the dataset states no groups."""
    if read_groups(train.rows) is not None:
        return f"vidstill data split {data} --out DIR --by group"
    return "list them in a table with a column `group`, then vidstill data split TABLE --out DIR --by group"


def list_shared_rows(train: Manifest, test: Manifest) -> list[int]:
    """Return the rows of the test set whose files are in the training set."""
    sizes, test_sizes = (each.rows.column("file_size") for each in (train, test))
    trained = set(identify_files(train.rows.select(np.isin(sizes, test_sizes))))  # others cannot be the same file
    return [index for index, file in enumerate(identify_files(test.rows)) if file in trained]


def _hold_out_labeled(manifest: Manifest, share: float) -> tuple[Manifest, Manifest]:
    """Hold out a share of the videos, whole groups where the dataset states them.

    Raises:
        InputError: A class would be on one side only.
    """
    by: SplitBy = "clip" if read_groups(manifest.rows) is None else "group"
    train, held_out = hold_out(manifest, share, by=by)
    if missing := list_missing_classes(train, held_out):
        raise InputError(
            f"the class {missing[0]!r} of {manifest.source} has too few {manifest.noun if by == 'clip' else by}s to be "
            "on both sides of --val-share; add some, or test on others with --test-data"
        )
    return train, held_out
