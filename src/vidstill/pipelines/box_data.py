"""Which data set with boxes a command works on, and whose boxes its test scores."""

from dataclasses import dataclass
from pathlib import Path

from vidstill.data.ava.dataset import BoxDataset, BoxSplit, open_box_dataset
from vidstill.data.ava.keyframes import Keyframes
from vidstill.data.storage.fetch import PathOrUrl, parse_path

ANNOTATED_BOXES = "annotated"
"""In place of a file of person boxes: the annotated boxes."""


@dataclass(frozen=True, kw_only=True)
class BoxDataConfig:
    """A data set with boxes and the person boxes to test on.

    Args:
        data: Directory with `annotations` in AVA's formats and the videos beside it: AVA itself, or your own data.
        person_boxes: File of detected person boxes in the test's key frames; None: the file that the data set has;
            annotated: the annotated boxes themselves, which is an easier test.
        actions: File with the list of actions; None: the data set's own.
        start_second: Second of the annotations' time at which the video files begin; None: it is inferred.
        fps: Frames per second of videos that are directories of frames.
    """

    data: str | Path
    person_boxes: str | None = None
    actions: str | None = None
    start_second: float | None = None
    fps: float = 30.0

    def open_dataset(self) -> BoxDataset:
        """Open the data set.

        Raises:
            InputError: The directory holds no such data.
        """
        return open_box_dataset(
            parse_path(str(self.data)),
            label_map_path=parse_optional_path(self.actions),
            start_second=self.start_second,
            frame_rate=self.fps,
        )

    def select_test_keyframes(self, split: BoxSplit, min_person_score: float) -> Keyframes:
        """Return the key frames of a test.

        Args:
            split: The split to test on.
            min_person_score: Detected boxes with a lower score are left out.

        Raises:
            InputError: There are no such boxes.
        """
        if self.person_boxes == ANNOTATED_BOXES:
            return split.load_test_keyframes(min_person_score, use_annotations=True)
        return split.load_test_keyframes(min_person_score, person_boxes_path=parse_optional_path(self.person_boxes))


def parse_optional_path(text: str | None) -> PathOrUrl | None:
    return None if text is None else parse_path(text)
