"""By which names the files of a data set of boxes are found: AVA's official ones, those of code for it, one's own."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vidstill.data.ava.box_table import read_seconds
from vidstill.data.ava.label_map import Actions, read_actions, with_evaluated
from vidstill.data.manifest.manifest import SPLIT_NAMES, Split
from vidstill.data.manifest.official.layout import beside
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import files_in, folders_in, is_file, is_folder
from vidstill.utils.types import InputError

AVA_SECONDS = range(902, 1799)
"""Those of AVA's films that have key frames."""

AVA_EVALUATED = frozenset(  # of its actions 1 to 80, those with 25 boxes or more in the val split
    {1, *range(3, 16), 17, 20, 22, 24, *range(26, 31), 34, 36, 37, 38, 41, 43, *range(45, 50), 51, 52, 54}
    | {*range(56, 71), 72, 73, 74, *range(76, 81)}
)

_VERSIONS = ("2.2", "2.1")
_PERSONS = (".csv", ".json", ".pkl", ".pickle", ".npz")


@dataclass(frozen=True)
class BoxFiles:
    """A split's files; None: it has none."""

    annotated: Place
    excluded: Place | None = None
    persons: Place | None = None
    frame_list: Place | None = None


@dataclass(frozen=True)
class FoundFiles:
    """
    Args:
        name: "AVA v2.2", say; "" for one's own.
        seconds: those that have key frames; None: any.
    """

    name: str
    splits: Mapping[Split, BoxFiles]
    actions: Actions
    seconds: Collection[int] | None


def ava_files(data: Place, actions: Place | None) -> FoundFiles | None:
    """AVA's, the newer version where both are there."""
    places = [each for place in beside(data) for each in (place, *(below(place, f"ava_v{v}") for v in _VERSIONS))]
    for version in _VERSIONS:
        for place in filter(is_folder, places):
            splits = {split: files for split in SPLIT_NAMES if (files := _ava_split(data, place, split, version))}
            if splits:
                seconds = _first(place, [f"ava_included_timestamps_v{version}.txt"])
                listed = _ava_actions(place, version) if actions is None else read_actions(actions)
                return FoundFiles(f"AVA v{version}", splits, listed, read_seconds(seconds) if seconds else AVA_SECONDS)
    return None


def own_files(data: Place, actions: Place | None) -> FoundFiles:
    """One's own, in `annotations`.

    Raises:
        InputError: there are none, or no list of the actions.
    """
    place = below(data, "annotations")
    splits = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            annotated = _first(place, [f"{name}.csv", f"{name}.json"])
            if annotated is not None and split not in splits:
                splits[split] = BoxFiles(
                    annotated,
                    _first(place, [f"{name}_excluded_timestamps.csv"]),
                    _first(place, [f"{name}_persons{suffix}" for suffix in _PERSONS]),
                    _first(below(data, "frame_lists"), [f"{name}.csv"]),
                )
    if not splits:
        raise InputError(
            f"{data} has no boxes: neither AVA's files (ava_train_v2.2.csv) nor annotations/train.csv or "
            "annotations/val.csv with rows `video,second,x1,y1,x2,y2,action,person`; give a folder that has"
        )
    listed = actions or _first(place, ["actions.pbtxt", "actions.csv", "actions.txt"])
    if listed is None:
        raise InputError(
            f"{place} has no list of actions; add actions.csv, a line `number,name` for each, or name a list"
        )
    seconds = _first(place, ["included_timestamps.txt"])
    return FoundFiles("", splits, read_actions(listed), read_seconds(seconds) if seconds else None)


def _ava_split(data: Place, place: Place, split: Split, version: str) -> BoxFiles | None:
    annotated = _first(place, [f"ava_{split}_v{version}{end}" for end in (".csv", ".json", "_min.json")])
    if annotated is None:
        return None
    excluded = _first(place, [f"ava_{split}_excluded_timestamps_v{version}.csv"])
    frame_list = _first(below(data, "frame_lists"), [f"{split}.csv"])
    return BoxFiles(annotated, excluded, _ava_persons((place, *beside(data)), split, version), frame_list)


def _ava_persons(places: Iterable[Place], split: Split, version: str) -> Place | None:
    """What a published detector found: in these folders, or in `boxes` and `person_box…` in them."""
    known = re.compile(
        rf"ava_{split}_predicted_boxes\.csv|ava_detection_{split}_boxes_and_labels.*\.csv|"
        rf"ava_{split}_det_person_bbox.*\.json|ava_dense_proposals_{split}\..*\.pkl"
    )
    for place in places:
        inside = [name for name in reversed(folders_in(place)) if name == "boxes" or name.startswith("person_box")]
        for folder in (place, *(below(place, name) for name in inside)):  # of those of several thresholds the highest
            names = [name for name in files_in(folder) if known.fullmatch(name)]
            if names:
                return below(folder, min(names, key=lambda name: (f"v{version}" not in name, name)))
    return None


def _ava_actions(place: Place, version: str) -> Actions:
    """All 80, of which those are evaluated that a list for evaluation names."""
    every = _first(place, [f"ava_action_list_v{version}.pbtxt"])
    some = _first(place, [f"ava_action_list_v{version}_for_activitynet_{year}.pbtxt" for year in (2019, 2018)])
    if some is None:
        if every is None:
            raise InputError(
                f"{place} has no list of AVA's actions; put ava_action_list_v{version}.pbtxt there, or name a list"
            )
        return Actions(read_actions(every).names, AVA_EVALUATED)
    evaluated = read_actions(some)
    if every is None:  # a model has scores for all
        return Actions({n: evaluated.names.get(n, f"action {n}") for n in range(1, 81)}, evaluated.evaluated)
    return with_evaluated(read_actions(every), evaluated)


def _first(place: Place, names: Iterable[str]) -> Place | None:
    """Of these files the first that is there."""
    return next((path for name in names if is_file(path := below(place, name))), None)
