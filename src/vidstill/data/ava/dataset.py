"""Opens a dataset of boxes: AVA, by the names of its official files, or one's own."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidstill.data.ava.box_table import BoxTable, read_excluded_timestamps, read_included_timestamps
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.keyframes import KeyframeBuilder, Keyframes, PersonBoxesConfig
from vidstill.data.ava.label_map import LabelMap, find_first, read_ava_label_map, read_custom_label_map, read_label_map
from vidstill.data.ava.proposals import read_annotations, read_person_boxes
from vidstill.data.ava.video_files import (
    TRIMMED_START_SECOND,
    VIDEO_DIRS,
    infer_start_second,
    locate_frames,
    locate_video,
    read_frame_list,
    scan_video_dirs,
)
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Split
from vidstill.data.manifest.official.layout import list_annotation_folders
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import (
    base_name,
    invalidate_listing_cache,
    is_directory,
    list_directories,
    list_files,
)
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError, check_range

AVA_KEYFRAME_SECONDS = range(902, 1799)
"""Seconds of AVA's videos that have key frames."""

_AVA_VERSIONS = ("2.2", "2.1")


@dataclass(frozen=True)
class AnnotationFiles:
    """The files of one split; None if there is no such file."""

    annotations: PathOrUrl
    excluded_timestamps: PathOrUrl | None
    person_boxes: PathOrUrl | None
    frame_list: PathOrUrl | None


@dataclass(frozen=True)
class BoxDataset:
    """A dataset of boxes in a directory."""

    root: PathOrUrl
    name: str  # "AVA v2.2" or "AVA v2.1"; "" for one's own
    files: Mapping[Split, AnnotationFiles]
    label_map: LabelMap
    keyframe_seconds: Collection[int] | None  # seconds that have key frames; None: any
    start_second: float | None  # of the annotations' time, at which video files begin; None: inferred for each video
    frame_rate: float  # of directories of frames

    @property
    def description(self) -> str:
        return self.name or "custom boxes"

    def load_split(self, split: Split) -> "BoxSplit":
        """Read the annotations of a split; an InputError says that it does not exist, or which row cannot be read."""
        if split not in self.files:
            raise InputError(
                f"{self.root} has no boxes of a {split} split, only of {' and '.join(self.files)}; "
                f"add {'ava_' + split + '_v2.2.csv' if self.name else f'annotations/{split}.csv'}"
            )
        files = self.files[split]
        annotations = read_annotations(files.annotations)
        if not len(annotations):
            raise InputError(f"{files.annotations} has no rows; write one for each box and action")
        excluded = read_excluded_timestamps(files.excluded_timestamps) if files.excluded_timestamps else ()
        return BoxSplit(self, split, files, annotations, frozenset(excluded))


@dataclass(frozen=True)
class BoxSplit:
    """One split of a dataset of boxes."""

    dataset: BoxDataset
    name: Split
    files: AnnotationFiles
    annotations: BoxTable  # those of missing videos too
    excluded_keyframes: frozenset[tuple[str, int]]  # neither trained on nor tested

    @cached_property
    def videos(self) -> tuple[KeyframeVideo, ...]:
        """The videos, in the order of the list of frames and then of the annotations.

        A missing one of AVA has no path. For a missing one of one's own, or a missing frame of the list, an InputError
        names the file and the line.
        """
        dataset, table, frame_list = self.dataset, self.annotations, self.files.frame_list
        entries = {} if frame_list is None else read_frame_list(frame_list)
        rows = {name: np.flatnonzero(table.video_index == index) for index, name in enumerate(table.video_names)}
        directories = list(scan_video_dirs(dataset.root))
        videos = []
        for name in dict.fromkeys((*entries, *table.video_names)):
            entry = entries.get(name)
            location = locate_frames(directories, entry, frame_list) if entry else locate_video(directories, name)
            if location is None and not dataset.name:
                row = f"line {entry.first_line if entry else 1} of {frame_list}"
                if name in rows:
                    row = table.describe_row(int(rows[name][0]))
                raise InputError(
                    f"{row} names the video {name!r}, which does not exist: {dataset.root} and its subdirectories "
                    f"{', '.join(filter(None, VIDEO_DIRS))} have neither {name}.mp4 (or another suffix of videos) nor "
                    "a directory of its frames or of its one-second files"
                )
            if location is None:
                videos.append(KeyframeVideo(name, None))
                continue
            start_second = 0.0 if location.format == "seconds" else dataset.start_second
            if start_second is None:
                seconds = table.second[rows.get(name, [])]
                start_second = infer_start_second(location, bool(dataset.name), dataset.frame_rate, seconds)
            videos.append(KeyframeVideo(name, location.path, location.format, start_second, dataset.frame_rate))
        return tuple(videos)

    @cached_property
    def available_annotations(self) -> BoxTable:
        """The annotations of the videos that exist: the ground truth of a test."""
        return self.annotations.select_videos({video.name for video in self.videos if video.path is not None})

    @property
    def description(self) -> str:
        """Split, missing videos and videos taken for AVA's 15 minutes, for logs."""
        missing = sum(video.path is None for video in self.videos)
        trimmed = sum(video.start_second == TRIMMED_START_SECOND for video in self.videos)
        text = f"{self.dataset.description}, {self.name} split, {missing:,} of {len(self.videos):,} videos missing"
        return text + (f", {pluralize(trimmed, 'video')} taken for 15 minutes from second 900" if trimmed else "")

    def load_person_boxes(self, path: PathOrUrl | None = None) -> BoxTable:
        """Read boxes of a person detector, from a given file or the split's own."""
        path = path or self.files.person_boxes
        if path is None:
            raise InputError(
                f"{self.dataset.root} has no boxes of a person detector for its {self.name} split; make them with "
                f"`vidstill detect boxes`, put them there as annotations/{self.name}_persons.csv, or give a file"
            )
        annotations = self.files.annotations
        return read_person_boxes(path, image_file=annotations if base_name(annotations).endswith(".json") else None)

    def load_train_keyframes(
        self, config: PersonBoxesConfig | None, person_boxes_path: PathOrUrl | None = None
    ) -> Keyframes:
        """Build the training set; `config` says how boxes of a given file, or the split's own, join the annotated."""
        person_boxes = None if config is None else self.load_person_boxes(person_boxes_path)
        return self._keyframe_builder(person_boxes).build_train(self.annotations, person_boxes, config)

    def load_test_keyframes(
        self, min_score: float, *, person_boxes_path: PathOrUrl | None = None, use_annotations: bool = False
    ) -> Keyframes:
        """Build the boxes that a test scores.

        Args:
            min_score: Smallest score of a detected box.
            person_boxes_path: File of these boxes; None: the split's own.
            use_annotations: Use all annotated boxes instead, an easier test.
        """
        if use_annotations:
            return self._keyframe_builder(None).build_test(self.annotations, None)
        boxes = self.load_person_boxes(person_boxes_path)
        return self._keyframe_builder(boxes).build_test(boxes, min_score)

    def _keyframe_builder(self, person_boxes: BoxTable | None) -> KeyframeBuilder:
        description = self.description + (f", with {person_boxes.source}" if person_boxes else "")
        dataset = self.dataset
        return KeyframeBuilder(
            dataset.label_map, self.videos, dataset.keyframe_seconds, self.excluded_keyframes, description
        )


def open_box_dataset(
    data: PathOrUrl,
    *,
    label_map_path: PathOrUrl | None = None,
    start_second: float | None = None,
    frame_rate: float = 30.0,
) -> BoxDataset:
    """Open the dataset of boxes in a directory.

    It is AVA v2.2 or v2.1 if its official files are in the directory, in `annotations`, or in `ava_v2.2` in either.
    Otherwise it is one's own: `annotations/train.csv` and `annotations/val.csv` (or .json, as VideoMAE's detection code
    has them), and beside them `train_excluded_timestamps.csv`, `train_persons.csv`, `included_timestamps.txt` and
    `actions.pbtxt`. Videos are in `videos`, in the directory itself, or where copies of AVA have them.

    Args:
        label_map_path: List of actions; None: that of the dataset.
        start_second: Second of the annotations' time at which files and directories of frames begin; None: inferred.
        frame_rate: Frames per second of directories of frames.

    Raises:
        InputError: There is no such dataset, or no list of its actions.
    """
    check_range(0.001, 1e6, frame_rate=frame_rate)
    invalidate_listing_cache(data)
    if not is_directory(data):
        raise InputError(f"{data} is not a directory; give one with `annotations` in AVA's formats and with videos")
    try:
        name, directory, files = next(_find_ava_files(data), ("", join_path(data, "annotations"), {}))
        if not name:
            files = _find_custom_files(data, directory)
        version = name.removeprefix("AVA v")
        if label_map_path is not None:
            label_map = read_label_map(label_map_path)
        else:
            label_map = read_ava_label_map(directory, version) if name else read_custom_label_map(directory)
        timestamps = f"ava_included_timestamps_v{version}.txt" if name else "included_timestamps.txt"
        seconds: Collection[int] | None = AVA_KEYFRAME_SECONDS if name else None
        if path := find_first(directory, [timestamps]):
            seconds = read_included_timestamps(path)
    except OSError as error:
        raise InputError(f"{error.filename or data} cannot be read ({error.strerror}); make it readable") from error
    return BoxDataset(data, name, files, label_map, seconds, start_second, frame_rate)


def _find_ava_files(data: PathOrUrl) -> Iterator[tuple[str, PathOrUrl, dict[Split, AnnotationFiles]]]:
    """Yield name, directory and files of each version of AVA, the newest first."""
    folders = list_annotation_folders(data)
    for version in _AVA_VERSIONS:
        candidates = [
            each for folder in folders for each in (folder, *(join_path(folder, f"ava_v{v}") for v in _AVA_VERSIONS))
        ]
        for directory in filter(is_directory, candidates):
            files = {}
            for split in SPLIT_ALIASES:
                names = [f"ava_{split}_v{version}{suffix}" for suffix in (".csv", ".json", "_min.json")]
                if annotations := find_first(directory, names):
                    excluded = find_first(directory, [f"ava_{split}_excluded_timestamps_v{version}.csv"])
                    person_boxes = _find_ava_person_boxes((directory, *folders), split, version)
                    frame_list = find_first(join_path(data, "frame_lists"), [f"{split}.csv"])
                    files[split] = AnnotationFiles(annotations, excluded, person_boxes, frame_list)
            if files:
                yield f"AVA v{version}", directory, files


def _find_ava_person_boxes(directories: Iterable[PathOrUrl], split: Split, version: str) -> PathOrUrl | None:
    """Find boxes of a published detector, in these directories or in `boxes` or `person_box…` there."""
    pattern = re.compile(
        rf"ava_{split}_predicted_boxes\.csv|ava_detection_{split}_boxes_and_labels.*\.csv|"
        rf"ava_{split}_det_person_bbox.*\.json|ava_dense_proposals_{split}\..*\.pkl"
    )
    for directory in directories:
        subfolders = [name for name in reversed(list_directories(directory)) if re.match(r"boxes$|person_box", name)]
        for folder in (directory, *(join_path(directory, name) for name in subfolders)):  # the highest threshold first
            if names := [name for name in list_files(folder) if pattern.fullmatch(name)]:
                return join_path(folder, min(names, key=lambda name: (f"v{version}" not in name, name)))
    return None


def _find_custom_files(data: PathOrUrl, directory: PathOrUrl) -> dict[Split, AnnotationFiles]:
    files = {}
    for split, aliases in SPLIT_ALIASES.items():
        for name in reversed(aliases):
            if annotations := find_first(directory, [f"{name}.csv", f"{name}.json"]):
                excluded = find_first(directory, [f"{name}_excluded_timestamps.csv"])
                persons = [f"{name}_persons{suffix}" for suffix in (".csv", ".json", ".pkl", ".pickle", ".npz")]
                frame_list = find_first(join_path(data, "frame_lists"), [f"{name}.csv"])
                files[split] = AnnotationFiles(annotations, excluded, find_first(directory, persons), frame_list)
    if not files:
        raise InputError(
            f"{data} has no boxes: neither AVA's files (ava_train_v2.2.csv) nor annotations/train.csv or "
            "annotations/val.csv with rows `video,second,x1,y1,x2,y2,action,person`; give a directory that has"
        )
    return files
