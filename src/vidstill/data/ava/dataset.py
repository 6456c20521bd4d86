"""Finds the files of a data set of boxes in a folder, AVA's own or one's own, and says what it took them for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from vidstill.data.ava.annotation_files import AnnotationFiles, find_ava_files, find_custom_files
from vidstill.data.ava.box_table import BoxTable, read_excluded_timestamps
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.keyframes import Keyframes, PersonBoxesConfig, build_test_keyframes, build_train_keyframes
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.ava.proposals import PersonBoxFile, read_annotations, read_person_boxes
from vidstill.data.ava.video_files import VideoSearchResult, find_annotated_videos
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import base_name, invalidate_listing_cache, is_directory
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError, check_range


@dataclass(frozen=True)
class BoxDataset:
    """A data set of boxes, as it lies in a folder.

    Args:
        name: "AVA v2.2", say; "" for one's own.
        keyframe_seconds: those that have key frames; None: any.
        start_second: the second of the annotations' time at which the videos' files begin; None: it is found.
        frame_rate: frames per second of folders of frames.
        description: in words, what the folder was taken for.
    """

    root: PathOrUrl
    name: str
    files: Mapping[Split, AnnotationFiles]
    label_map: LabelMap
    keyframe_seconds: Collection[int] | None
    start_second: float | None
    frame_rate: float
    description: str

    def load_annotations(self, split: Split) -> "SplitAnnotations":
        """What is annotated in a split, whether its videos are there or not.

        Raises:
            InputError: it is not there, or a row of it cannot be read.
        """
        if split not in self.files:
            raise InputError(
                f"{self.root} has no boxes of a {split} split, only of {' and '.join(self.files)}; "
                f"add {'ava_' + split + '_v2.2.csv' if self.name else f'annotations/{split}.csv'}"
            )
        files = self.files[split]
        rows = read_annotations(files.annotations)
        if not len(rows):
            raise InputError(f"{files.annotations} has no rows; give one for each box and action")
        return SplitAnnotations(
            rows,
            frozenset(read_excluded_timestamps(files.excluded_timestamps))
            if files.excluded_timestamps
            else frozenset(),
        )

    def load_split(self, split: Split) -> "BoxSplit":
        """A split, its annotations read and its videos found.

        Raises:
            InputError: it is not there, a row of it cannot be read, or a video of one's own is missing.
        """
        rows, excluded = self.load_annotations(split)
        films = find_annotated_videos(
            rows,
            self.root,
            official=bool(self.name),
            start_second=self.start_second,
            frame_rate=self.frame_rate,
            frame_list=self.files[split].frame_list,
        )
        return BoxSplit(self, split, self.files[split], rows, films, excluded)


class SplitAnnotations(NamedTuple):
    """
    Args:
        excluded_keyframes: moments that no key frame counts at.
    """

    table: BoxTable
    excluded_keyframes: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class BoxSplit:
    """One split of a data set of boxes.

    Args:
        excluded_keyframes: moments that no key frame counts at.
    """

    dataset: BoxDataset
    name: Split
    files: AnnotationFiles
    annotations: BoxTable
    video_search: VideoSearchResult
    excluded_keyframes: frozenset[tuple[str, int]]

    @property
    def videos(self) -> tuple[KeyframeVideo, ...]:
        return self.video_search.videos

    @cached_property
    def available_annotations(self) -> BoxTable:
        """The annotations of the videos that are there: what a test of these is held against."""
        return self.annotations.select_videos({film.name for film in self.videos if film.path is not None})

    @property
    def description(self) -> str:
        """In words, what was found."""
        found = self.video_search
        missing = (
            f"{found.num_missing:,} of {len(found.videos):,} videos are"
            if found.num_missing
            else "none of its videos is"
        )
        words = [f"{self.dataset.description}, its {self.name} split", f"{missing} missing"]
        if found.num_trimmed:
            words.append(f"{pluralize(found.num_trimmed, 'video')} taken for 15 minutes from second 900 on")
        return ", ".join(words)

    def load_person_boxes(self, path: PathOrUrl | None = None) -> PersonBoxFile:
        """What a detector of persons found: in the file that is named, or in the split's own.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        place = path or self.files.person_boxes
        if place is None:
            raise InputError(
                f"{self.dataset.root} has no boxes of a detector of persons for its {self.name} split; make them with "
                f"`vidstill detect boxes`, put them there as annotations/{self.name}_persons.csv, or name a file"
            )
        annotated = self.files.annotations
        return read_person_boxes(place, image_file=annotated if base_name(annotated).endswith(".json") else None)

    def load_train_keyframes(
        self, config: PersonBoxesConfig | None, person_boxes_path: PathOrUrl | None = None
    ) -> Keyframes:
        """The key frames that are trained on.

        Args:
            config: how boxes that a detector of persons found join the annotated ones; None: they do not.
            person_boxes_path: the file of these; None: the split's own.
        """
        found = None if config is None else self.load_person_boxes(person_boxes_path)
        return build_train_keyframes(
            self.annotations,
            self.dataset.label_map,
            self.videos,
            person_boxes=found and found.table,
            config=config,
            keyframe_seconds=self.dataset.keyframe_seconds,
            excluded_keyframes=self.excluded_keyframes,
            description=self.description + (f", with {found.description} of {found.table.source}" if found else ""),
        )

    def load_test_keyframes(
        self,
        min_score: float,
        *,
        person_boxes_path: PathOrUrl | None = None,
        use_annotations: bool = False,
        second_stride: int = 1,
    ) -> Keyframes:
        """The boxes that a test asks about.

        Args:
            min_score: those with this score or more.
            person_boxes_path: the file of what a detector found; None: the split's own.
            use_annotations: the annotated boxes instead, all of them: an easier test.
            second_stride: of the seconds, those that this divides.
        """
        found = None if use_annotations else self.load_person_boxes(person_boxes_path)
        return build_test_keyframes(
            found.table if found else self.annotations,
            self.dataset.label_map,
            self.videos,
            min_score=min_score if found else None,
            second_stride=second_stride,
            keyframe_seconds=self.dataset.keyframe_seconds,
            excluded_keyframes=self.excluded_keyframes,
            description=self.description + (f", with {found.description} of {found.table.source}" if found else ""),
        )


def open_box_dataset(
    data: PathOrUrl,
    *,
    label_map_path: PathOrUrl | None = None,
    start_second: float | None = None,
    frame_rate: float = 30.0,
) -> BoxDataset:
    """The data set of boxes that a folder holds.

    AVA's, v2.2 or v2.1, by its official names, in the folder, in `annotations` or in `ava_v2.2` in either; or one's
    own: `annotations/train.csv` and `annotations/val.csv` (or .json, as VideoMAE's detection code has them), and beside
    them `train_excluded_timestamps.csv`, `train_persons.csv`, `included_timestamps.txt` and `actions.pbtxt`. Videos lie
    in `videos` or in the folder itself, or where AVA's copies have them.

    Args:
        label_map_path: a list of them; None: the data's.
        start_second: the second of the annotations' time at which files and folders of frames begin; None: it is found.
        frame_rate: frames per second of folders of frames.

    Raises:
        InputError: there is no such data, or no list of its actions.
    """
    check_range(0.001, 1e6, frame_rate=frame_rate)
    invalidate_listing_cache(data)
    if not is_directory(data):
        raise InputError(f"{data} is no folder; give one with `annotations` in AVA's formats and videos beside them")
    try:
        found = find_ava_files(data, label_map_path) or find_custom_files(data, label_map_path)
    except OSError as error:
        raise InputError(f"{error.filename or data} cannot be read ({error.strerror}); make it readable") from error
    kind = found.name or "boxes of one's own"
    return BoxDataset(
        data, found.name, found.splits, found.label_map, found.keyframe_seconds, start_second, frame_rate, kind
    )
