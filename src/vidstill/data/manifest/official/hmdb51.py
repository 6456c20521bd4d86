"""HMDB51: three splits, each with a file for each class that says what a video is for: 1 train, 2 test, 0 nothing."""

from functools import partial

from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.official.layout import Named, Official, checked_fold
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import files_in, is_folder, lines_of
from vidstill.utils.types import InputError

_LISTS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits")
_WITHIN = ("hmdb51_org", "hmdb51", "HMDB51", "videos")
_PART: dict[str, Split | None] = {"1": "train", "2": "val", "0": None}


def found(folder: Place, root: Place | None, fold: int) -> Official | None:
    """HMDB51 by its lists in `testTrainMulti_7030_splits`."""
    for name in _LISTS:
        if is_folder(lists := below(folder, name)):
            number = checked_fold("HMDB51", fold)
            return Official(
                family="HMDB51",
                folder=folder,
                root=root or folder,
                within=_WITHIN,
                depth=2,
                folds=3,
                parts={"train": partial(_read, lists, "train", number), "val": partial(_read, lists, "val", number)},
            )
    return None


def _read(lists: Place, split: Split, fold: int) -> Named:
    ending = f"_test_split{fold}.txt"
    files = [name for name in files_in(lists) if name.endswith(ending)]
    if not files:
        raise InputError(f"{lists} holds no *{ending}, the lists of HMDB51's fold {fold}; fetch the three splits again")
    videos: list[tuple[tuple[str, ...], int | None]] = []
    for label, name in enumerate(files):
        path = below(lists, name)
        for number, line in lines_of(path):
            file, _, part = line.rpartition(" ")
            if not file or part not in _PART:
                raise InputError(f"line {number} of {path} reads {line!r}, which is not a video and 0, 1 or 2")
            if _PART[part] == split:
                file = file.strip()
                videos.append(((file.rpartition(".")[0] or file,), label))
    return Named(f"HMDB51 (fold {fold} of 3)", lists, tuple(name.removesuffix(ending) for name in files), videos)
