"""Where and how a detector's recipe runs, and whose boxes its test asks about."""

from dataclasses import dataclass

from vidstill.data.ava.dataset import BoxDataset, BoxSplit, open_box_dataset
from vidstill.data.ava.keyframes import Keyframes
from vidstill.data.storage.fetch import PathOrUrl, parse_path
from vidstill.pipelines.train.session import BaseRunConfig

ANNOTATED_BOXES = "annotated"
"""In place of a file of persons' boxes: those that are annotated."""


@dataclass(frozen=True, kw_only=True)
class DetectRunConfig(BaseRunConfig):
    """Where and how a detector's recipe runs.

    Args:
        data: a folder with `annotations` in AVA's formats and videos beside them: AVA's own, or one's own.
        person_boxes: boxes that a detector of persons found in the test's key frames, which are asked about; None: the file
            that the data have; annotated: the annotated boxes themselves, which is an easier test.
        train_person_boxes: boxes that one found in the training's, for recipes that learn from them too; None: the data's.
        actions: a list of the actions; None: the data's.
        start_second: the second of the annotations' time at which the videos' files begin; None: it is found.
        frame_rate: frames per second, where videos are folders of frames.
    """

    person_boxes: str | None = None
    train_person_boxes: str | None = None
    actions: str | None = None
    start_second: float | None = None
    frame_rate: float = 30.0

    def open_dataset(self) -> BoxDataset:
        """
        Raises:
            InputError: the folder holds no such data.
        """
        return open_box_dataset(
            parse_path(str(self.data)),
            label_map_path=parse_optional_path(self.actions),
            start_second=self.start_second,
            frame_rate=self.frame_rate,
        )


def select_test_keyframes(split: BoxSplit, min_person_score: float, person_boxes: str | None) -> Keyframes:
    """The key frames of a test.

    Args:
        min_person_score: a detector's boxes with this score or more are asked about.
        person_boxes: as DetectLaunch has it.

    Raises:
        InputError: there are no such boxes.
    """
    if person_boxes == ANNOTATED_BOXES:
        return split.load_test_keyframes(min_person_score, use_annotations=True)
    return split.load_test_keyframes(min_person_score, person_boxes_path=parse_optional_path(person_boxes))


def parse_optional_path(text: str | None) -> PathOrUrl | None:
    return None if text is None else parse_path(text)
