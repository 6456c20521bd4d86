"""HMDB51: three folds, each with one file per class that assigns its videos: 1 train, 2 test, 0 unused."""

from functools import partial

from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.official.layout import OfficialList, OfficialReader, build_fold_reader, check_fold
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, list_files, read_lines
from vidstill.utils.types import InputError

_LIST_FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits")
_VIDEO_FOLDERS = ("hmdb51_org", "hmdb51", "HMDB51", "videos")
_SPLIT_CODES: dict[str, Split | None] = {"1": "train", "2": "val", "0": None}


def detect_hmdb51(folder: PathOrUrl, root: PathOrUrl | None, fold: int) -> OfficialReader | None:
    """Recognize HMDB51 by its lists in `testTrainMulti_7030_splits`."""
    for name in _LIST_FOLDERS:
        if is_directory(lists := join_path(folder, name)):
            number = check_fold("HMDB51", fold)
            readers = partial(_read_fold, lists, "train", number), partial(_read_fold, lists, "val", number)
            return build_fold_reader("HMDB51", folder, root, _VIDEO_FOLDERS, *readers)
    return None


def _read_fold(lists: PathOrUrl, split: Split, fold: int) -> OfficialList:
    ending = f"_test_split{fold}.txt"
    files = [name for name in list_files(lists) if name.endswith(ending)]
    if not files:
        raise InputError(
            f"{lists} holds no *{ending}, the lists of HMDB51's fold {fold}; download the three splits again"
        )
    videos: list[tuple[tuple[str, ...], int | None]] = []
    for label, name in enumerate(files):
        path = join_path(lists, name)
        for number, line in read_lines(path):
            file, _, part = line.rpartition(" ")
            if not file or part not in _SPLIT_CODES:
                raise InputError(f"line {number} of {path} reads {line!r}, which is not a video and 0, 1 or 2")
            if _SPLIT_CODES[part] == split:
                file = file.strip()
                videos.append(((file.rpartition(".")[0] or file,), label))
    return OfficialList(f"HMDB51 (fold {fold} of 3)", lists, tuple(name.removesuffix(ending) for name in files), videos)
