"""UCF101: three folds, each with a list of `Class/video.avi` lines for training and one for testing."""

from functools import partial

from vidstill.data.manifest.official.layout import OfficialList, OfficialReader, build_fold_reader, check_fold
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_file, read_lines
from vidstill.utils.types import InputError

_LIST_FOLDERS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")
_VIDEO_FOLDERS = ("UCF-101", "UCF101", "videos")


def detect_ucf101(folder: PathOrUrl, root: PathOrUrl | None, fold: int) -> OfficialReader | None:
    """Recognize UCF101 by its lists in `ucfTrainTestlist`."""
    for name in (*_LIST_FOLDERS, "UCF101TrainTestSplits-RecognitionTask"):
        lists = join_path(folder, name)
        if is_file(join_path(lists, "classInd.txt")):
            number = check_fold("UCF101", fold)
            train, test = (join_path(lists, f"{part}list{number:02d}.txt") for part in ("train", "test"))
            readers = partial(_read_list, lists, train, number), partial(_read_list, lists, test, number)
            return build_fold_reader("UCF101", folder, root, _VIDEO_FOLDERS, *readers)
    return None


def _read_list(lists: PathOrUrl, path: PathOrUrl, fold: int) -> OfficialList:
    classes = _read_classes(join_path(lists, "classInd.txt"))
    order = {name: label for label, name in enumerate(classes)}
    if not is_file(path):
        raise InputError(f"{path} does not exist, the list of UCF101's fold {fold}; download the three splits again")
    videos: list[tuple[tuple[str, ...], int | None]] = []
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


def _read_classes(path: PathOrUrl) -> tuple[str, ...]:
    classes: list[str] = []
    for number, line in read_lines(path):
        count, _, name = line.partition(" ")
        if count != str(len(classes) + 1) or not name:
            raise InputError(f"line {number} of {path} reads {line!r} and should number class {len(classes) + 1}")
        classes.append(name.strip())
    return tuple(classes)
