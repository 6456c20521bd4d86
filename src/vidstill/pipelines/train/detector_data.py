"""Where and how a detector's recipe runs, and whose boxes its test asks about."""

from dataclasses import dataclass

from vidstill.data.ava.dataset import BoxData, BoxSplit, find_boxes
from vidstill.data.ava.keyframes import KeyFrames
from vidstill.data.storage.fetch import Place, place_of
from vidstill.pipelines.train.session import AnyLaunch

ANNOTATED = "annotated"
"""In place of a file of persons' boxes: those that are annotated."""


@dataclass(frozen=True, kw_only=True)
class DetectLaunch(AnyLaunch):
    """Where and how a detector's recipe runs.

    Args:
        data: a folder with `annotations` in AVA's formats and videos beside them: AVA's own, or one's own.
        persons: boxes that a detector of persons found in the test's key frames, which are asked about; None: the file
            that the data have; annotated: the annotated boxes themselves, which is an easier test.
        train_persons: boxes that one found in the training's, for recipes that learn from them too; None: the data's.
        actions: a list of the actions; None: the data's.
        start: the second of the annotations' time at which the videos' files begin; None: it is found.
        frame_rate: frames per second, where videos are folders of frames.
    """

    persons: str | None = None
    train_persons: str | None = None
    actions: str | None = None
    start: float | None = None
    frame_rate: float = 30.0

    def find(self) -> BoxData:
        """
        Raises:
            InputError: the folder holds no such data.
        """
        return find_boxes(
            place_of(str(self.data)), actions=place_or_none(self.actions), start=self.start, rate=self.frame_rate
        )


def boxes_to_ask(split: BoxSplit, threshold: float, persons: str | None) -> KeyFrames:
    """The key frames of a test.

    Args:
        threshold: a detector's boxes with this score or more are asked about.
        persons: as DetectLaunch has it.

    Raises:
        InputError: there are no such boxes.
    """
    if persons == ANNOTATED:
        return split.to_test(threshold, annotated=True)
    return split.to_test(threshold, persons=place_or_none(persons))


def place_or_none(text: str | None) -> Place | None:
    return None if text is None else place_of(text)
