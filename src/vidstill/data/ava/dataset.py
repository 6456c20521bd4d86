"""Finds the files of a data set of boxes in a folder, AVA's own or one's own, and says what it took them for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from vidstill.data.ava.annotation_files import BoxFiles, ava_files, own_files
from vidstill.data.ava.box_table import BoxRows, read_moments
from vidstill.data.ava.clip_reader import Film
from vidstill.data.ava.keyframes import KeyFrames, PersonBoxes, frames_to_test, frames_to_train
from vidstill.data.ava.label_map import Actions
from vidstill.data.ava.proposals import Persons, read_annotations, read_persons
from vidstill.data.ava.video_files import Films, films_of
from vidstill.data.manifest.manifest import Split
from vidstill.data.storage.fetch import Place
from vidstill.data.storage.filesystem import is_folder, last_name, look_again
from vidstill.utils.text import counted
from vidstill.utils.types import InputError, within


@dataclass(frozen=True)
class BoxData:
    """A data set of boxes, as it lies in a folder.

    Args:
        name: "AVA v2.2", say; "" for one's own.
        seconds: those that have key frames; None: any.
        start: the second of the annotations' time at which the videos' files begin; None: it is found.
        rate: frames per second of folders of frames.
        kind: in words, what the folder was taken for.
    """

    folder: Place
    name: str
    files: Mapping[Split, BoxFiles]
    actions: Actions
    seconds: Collection[int] | None
    start: float | None
    rate: float
    kind: str

    def annotations(self, split: Split) -> "Annotations":
        """What is annotated in a split, whether its videos are there or not.

        Raises:
            InputError: it is not there, or a row of it cannot be read.
        """
        if split not in self.files:
            raise InputError(
                f"{self.folder} has no boxes of a {split} split, only of {' and '.join(self.files)}; "
                f"add {'ava_' + split + '_v2.2.csv' if self.name else f'annotations/{split}.csv'}"
            )
        files = self.files[split]
        rows = read_annotations(files.annotated)
        if not len(rows):
            raise InputError(f"{files.annotated} has no rows; give one for each box and action")
        return Annotations(rows, frozenset(read_moments(files.excluded)) if files.excluded else frozenset())

    def split(self, split: Split) -> "BoxSplit":
        """A split, its annotations read and its videos found.

        Raises:
            InputError: it is not there, a row of it cannot be read, or a video of one's own is missing.
        """
        rows, excluded = self.annotations(split)
        films = films_of(
            rows,
            self.folder,
            official=bool(self.name),
            start=self.start,
            rate=self.rate,
            frame_list=self.files[split].frame_list,
        )
        return BoxSplit(self, split, self.files[split], rows, films, excluded)


class Annotations(NamedTuple):
    """
    Args:
        excluded: moments that no key frame counts at.
    """

    rows: BoxRows
    excluded: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class BoxSplit:
    """One split of a data set of boxes.

    Args:
        excluded: moments that no key frame counts at.
    """

    data: BoxData
    name: Split
    files: BoxFiles
    annotated: BoxRows
    found: Films
    excluded: frozenset[tuple[str, int]]

    @property
    def films(self) -> tuple[Film, ...]:
        return self.found.films

    @cached_property
    def there(self) -> BoxRows:
        """The annotations of the videos that are there: what a test of these is held against."""
        return self.annotated.of({film.name for film in self.films if film.place is not None})

    @property
    def kind(self) -> str:
        """In words, what was found."""
        found = self.found
        missing = f"{found.missing:,} of {len(found.films):,} videos are" if found.missing else "none of its videos is"
        words = [f"{self.data.kind}, its {self.name} split", f"{missing} missing"]
        if found.cut:
            words.append(f"{counted(found.cut, 'video')} taken for 15 minutes from second 900 on")
        return ", ".join(words)

    def persons(self, path: Place | None = None) -> Persons:
        """What a detector of persons found: in the file that is named, or in the split's own.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        place = path or self.files.persons
        if place is None:
            raise InputError(
                f"{self.data.folder} has no boxes of a detector of persons for its {self.name} split; make them with "
                f"`vidstill detect boxes`, put them there as annotations/{self.name}_persons.csv, or name a file"
            )
        annotated = self.files.annotated
        return read_persons(place, images=annotated if last_name(annotated).endswith(".json") else None)

    def to_train(self, config: PersonBoxes | None, persons: Place | None = None) -> KeyFrames:
        """The key frames that are trained on.

        Args:
            config: how boxes that a detector of persons found join the annotated ones; None: they do not.
            persons: the file of these; None: the split's own.
        """
        found = None if config is None else self.persons(persons)
        return frames_to_train(
            self.annotated,
            self.data.actions,
            self.films,
            persons=found and found.rows,
            config=config,
            seconds=self.data.seconds,
            excluded=self.excluded,
            kind=self.kind + (f", with {found.kind} of {found.rows.source}" if found else ""),
        )

    def to_test(
        self, threshold: float, *, persons: Place | None = None, annotated: bool = False, every: int = 1
    ) -> KeyFrames:
        """The boxes that a test asks about.

        Args:
            threshold: those with this score or more.
            persons: the file of what a detector found; None: the split's own.
            annotated: the annotated boxes instead, all of them: an easier test.
            every: of the seconds, those that this divides.
        """
        found = None if annotated else self.persons(persons)
        return frames_to_test(
            found.rows if found else self.annotated,
            self.data.actions,
            self.films,
            threshold=threshold if found else None,
            every=every,
            seconds=self.data.seconds,
            excluded=self.excluded,
            kind=self.kind + (f", with {found.kind} of {found.rows.source}" if found else ""),
        )


def find_boxes(
    data: Place,
    *,
    actions: Place | None = None,
    start: float | None = None,
    rate: float = 30.0,
) -> BoxData:
    """The data set of boxes that a folder holds.

    AVA's, v2.2 or v2.1, by its official names, in the folder, in `annotations` or in `ava_v2.2` in either; or one's
    own: `annotations/train.csv` and `annotations/val.csv` (or .json, as VideoMAE's detection code has them), and beside
    them `train_excluded_timestamps.csv`, `train_persons.csv`, `included_timestamps.txt` and `actions.pbtxt`. Videos lie
    in `videos` or in the folder itself, or where AVA's copies have them.

    Args:
        actions: a list of them; None: the data's.
        start: the second of the annotations' time at which files and folders of frames begin; None: it is found.
        rate: frames per second of folders of frames.

    Raises:
        InputError: there is no such data, or no list of its actions.
    """
    within(0.001, 1e6, rate=rate)
    look_again(data)
    if not is_folder(data):
        raise InputError(f"{data} is no folder; give one with `annotations` in AVA's formats and videos beside them")
    try:
        found = ava_files(data, actions) or own_files(data, actions)
    except OSError as error:
        raise InputError(f"{error.filename or data} cannot be read ({error.strerror}); make it readable") from error
    kind = found.name or "boxes of one's own"
    return BoxData(data, found.name, found.splits, found.actions, found.seconds, start, rate, kind)
