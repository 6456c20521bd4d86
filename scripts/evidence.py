"""The comparison of docs/evidence.md: one student, pre-trained by five methods at equal compute, and from scratch.

    python scripts/evidence.py teachers OUT --data DIR           the teachers of the distillations
    python scripts/evidence.py run OUT --data DIR --seed 0       one seed: pre-training and fine-tuning; it resumes
    python scripts/evidence.py table OUT                         the results so far, as a table

DIR has `actions/` and `images/`: video students are pre-trained on `actions/pretrain` and fine-tuned on each
labelled set beside it, image students are pre-trained on the training part of each labelled set of `images/`.
docs/evidence.md has the commands that make DIR, and those of the frozen probes.
"""

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from vidstill import finetune, pretrain
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.methods.common.masking import NestedTubeMask, RandomMask, TubeMask
from vidstill.models.vit import ViTConfig
from vidstill.recipes import quickstart as settings
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.files import write_json

METHODS = ("videomae", "mvd", "amd", "maskagain", "dmae")
IMAGE_SETS = ("sign_digits",)
EPOCHS = {"weizmann4": 150, "cctv_fight": 40, "home4": 80, "sign_digits": 50}  # fine-tuning
VIDEO_COLOR_JITTER = ColorJitter()


@dataclass(frozen=True)
class Setup:
    """Data and clip size of one comparison.

    Args:
        unlabelled: Pre-training set.
        labelled: Fine-tuning sets by name.
        epochs: VideoMAE's pre-training; the other methods take as many operations, so fewer epochs.
    """

    name: str
    unlabelled: Path
    labelled: dict[str, Path]
    frames: int
    size: int
    tubelet: tuple[int, int, int]
    epochs: int
    teacher_epochs: int

    @property
    def clips(self) -> ClipsConfig:
        return ClipsConfig(
            dataset=self.name,
            sampling=SegmentSampling(num_frames=self.frames),  # over the whole, short video
            size=(self.size, self.size),
            crop=RandomResizedCrop(scale=(0.5, 1.0)),
            flip_probability=0.5,
        )

    def adapt_encoder(self, size: ViTConfig) -> ViTConfig:
        return replace(size, tubelet=self.tubelet)


def list_setups(data: Path) -> list[Setup]:
    actions, images = data / "actions", data / "images"
    videos = {path.name: path for path in sorted(actions.iterdir()) if path.name != "pretrain"}
    setups = [Setup("videos", actions / "pretrain", videos, 16, 32, (4, 8, 8), 60, 120)]
    return setups + [
        Setup(name, images / name, {name: images / name}, 1, 48, (1, 8, 8), 60, 100) for name in IMAGE_SETS
    ]


def build_pretrain_recipe(setup: Setup, name: str) -> PretrainRecipe:
    """Adapt a quickstart recipe to this setup: normalized pixel targets, a mask ratio of 0.75."""
    recipe: PretrainRecipe = getattr(settings, name)
    method = recipe.method
    if name == "amd":
        method = replace(method, mask=NestedTubeMask(student_ratio=0.75, teacher_ratio=0.5))
    elif name == "image_teacher":
        method = replace(method, mask=RandomMask(ratio=0.75))
    else:
        method = replace(method, mask=TubeMask(ratio=0.75))
    if hasattr(method, "target"):
        method = replace(method, target=type(method).target)
    if name != "image_teacher":
        method = replace(method, encoder=setup.adapt_encoder(method.encoder))
    for field in ("teacher", "video"):
        if hasattr(method, field):
            method = replace(
                method,
                **{field: replace(getattr(method, field), model=setup.adapt_encoder(getattr(method, field).model))},
            )
    if name == "mvd" and setup.frames == 1:
        method = replace(method, video=None)  # as the paper's on images
    clips = setup.clips if name != "image_teacher" else replace(setup.clips, sampling=SegmentSampling(num_frames=1))
    return replace(recipe, method=method, clips=clips, optim=replace(recipe.optim, base_lr=4e-3), batch=64)


def set_epochs(recipe: PretrainRecipe, epochs: int) -> PretrainRecipe:
    return replace(recipe, schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)))


def count_operations(recipe: PretrainRecipe) -> int:
    """Count the multiply-adds of a training step per clip: forward and backward passes, and the teachers' forward."""
    method = recipe.method.build().train()
    clip = torch.zeros(2, 3, recipe.clips.sampling.num_frames, *recipe.clips.size)
    with FlopCounterMode(display=False) as counter:
        method(clip, seed=torch.arange(2)).loss.backward()
    return counter.get_total_flops() // 2 // len(clip)


def teachers(out: Annotated[Path, tyro.conf.Positional], *, data: Path) -> None:
    """Pre-train the teachers: a VideoMAE of twice the width, an MAE on frames."""
    for setup in list_setups(data):
        for name, epochs in (("teacher", setup.teacher_epochs), ("image_teacher", setup.teacher_epochs // 2)):
            recipe = set_epochs(build_pretrain_recipe(setup, name), epochs)
            pretrain(recipe, data=setup.unlabelled, out=out / setup.name / name, workers=1)


def run(out: Annotated[Path, tyro.conf.Positional], *, data: Path, seed: int) -> None:
    """Pre-train and fine-tune every student with one seed; finished runs are reused."""
    for setup in list_setups(data):
        videomae_operations = count_operations(build_pretrain_recipe(setup, "videomae"))
        for method in (*METHODS, "scratch"):
            init, facts = None, {}
            if method != "scratch":
                recipe = build_pretrain_recipe(setup, method)
                operations = count_operations(recipe)
                epochs = max(1, round(setup.epochs * videomae_operations / operations))
                facts = {"epochs": epochs, "operations": operations}
                teachers = {
                    field: replace(getattr(recipe.method, field), checkpoint=str(out / setup.name / teacher))
                    for field, teacher in (
                        ("teacher", "teacher"),
                        ("video", "teacher"),
                        ("image", "image_teacher"),
                    )
                    if getattr(recipe.method, field, None) is not None
                }
                recipe = replace(set_epochs(recipe, epochs), seed=seed, method=replace(recipe.method, **teachers))
                run_dir = out / setup.name / "students" / f"{method}_{seed}"
                init = pretrain(recipe, data=setup.unlabelled, out=run_dir, workers=1)
            for name, folder in setup.labelled.items():
                recipe = replace(build_finetune_recipe(setup, name), seed=seed)
                run_dir = out / setup.name / name / f"{method}_{seed}"
                finetuned = finetune(recipe, data=folder, out=run_dir, init=init, workers=1)
                result = {"method": method, "set": name, "top1": finetuned.metrics["top1"]}
                write_json(run_dir / "evidence.json", {**facts, **result})


def build_finetune_recipe(setup: Setup, name: str) -> FinetuneRecipe:
    """Adapt the quickstart's fine-tuning; color jitter hides the lighting that reveals a recording's class."""
    recipe, batch = settings.finetune, 32 if setup.frames == 1 else 16
    return replace(
        recipe,
        encoder=setup.adapt_encoder(recipe.encoder),
        clips=replace(setup.clips, dataset=name),
        views=ViewsConfig(
            sampling=setup.clips.sampling,
            temporal_clips=1,
            spatial_crops=1,
            short_side=setup.size,
            size=(setup.size, setup.size),
        ),
        optim=replace(recipe.optim, base_lr=(5e-4 if setup.frames == 1 else 1e-3) * 256 / batch),
        schedule=CosineConfig(epochs=EPOCHS[name], warmup_epochs=5),
        batch=batch,
        color_jitter=None if setup.frames == 1 else VIDEO_COLOR_JITTER,
    )


def table(out: Annotated[Path, tyro.conf.Positional]) -> None:
    """Print one row per student: mean and standard deviation of its fine-tuned top-1 over the seeds, and each seed."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*/*/*/evidence.json"))]
    sets = sorted({result["set"] for result in results}, key=list(EPOCHS).index)
    print("| student | " + " | ".join(sets) + " |")
    for method in ("scratch", *METHODS):
        cells = []
        for name in sets:
            values = [r["top1"] for r in results if (r["method"], r["set"]) == (method, name)]
            std = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {std:.1f} ({', '.join(f'{v:.1f}' for v in values)})")
        print(f"| {method} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict({"teachers": teachers, "run": run, "table": table})
