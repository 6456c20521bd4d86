"""The comparison of docs/evidence.md: one student, pre-trained in five ways at equal compute, and not at all.

    python scripts/evidence.py teachers OUT --data DIR           what the distillations learn from
    python scripts/evidence.py run OUT --data DIR --seed 0       one seed: pre-training and fine-tuning; resumes
    python scripts/evidence.py table OUT                         what is there, as a table

DIR has `actions/` and `images/`: students of clips learn from `actions/pretrain` and are fine-tuned on each labelled
set beside it, those of pictures learn from the training part of each labelled set of `images/`. docs/evidence.md has
the commands that make DIR, and those of the frozen probes.
"""

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from vidstill import Launch, finetune, pretrain
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
PICTURE_SETS = ("sign_digits",)
EPOCHS = {"weizmann4": 150, "cctv_fight": 40, "home4": 80, "sign_digits": 50}  # of fine-tuning
COLOUR = ColorJitter()  # of clips


@dataclass(frozen=True)
class World:
    """What students see, the list that they are pre-trained on, the sets that they are fine-tuned on, and for how long.

    Args:
        epochs: of VideoMAE's pre-training; the other methods have as many operations, so fewer epochs.
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
            sampling=SegmentSampling(num_frames=self.frames),  # of the whole video: they are short
            size=(self.size, self.size),
            crop=RandomResizedCrop(scale=(0.5, 1.0)),
            flip_probability=0.5,
        )

    def of(self, size: ViTConfig) -> ViTConfig:
        return replace(size, tubelet=self.tubelet)


def worlds(data: Path) -> list[World]:
    actions, images = data / "actions", data / "images"
    videos = {path.name: path for path in sorted(actions.iterdir()) if path.name != "pretrain"}
    found = [World("videos", actions / "pretrain", videos, 16, 32, (4, 8, 8), 60, 120)]
    return found + [
        World(name, images / name, {name: images / name}, 1, 48, (1, 8, 8), 60, 100) for name in PICTURE_SETS
    ]


def pretraining(world: World, name: str) -> PretrainRecipe:
    """The quickstart's settings, with what this world's clips need: pixels normalised, three quarters hidden."""
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
        method = replace(method, encoder=world.of(method.encoder))
    for field in ("teacher", "video"):
        if hasattr(method, field):
            method = replace(
                method, **{field: replace(getattr(method, field), model=world.of(getattr(method, field).model))}
            )
    if name == "mvd" and world.frames == 1:
        method = replace(method, video=None)  # as the paper's on images
    clips = world.clips if name != "image_teacher" else replace(world.clips, sampling=SegmentSampling(num_frames=1))
    return replace(recipe, method=method, clips=clips, optim=replace(recipe.optim, base_lr=4e-3), batch=64)


def scheduled(recipe: PretrainRecipe, epochs: int) -> PretrainRecipe:
    return replace(recipe, schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)))


def operations(recipe: PretrainRecipe) -> int:
    """Of a training step, for each clip: forwards and backwards, the teachers' as well; a multiply-add counts once."""
    method = recipe.method.build().train()
    clip = torch.zeros(2, 3, recipe.clips.sampling.num_frames, *recipe.clips.size)
    with FlopCounterMode(display=False) as counter:
        method(clip, seed=torch.arange(2)).loss.backward()
    return counter.get_total_flops() // 2 // len(clip)


def teachers(out: Annotated[Path, tyro.conf.Positional], *, data: Path) -> None:
    """Pre-trains what the distillations learn from: VideoMAE of twice the width, MAE of frames."""
    for world in worlds(data):
        for name, epochs in (("teacher", world.teacher_epochs), ("image_teacher", world.teacher_epochs // 2)):
            launch = Launch(data=world.unlabelled, out=out / world.name / name, workers=1)
            pretrain(scheduled(pretraining(world, name), epochs), launch)


def run(out: Annotated[Path, tyro.conf.Positional], *, data: Path, seed: int) -> None:
    """One seed of every student; what is finished is kept."""
    for world in worlds(data):
        most = operations(pretraining(world, "videomae"))
        for method in (*METHODS, "scratch"):
            init, facts = None, {}
            if method != "scratch":
                recipe = pretraining(world, method)
                each = operations(recipe)
                epochs = max(1, round(world.epochs * most / each))
                facts = {"epochs": epochs, "operations": each}
                taught = {
                    field: replace(getattr(recipe.method, field), weights=str(out / world.name / teacher))
                    for field, teacher in (
                        ("teacher", "teacher"),
                        ("video", "teacher"),
                        ("image", "image_teacher"),
                    )
                    if getattr(recipe.method, field, None) is not None
                }
                recipe = replace(scheduled(recipe, epochs), seed=seed, method=replace(recipe.method, **taught))
                place = out / world.name / "students" / f"{method}_{seed}"
                init = str(pretrain(recipe, Launch(data=world.unlabelled, out=place, workers=1)))
            for name, folder in world.labelled.items():
                tuned = finetune(
                    replace(fine_tuning(world, name), seed=seed),
                    Launch(data=folder, out=out / world.name / name / f"{method}_{seed}", workers=1),
                    init=init,
                )
                top1 = json.loads((tuned / "test.json").read_text())["top1"]
                write_json(tuned / "evidence.json", {**facts, "method": method, "set": name, "top1": top1})


def fine_tuning(world: World, name: str) -> FinetuneRecipe:
    """Recordings are few and each has a light of its own, which is not to tell the class: so colours are changed."""
    recipe, batch = settings.finetune, 32 if world.frames == 1 else 16
    return replace(
        recipe,
        encoder=world.of(recipe.encoder),
        clips=replace(world.clips, dataset=name),
        views=ViewsConfig(
            sampling=world.clips.sampling,
            temporal_clips=1,
            spatial_crops=1,
            short_side=world.size,
            size=(world.size, world.size),
        ),
        optim=replace(recipe.optim, base_lr=(5e-4 if world.frames == 1 else 1e-3) * 256 / batch),
        schedule=CosineConfig(epochs=EPOCHS[name], warmup_epochs=5),
        batch=batch,
        color_jitter=None if world.frames == 1 else COLOUR,
    )


def table(out: Annotated[Path, tyro.conf.Positional]) -> None:
    """A row for each student: mean and deviation of its fine-tuned top-1 over the seeds, and each seed's."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*/*/*/evidence.json"))]
    sets = sorted({each["set"] for each in found}, key=list(EPOCHS).index)
    print("| student | " + " | ".join(sets) + " |")
    for method in ("scratch", *METHODS):
        cells = []
        for name in sets:
            values = [each["top1"] for each in found if (each["method"], each["set"]) == (method, name)]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f} ({', '.join(f'{v:.1f}' for v in values)})")
        print(f"| {method} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict({"teachers": teachers, "run": run, "table": table})
