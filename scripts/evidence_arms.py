"""What docs/evidence.md compares: clips, students and budgets, as its protocol states them."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vidstill.checkpoints.load import infer_encoder_config, load_checkpoint
from vidstill.data.manifest.open import open_manifest
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.methods.common.masking import NestedTubeMask
from vidstill.methods.common.teacher import list_teacher_configs, replace_teacher_configs
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.synthetic.dataset import encode_h264
from vidstill.utils.files import write_bytes
from vidstill.utils.flops import count_training_multiply_adds

Part = Literal["main", "compute", "ablations", "real"]

SEEDS: dict[Part, tuple[int, ...]] = {
    "main": (0, 1, 2, 3, 4),
    "compute": (0, 1, 2, 3, 4),
    "ablations": (0, 1, 2),
    "real": (0, 1, 2, 3, 4),
}

# seeds of drawn clips; nothing else in the project draws with them
TRAIN_CLIPS, IMAGE_TEACHER_CLIPS, VALIDATION_CLIPS, TEST_CLIPS = 17_000, 17_800, 17_900, 17_999


@dataclass(frozen=True)
class Protocol:
    """The sizes of the comparison; the test has smaller ones."""

    num_unlabelled: int = 12_000
    num_labelled: dict[str, int] = field(default_factory=lambda: {"few": 600, "many": 2400})
    num_validation: int = 1000
    num_monitored: int = 64  # of the validation clips: scored after each epoch of a fine-tuning, for its log
    num_test: int = 3000
    epochs: int = 10  # of the pre-trainings at equal epochs
    image_teacher_epochs: int = 40
    finetuning_steps: int = 600
    learning_rates: tuple[float, ...] = (5e-4, 1e-3)  # of the fine-tuning; one is selected
    real_learning_rates: tuple[float, ...] = (5e-4,)  # of real clips, which are too few to select one
    batch: int = 32
    finetuning_batch: int = 64


@dataclass(frozen=True)
class ClipSet:
    """The clips of one seed's comparison.

    Args:
        name: In paths and in the CSV.
        unlabelled: Of the pre-trainings.
        pretraining: Directory of the pre-trainings; sets with the same unlabelled clips share it.
        labelled: Data sets of the fine-tunings by name; the probes take the last.
        validation: What settings are selected on; None: nothing is selected but the penalty, by cross-validation.
        monitored: What is scored after each epoch, for the log.
        test: Data set of the test.
    """

    name: str
    unlabelled: str
    pretraining: str
    labelled: dict[str, str]
    validation: str | None
    monitored: str
    test: str


@dataclass(frozen=True)
class Arm:
    """One student.

    Args:
        key: In paths and in the CSV.
        recipe: Its pre-training; None: it has none here.
        start: Weights that it has without one; None: random.
        finetuned: The labelled sets that it is fine-tuned on; None: all.
    """

    key: str
    recipe: PretrainRecipe | None = None
    start: str | None = None
    finetuned: tuple[str, ...] | None = None


STUDENTS: dict[str, PretrainRecipe] = {
    "videomae": recipes.videomae,
    "mvd": recipes.mvd,
    "amd": recipes.amd,
    "maskagain": recipes.maskagain,
    "dmae": recipes.dmae,
}
"""Tables 1 and 2, beside the student from scratch."""

_amd = replace(recipes.amd.method, mask=NestedTubeMask(student_ratio=0.90, teacher_ratio=0.75))  # the paper's ratios
_maskagain = recipes.maskagain.method
_hint_only = replace(
    _maskagain,
    hidden=replace(_maskagain.hidden, global_weight=0.0, local_weight=0.0),
    output=replace(_maskagain.output, relation_weight=0.0),
)
_ABLATED: tuple[tuple[PretrainRecipe, dict[str, Any]], ...] = (
    (
        recipes.amd,
        {
            "amd_75": _amd,
            "amd_45": replace(_amd, mask=NestedTubeMask(student_ratio=0.90, teacher_ratio=0.45)),
            "amd_0": replace(_amd, mask=NestedTubeMask(student_ratio=0.90, teacher_ratio=0.0)),
            "amd_parallel": replace(_amd, alignment="parallel"),
            "amd_direct": replace(_amd, alignment="direct"),
        },
    ),
    (
        recipes.mvd,
        {
            "mvd_image": replace(recipes.mvd.method, video=None),
            "mvd_video": replace(recipes.mvd.method, image=None),
        },
    ),
    (
        recipes.maskagain,
        {
            "hint": replace(_hint_only, output=replace(_hint_only.output, salient_tokens=None)),
            "mahint": _hint_only,
            "mahint_marel": replace(_hint_only, output=_maskagain.output),
            "mahint_malocal": replace(_hint_only, hidden=replace(_maskagain.hidden, global_weight=0.0)),
            "mahint_maglobal": replace(_hint_only, hidden=replace(_maskagain.hidden, local_weight=0.0)),
        },
    ),
)
ABLATIONS: dict[str, PretrainRecipe] = {
    key: replace(recipe, method=method) for recipe, methods in _ABLATED for key, method in methods.items()
}
"""The rows of the papers' tables that are no students of table 1."""


def choose_drawn_clips(protocol: Protocol, seed: int) -> ClipSet:
    """Return the addresses of a seed's drawn clips; those of validation and test are the same for all seeds."""
    spec = f"{recipes.CLIPS},seed={TRAIN_CLIPS + seed}"
    return ClipSet(
        name="drawn",
        unlabelled=f"made:unlabelled={protocol.num_unlabelled},{spec}",
        pretraining="drawn",
        labelled={name: f"made:train={count},{spec}" for name, count in protocol.num_labelled.items()},
        validation=f"made:val={protocol.num_validation},{recipes.CLIPS},seed={VALIDATION_CLIPS}",
        monitored=f"made:val={protocol.num_monitored},{recipes.CLIPS},seed={VALIDATION_CLIPS}",
        test=f"made:val={protocol.num_test},{recipes.CLIPS},seed={TEST_CLIPS}",
    )


def list_real_clips(data: Path, still_clips: Path) -> list[ClipSet]:
    """Return the sets of real clips.

    Args:
        data: Directory with `actions/pretrain.txt`, `actions/weizmann4` and `actions/cctv_fight`.
        still_clips: `images/sign_digits` as clips.
    """
    actions = data / "actions"
    sets = {"weizmann4": actions / "weizmann4", "cctv_fight": actions / "cctv_fight", "sign_digits": still_clips}
    unlabelled = {"actions": actions / "pretrain.txt", "sign_digits": still_clips}  # pretrain.txt has no pictures
    clips = []
    for name, path in sets.items():
        pretraining, test = name if name in unlabelled else "actions", str(path)
        labelled = {"all": str(path)}
        clips.append(
            ClipSet(name, str(unlabelled[pretraining]), pretraining, labelled, None, monitored=test, test=test)
        )
    return clips


def write_still_clips(images: Path, out: Path) -> None:
    """Write pictures as clips of eight equal frames: an encoder of clips takes no pictures.

    Args:
        images: Directory with lists `train.csv` and `val.csv` of lines `path label`.
        out: Directory of the clips and of their lists.
    """
    for name in ("train.csv", "val.csv"):
        lines = [line.split() for line in (images / name).read_text().splitlines()]
        for path, _ in lines:
            frame = np.asarray(Image.open(images / path).convert("RGB"))
            write_bytes(out / f"{path}.mp4", encode_h264(np.repeat(frame[None], 8, axis=0), fps=8))
        write_bytes(out / name, "".join(f"{path}.mp4 {label}\n" for path, label in lines).encode())


def list_arms(part: Part, protocol: Protocol, teacher: str, student: str, image_teacher: Path) -> list[Arm]:
    """Return the students of a part, with the weights of their teachers, and epochs for its budget.

    Args:
        teacher: Weights of the teacher of clips.
        student: Weights of a distilled student, for real clips.
        image_teacher: Weights of MVD's teacher of frames; needed where MVD is compared.
    """
    if part == "real":
        students = {key: set_teachers(STUDENTS[key], teacher, teacher) for key in ("videomae", "dmae")}
        started = [Arm("scratch"), Arm("student", start=student), Arm("teacher", start=teacher)]
        return started + [Arm(key, recipe=recipe) for key, recipe in students.items()]
    recipes_of_part = ABLATIONS if part == "ablations" else STUDENTS
    students = {key: set_teachers(each, teacher, str(image_teacher)) for key, each in recipes_of_part.items()}
    epochs = dict.fromkeys(students, protocol.epochs)
    if part == "compute":
        operations = {key: count_operations(recipe) for key, recipe in students.items()}
        epochs = {key: round(protocol.epochs * max(operations.values()) / n) for key, n in operations.items()}
    arms = [Arm(key, set_epochs(each, protocol, epochs[key])) for key, each in students.items()]
    if part == "ablations":
        return [replace(arm, finetuned=("few",)) for arm in arms]
    if part == "compute":  # the others are those of the part main; AMD's would be a fifth longer
        return [arm for arm in arms if epochs[arm.key] > 1.25 * protocol.epochs]
    return [Arm("scratch"), Arm("teacher", start=teacher, finetuned=()), *arms]


def set_teachers(recipe: PretrainRecipe, teacher: str, image_teacher: str) -> PretrainRecipe:
    """Return the recipe with its teachers' weights, and with the sizes that these have."""
    configs = list_teacher_configs(recipe.method)
    for name, config in configs.items():
        source = image_teacher if name == "image" else teacher
        model = infer_encoder_config(load_checkpoint(source))
        configs[name] = replace(config, checkpoint=source, model=model)
    return replace(recipe, method=replace_teacher_configs(recipe.method, configs))


def set_epochs(recipe: PretrainRecipe, protocol: Protocol, epochs: int) -> PretrainRecipe:
    return replace(recipe, schedule=CosineConfig(epochs=epochs, warmup_epochs=epochs / 10), batch=protocol.batch)


def count_operations(recipe: PretrainRecipe) -> int:
    """Count a clip's multiply-adds in a training step: forward and backward passes, and the teachers' forward."""
    clips = recipe.clips
    return count_training_multiply_adds(recipe.method.build, num_frames=clips.sampling.num_frames, size=clips.size)


def adapt_to_real_clips(recipe: PretrainRecipe, protocol: Protocol, num_clips: int) -> PretrainRecipe:
    """Return a pre-training that meets as many clips as those on drawn ones; real clips may be flipped and cropped."""
    recipe = replace(
        recipe, clips=replace(recipe.clips, crop=RandomResizedCrop(scale=(0.5, 1.0)), flip_probability=0.5)
    )
    return set_epochs(recipe, protocol, round(protocol.epochs * protocol.num_unlabelled / num_clips))


def build_finetuning(protocol: Protocol, clips: ClipSet, labels: str, lr: float) -> FinetuneRecipe:
    """Return the fine-tuning on a labelled set: as many steps whatever its size, a fifth of them warm-up.

    Args:
        lr: Peak learning rate.
    """
    recipe, batch = recipes.finetune, protocol.finetuning_batch
    num_clips = len(open_manifest(clips.labelled[labels], split="train"))
    epochs = round(protocol.finetuning_steps / (num_clips // batch))
    if clips.validation is None:  # colour jitter: the tint of a recording reveals its class
        crop = RandomResizedCrop(scale=(0.5, 1.0))
        recipe = replace(recipe, clips=replace(recipe.clips, crop=crop, flip_probability=0.5))
        recipe = replace(recipe, color_jitter=ColorJitter())
    return replace(
        recipe,
        optim=replace(recipe.optim, base_lr=lr * 256 / batch),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=epochs / 5),
        batch=batch,
    )
