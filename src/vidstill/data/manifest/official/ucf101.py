"""UCF101: three splits, each a list of `Class/video.avi` lines for training and one for testing."""

from functools import partial

from vidstill.data.manifest.official.layout import Named, Official, checked_fold
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import is_file, lines_of
from vidstill.utils.types import InputError

_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")
_WITHIN = ("UCF-101", "UCF101", "videos")


def found(folder: Place, root: Place | None, fold: int) -> Official | None:
    """UCF101 by its lists in `ucfTrainTestlist`."""
    for name in (*_LISTS, "UCF101TrainTestSplits-RecognitionTask"):
        lists = below(folder, name)
        if is_file(below(lists, "classInd.txt")):
            number = checked_fold("UCF101", fold)
            train, test = (below(lists, f"{part}list{number:02d}.txt") for part in ("train", "test"))
            return Official(
                family="UCF101",
                folder=folder,
                root=root or folder,
                within=_WITHIN,
                depth=2,
                folds=3,
                parts={"train": partial(_read, lists, train, number), "val": partial(_read, lists, test, number)},
            )
    return None


def _read(lists: Place, path: Place, fold: int) -> Named:
    classes = _classes(below(lists, "classInd.txt"))
    order = {name: label for label, name in enumerate(classes)}
    if not is_file(path):
        raise InputError(f"{path} does not exist, the list of UCF101's fold {fold}; fetch the three splits again")
    videos: list[tuple[tuple[str, ...], int | None]] = []
    for number, line in lines_of(path):
        name, _, count = line.partition(" ")  # a class's number stands in the lists for training only
        called, _, file = name.partition("/")
        if called not in order or not file:
            raise InputError(
                f"line {number} of {path} reads {line!r}, which does not begin with a class of classInd.txt and `/`"
            )
        if count and count.strip() != str(order[called] + 1):
            raise InputError(f"line {number} of {path} numbers {called} {count}, and classInd.txt {order[called] + 1}")
        videos.append(((file.rpartition(".")[0] or file,), order[called]))
    return Named(f"UCF101 (fold {fold} of 3)", path, classes, videos)


def _classes(path: Place) -> tuple[str, ...]:
    classes: list[str] = []
    for number, line in lines_of(path):
        count, _, name = line.partition(" ")
        if count != str(len(classes) + 1) or not name:
            raise InputError(f"line {number} of {path} reads {line!r} and should number class {len(classes) + 1}")
        classes.append(name.strip())
    return tuple(classes)
