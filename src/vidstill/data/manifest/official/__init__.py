"""The data sets that papers use, by their official files: which one a folder or a list is."""

from vidstill.data.manifest.manifest import ManifestReader
from vidstill.data.manifest.official import ava, hmdb51, imagenet, kinetics, ssv2, ucf101
from vidstill.data.storage.fetch import PathOrUrl


def detect_official_folder(folder: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader | None:
    """The official data set whose files a folder holds.

    Args:
        root: where the videos are looked for, if not in the folder.
        fold: which of their splits, of UCF101 and HMDB51.
    """
    return (
        kinetics.detect_kinetics(folder, root)
        or ssv2.detect_ssv2(folder, root)
        or ucf101.detect_ucf101(folder, root, fold)
        or hmdb51.detect_hmdb51(folder, root, fold)
        or ava.detect_ava(folder, root)
        or imagenet.detect_imagenet(folder)
    )


def detect_official_list(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """The official data set whose list a file is, where that list can be read without others."""
    return kinetics.detect_kinetics_list(path, root) or ava.detect_ava_list(path, root)
