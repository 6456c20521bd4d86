"""UCF101 and HMDB51: three official folds of a training and a test split each."""

from functools import partial
from typing import Any

from vidstill.data.manifest.manifest import SPLIT_ALIASES, ManifestReader, Split
from vidstill.data.manifest.official.layout import ListedVideo, OfficialList, SplitReaders, open_official_lists
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, is_file, list_files, read_lines
from vidstill.utils.types import InputError

_HMDB51_CODES: dict[str, Split | None] = {"1": "train", "2": "val", "0": None}


def detect_three_folds(folder: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader | None:
    """Recognize UCF101 or HMDB51 by the directory of its lists; their videos are at most two directories deep."""
    for family, has_lists, read_list, list_folders, video_folders in _FAMILIES:
        directories = (join_path(folder, name) for name in list_folders)
        if (lists := next(filter(has_lists, directories), None)) is None:
            continue
        if fold not in (1, 2, 3):
            raise InputError(f"{family} has the folds 1, 2 and 3; fold {fold} is none of them")
        readers: SplitReaders = {split: partial(read_list, lists, fold, split) for split in SPLIT_ALIASES}
        return open_official_lists(family, folder, root, readers, video_folders=video_folders, max_depth=2, num_folds=3)
    return None


def _has_ucf101_classes(lists: PathOrUrl) -> bool:
    return is_file(join_path(lists, "classInd.txt"))


def _read_ucf101(lists: PathOrUrl, fold: int, split: Split) -> OfficialList:
    """Read the `Class/video.avi` lines of a split."""
    classes = _read_ucf101_classes(join_path(lists, "classInd.txt"))
    order = {name: label for label, name in enumerate(classes)}
    path = join_path(lists, f"{'train' if split == 'train' else 'test'}list{fold:02d}.txt")
    if not is_file(path):
        raise InputError(f"{path} does not exist, the list of UCF101's fold {fold}; download the three splits again")
    videos: list[ListedVideo] = []
    for number, line in read_lines(path):
        name, _, class_number = line.partition(" ")  # only the training lists have it
        class_name, _, file = name.partition("/")
        if class_name not in order or not file:
            raise InputError(
                f"line {number} of {path} reads {line!r}, which does not begin with a class of classInd.txt and `/`"
            )
        label = order[class_name]
        if class_number and class_number.strip() != str(label + 1):
            raise InputError(
                f"line {number} of {path} numbers {class_name} {class_number}, and classInd.txt {label + 1}"
            )
        videos.append(((file.rpartition(".")[0] or file,), label))
    return OfficialList(f"UCF101 (fold {fold} of 3)", path, classes, videos)


def _read_ucf101_classes(path: PathOrUrl) -> tuple[str, ...]:
    classes: list[str] = []
    for number, line in read_lines(path):
        count, _, name = line.partition(" ")
        if count != str(len(classes) + 1) or not name:
            raise InputError(f"line {number} of {path} reads {line!r} and should number class {len(classes) + 1}")
        classes.append(name.strip())
    return tuple(classes)


def _read_hmdb51(lists: PathOrUrl, fold: int, split: Split) -> OfficialList:
    """Read the file of each class, which assigns its videos: 1 train, 2 test, 0 unused."""
    ending = f"_test_split{fold}.txt"
    files = [name for name in list_files(lists) if name.endswith(ending)]
    if not files:
        raise InputError(
            f"{lists} holds no *{ending}, the lists of HMDB51's fold {fold}; download the three splits again"
        )
    videos: list[ListedVideo] = []
    for label, name in enumerate(files):
        path = join_path(lists, name)
        for number, line in read_lines(path):
            file, _, code = line.rpartition(" ")
            if not file or code not in _HMDB51_CODES:
                raise InputError(f"line {number} of {path} reads {line!r}, which is not a video and 0, 1 or 2")
            if _HMDB51_CODES[code] == split:
                file = file.strip()
                videos.append(((file.rpartition(".")[0] or file,), label))
    return OfficialList(f"HMDB51 (fold {fold} of 3)", lists, tuple(name.removesuffix(ending) for name in files), videos)


_UCF101_LISTS = (
    *("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist"),
    "UCF101TrainTestSplits-RecognitionTask",
)
_HMDB51_LISTS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits")
_FAMILIES: tuple[Any, ...] = (
    ("UCF101", _has_ucf101_classes, _read_ucf101, _UCF101_LISTS, ("UCF-101", "UCF101", "videos")),
    ("HMDB51", is_directory, _read_hmdb51, _HMDB51_LISTS, ("hmdb51_org", "hmdb51", "HMDB51", "videos")),
)
