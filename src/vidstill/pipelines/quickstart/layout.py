"""Where the quickstart's stages write, and on which clips they work."""

from dataclasses import dataclass
from pathlib import Path

from vidstill.checkpoints.shipped import TEACHER
from vidstill.data.manifest.open import list_splits
from vidstill.pipelines.labeled_data import open_labeled_splits
from vidstill.pipelines.run_config import FinetuneRunConfig
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.quickstart import DistillationMethod
from vidstill.utils.types import InputError

LABELS = ("few", "many")
"""How many labelled clips a fine-tuning has."""

_FEW_SHARE = 0.25  # of a user's labelled clips
_VALIDATION_SEED = 2**32  # added to the seed, so that no drawn validation clip is a test clip


@dataclass(frozen=True)
class QuickstartClips:
    """The clips of the comparison.

    Args:
        unlabelled: The data set of the pre-trainings.
        labelled: The data of a fine-tuning, by name of `LABELS`; its run directory is not used.
        num_unlabelled: Clips of the pre-trainings.
        num_labelled: Training clips of the fine-tunings.
    """

    unlabelled: str
    labelled: dict[str, FinetuneRunConfig]
    num_unlabelled: int
    num_labelled: dict[str, int]


@dataclass(frozen=True)
class QuickstartLayout:
    """The directories of the stages; a model's key is one of `figures.quickstart.MODELS`.

    Args:
        out: Directory of all runs and of the report.
        method: Distillation method of the student.
        train_teacher: Whether the teacher is pre-trained here, too; else it is the one that comes with vidstill.
    """

    out: Path
    method: DistillationMethod
    train_teacher: bool

    @property
    def pretrained(self) -> tuple[str, ...]:
        """The models that are pre-trained here, in order."""
        teachers = ["teacher"] * self.train_teacher + ["image_teacher"] * (self.method == "mvd")
        return (*teachers, "videomae", self.method)

    @property
    def finetuned(self) -> tuple[str, ...]:
        return ("scratch", "videomae", self.method)

    def get_weights(self, key: str) -> str:
        """Return the source of a pre-trained model's weights."""
        return TEACHER if key == "teacher" and not self.train_teacher else str(self.get_pretrained(key))

    def get_pretrained(self, key: str) -> Path:
        return self.out / (key if "teacher" in key else f"student_{key}")

    def get_finetuned(self, key: str, labels: str) -> Path:
        return self.out / f"finetune_{key}_{labels}"


def choose_drawn_clips(seed: int, *, smoke_test: bool) -> QuickstartClips:
    """Return the addresses of drawn clips; those of validation, which are scored in every epoch, are no test clips."""
    num_unlabelled, few, many, num_test = (
        (32, 16, 32, 16) if smoke_test else (recipes.NUM_UNLABELLED, recipes.NUM_FEW, 2400, 3000)
    )
    num_labelled = dict(zip(LABELS, (few, many), strict=True))
    spec = f"{recipes.CLIPS},seed={seed}"
    validation = f"made:val={min(num_test, 64)},{recipes.CLIPS},seed={seed + _VALIDATION_SEED}"
    labelled = {  # the test set has an address of its own, so that it is drawn once for all
        name: FinetuneRunConfig(
            data=f"made:train={count},{spec}", test_data=f"made:val={num_test},{spec}", val_data=validation, out=Path()
        )
        for name, count in num_labelled.items()
    }
    return QuickstartClips(f"made:unlabelled={num_unlabelled},{spec}", labelled, num_unlabelled, num_labelled)


def open_own_clips(data: str) -> QuickstartClips:
    """Return a user's labelled clips, of which the val split is tested; few labels are those of a quarter.

    Raises:
        InputError: They have no labels, no val split, or are too few.
    """
    if "val" not in list_splits(data):
        raise InputError(f"{data} has no val split to test on; split it: vidstill data split {data} --out DIR")
    configs = {
        "few": FinetuneRunConfig(data=data, test_data=data, val_share=1 - _FEW_SHARE, out=Path()),
        "many": FinetuneRunConfig(data=data, out=Path()),
    }
    counts = {
        name: len(open_labeled_splits(data, test_data=each.test_data, val_share=each.val_share).train)
        for name, each in configs.items()
    }
    return QuickstartClips(data, configs, counts["many"], counts)
