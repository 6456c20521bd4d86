"""Official datasets, recognized by their annotation files."""

from vidstill.data.manifest.manifest import ManifestReader
from vidstill.data.manifest.official import ava, imagenet, kinetics, ssv2, three_folds
from vidstill.data.storage.fetch import PathOrUrl


def detect_official_folder(folder: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader | None:
    """Return the official dataset whose files a directory holds.

    Args:
        root: Where the videos are, if not in the directory.
        fold: Which of the three official splits, of UCF101 and HMDB51.
    """
    return (
        kinetics.detect_kinetics(folder, root)
        or ssv2.detect_ssv2(folder, root)
        or three_folds.detect_ucf101(folder, root, fold)
        or three_folds.detect_hmdb51(folder, root, fold)
        or ava.detect_ava(folder, root)
        or imagenet.detect_imagenet(folder)
    )


def detect_official_list(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Return the official dataset of a list that can be read without others."""
    return kinetics.detect_kinetics_list(path, root) or ava.detect_ava_list(path, root)
