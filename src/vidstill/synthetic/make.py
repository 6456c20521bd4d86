"""Make a directory of synthetic clips by plain arguments: `vidstill data make`, `vidstill.make_clips`."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vidstill.synthetic.boxes import SyntheticBoxesConfig
from vidstill.synthetic.dataset import SyntheticClipsConfig, make_dataset
from vidstill.utils.arguments import check_arguments
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError, StrPath


@check_arguments
def make_clips(
    directory: StrPath,
    *,
    boxes: bool = False,
    train: int | None = None,
    val: int | None = None,
    unlabelled: int | None = None,
    frames: int | None = None,
    seconds: int | None = None,
    size: Sequence[int] | None = None,
    fps: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Path:
    """Draw synthetic clips whose classes differ only in motion, with lists; or, with boxes, clips in AVA's format.

    A clip depends on the seed, its split, its number and the sizes, so a larger data set contains a smaller one.

    Args:
        directory: Where the clips are written; clips that exist are kept.
        boxes: Draw figures that act, alone and with each other, with a box and actions for each figure and second.
        train: Training clips, the classes in turn; None: 600, with boxes 240.
        val: Test clips; None: 300, with boxes 80.
        unlabelled: Clips without labels, for pre-training; None: 1800, with boxes 400.
        frames: Frames per clip; its motion spans all of them; None: 16. Not with boxes.
        seconds: Seconds per clip with boxes; None: 6.
        size: Rows and columns in pixels, both even; None: 64 and 64, with boxes 64 and 96.
        fps: Frames per second; None: 8.
        classes: Motions to draw; None: all. Not with boxes, whose clips have all actions.
        seed: Random seed.

    Returns:
        The directory: `train.csv`, `val.csv` and `unlabelled.txt` name the clips; the directory itself is a data set.

    Raises:
        InputError: Clips cannot be made so, or the directory holds something else.
    """
    options: dict[str, Any] = {"train": train, "val": val, "unlabelled": unlabelled, "fps": fps, "frames": frames}
    options |= {"seconds": seconds, "size": size and tuple(size), "classes": classes and tuple(classes)}
    settings = {name: value for name, value in options.items() if value is not None}
    config_class = SyntheticBoxesConfig if boxes else SyntheticClipsConfig
    if unusable := [f"--{name}" for name in settings if name not in {each.name for each in fields(config_class)}]:
        hint = "with --boxes; --seconds" if boxes else "without --boxes; --frames"
        raise InputError(f"{' and '.join(unusable)} cannot be given {hint} sets the length of a clip")
    with show_progress_bar("clips") as progress:
        return make_dataset(Path(directory), config_class(seed=seed, **settings), progress=progress)
