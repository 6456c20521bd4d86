"""The data sets that papers use, by their official files: which one a folder or a list is."""

from vidstill.data.manifest.manifest import DataSet
from vidstill.data.manifest.official import ava, hmdb51, imagenet, kinetics, ssv2, ucf101
from vidstill.data.storage.fetch import Place


def official_folder(folder: Place, root: Place | None, fold: int) -> DataSet | None:
    """The official data set whose files a folder holds.

    Args:
        root: where the videos are looked for, if not in the folder.
        fold: which of their splits, of UCF101 and HMDB51.
    """
    return (
        kinetics.found(folder, root)
        or ssv2.found(folder, root)
        or ucf101.found(folder, root, fold)
        or hmdb51.found(folder, root, fold)
        or ava.found(folder, root)
        or imagenet.found(folder)
    )


def official_list(path: Place, root: Place | None) -> DataSet | None:
    """The official data set whose list a file is, where that list can be read without others."""
    return kinetics.found_as(path, root) or ava.found_as(path, root)
