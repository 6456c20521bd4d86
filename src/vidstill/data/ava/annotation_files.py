"""By which names the files of a data set of boxes are found: AVA's official ones, those of code for it, one's own."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vidstill.data.ava.box_table import read_included_timestamps
from vidstill.data.ava.label_map import LabelMap, read_label_map, set_evaluated_actions
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Split
from vidstill.data.manifest.official.layout import list_annotation_folders
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, is_file, list_directories, list_files
from vidstill.utils.types import InputError

AVA_KEYFRAME_SECONDS = range(902, 1799)
"""Those of AVA's films that have key frames."""

AVA_EVALUATED_IDS = frozenset(  # of its actions 1 to 80, those with 25 boxes or more in the val split
    {1, *range(3, 16), 17, 20, 22, 24, *range(26, 31), 34, 36, 37, 38, 41, 43, *range(45, 50), 51, 52, 54}
    | {*range(56, 71), 72, 73, 74, *range(76, 81)}
)

_AVA_VERSIONS = ("2.2", "2.1")
_PERSON_BOX_SUFFIXES = (".csv", ".json", ".pkl", ".pickle", ".npz")


@dataclass(frozen=True)
class AnnotationFiles:
    """A split's files; None: it has none."""

    annotations: PathOrUrl
    excluded_timestamps: PathOrUrl | None = None
    person_boxes: PathOrUrl | None = None
    frame_list: PathOrUrl | None = None


@dataclass(frozen=True)
class BoxDatasetFiles:
    """
    Args:
        name: "AVA v2.2", say; "" for one's own.
        keyframe_seconds: those that have key frames; None: any.
    """

    name: str
    splits: Mapping[Split, AnnotationFiles]
    label_map: LabelMap
    keyframe_seconds: Collection[int] | None


def find_ava_files(data: PathOrUrl, label_map_path: PathOrUrl | None) -> BoxDatasetFiles | None:
    """AVA's, the newer version where both are there."""
    places = [
        each
        for place in list_annotation_folders(data)
        for each in (place, *(join_path(place, f"ava_v{v}") for v in _AVA_VERSIONS))
    ]
    for version in _AVA_VERSIONS:
        for place in filter(is_directory, places):
            splits = {
                split: files for split in SPLIT_ALIASES if (files := _find_ava_split(data, place, split, version))
            }
            if splits:
                seconds = _find_first_file(place, [f"ava_included_timestamps_v{version}.txt"])
                listed = (
                    _read_ava_label_map(place, version) if label_map_path is None else read_label_map(label_map_path)
                )
                return BoxDatasetFiles(
                    f"AVA v{version}",
                    splits,
                    listed,
                    read_included_timestamps(seconds) if seconds else AVA_KEYFRAME_SECONDS,
                )
    return None


def find_custom_files(data: PathOrUrl, label_map_path: PathOrUrl | None) -> BoxDatasetFiles:
    """One's own, in `annotations`.

    Raises:
        InputError: there are none, or no list of the actions.
    """
    place = join_path(data, "annotations")
    splits = {}
    for split, names in SPLIT_ALIASES.items():
        for name in names:
            annotated = _find_first_file(place, [f"{name}.csv", f"{name}.json"])
            if annotated is not None and split not in splits:
                splits[split] = AnnotationFiles(
                    annotated,
                    _find_first_file(place, [f"{name}_excluded_timestamps.csv"]),
                    _find_first_file(place, [f"{name}_persons{suffix}" for suffix in _PERSON_BOX_SUFFIXES]),
                    _find_first_file(join_path(data, "frame_lists"), [f"{name}.csv"]),
                )
    if not splits:
        raise InputError(
            f"{data} has no boxes: neither AVA's files (ava_train_v2.2.csv) nor annotations/train.csv or "
            "annotations/val.csv with rows `video,second,x1,y1,x2,y2,action,person`; give a folder that has"
        )
    listed = label_map_path or _find_first_file(place, ["actions.pbtxt", "actions.csv", "actions.txt"])
    if listed is None:
        raise InputError(
            f"{place} has no list of actions; add actions.csv, a line `number,name` for each, or name a list"
        )
    seconds = _find_first_file(place, ["included_timestamps.txt"])
    return BoxDatasetFiles("", splits, read_label_map(listed), read_included_timestamps(seconds) if seconds else None)


def _find_ava_split(data: PathOrUrl, place: PathOrUrl, split: Split, version: str) -> AnnotationFiles | None:
    annotated = _find_first_file(place, [f"ava_{split}_v{version}{end}" for end in (".csv", ".json", "_min.json")])
    if annotated is None:
        return None
    excluded = _find_first_file(place, [f"ava_{split}_excluded_timestamps_v{version}.csv"])
    frame_list = _find_first_file(join_path(data, "frame_lists"), [f"{split}.csv"])
    return AnnotationFiles(
        annotated, excluded, _find_ava_person_boxes((place, *list_annotation_folders(data)), split, version), frame_list
    )


def _find_ava_person_boxes(places: Iterable[PathOrUrl], split: Split, version: str) -> PathOrUrl | None:
    """What a published detector found: in these folders, or in `boxes` and `person_box…` in them."""
    known = re.compile(
        rf"ava_{split}_predicted_boxes\.csv|ava_detection_{split}_boxes_and_labels.*\.csv|"
        rf"ava_{split}_det_person_bbox.*\.json|ava_dense_proposals_{split}\..*\.pkl"
    )
    for place in places:
        inside = [
            name for name in reversed(list_directories(place)) if name == "boxes" or name.startswith("person_box")
        ]
        for folder in (
            place,
            *(join_path(place, name) for name in inside),
        ):  # of those of several thresholds the highest
            names = [name for name in list_files(folder) if known.fullmatch(name)]
            if names:
                return join_path(folder, min(names, key=lambda name: (f"v{version}" not in name, name)))
    return None


def _read_ava_label_map(place: PathOrUrl, version: str) -> LabelMap:
    """All 80, of which those are evaluated that a list for evaluation names."""
    every = _find_first_file(place, [f"ava_action_list_v{version}.pbtxt"])
    some = _find_first_file(
        place, [f"ava_action_list_v{version}_for_activitynet_{year}.pbtxt" for year in (2019, 2018)]
    )
    if some is None:
        if every is None:
            raise InputError(
                f"{place} has no list of AVA's actions; put ava_action_list_v{version}.pbtxt there, or name a list"
            )
        return LabelMap(read_label_map(every).names, AVA_EVALUATED_IDS)
    evaluated = read_label_map(some)
    if every is None:  # a model has scores for all
        return LabelMap({n: evaluated.names.get(n, f"action {n}") for n in range(1, 81)}, evaluated.evaluated_ids)
    return set_evaluated_actions(read_label_map(every), evaluated)


def _find_first_file(place: PathOrUrl, names: Iterable[str]) -> PathOrUrl | None:
    """Of these files the first that is there."""
    return next((path for name in names if is_file(path := join_path(place, name))), None)
