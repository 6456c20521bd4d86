"""The comparison of docs/evidence.md: one student, pre-trained in five ways at equal compute, and not at all.

    python scripts/evidence.py prepare OUT [--actions DIR]     clips, lists of few labels, teachers
    python scripts/evidence.py teachers OUT                    what the teacher's own size reaches
    python scripts/evidence.py run OUT --seed 0                one seed: pre-training, fine-tuning, probes; resumes
    python scripts/evidence.py table OUT                       what is there, as a table

All are pre-trained on clips that it draws, and fine-tuned on some of them, and on the real ones of DIR/weizmann4.
"""

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from einops import rearrange
from torch.utils.flop_counter import FlopCounterMode

from vidstill import Launch, finetune, pretrain
from vidstill.data.annotations import read_listing
from vidstill.data.augment import RandomResizedCrop
from vidstill.data.datasets import ViewClips, ViewsConfig
from vidstill.data.loading import view_batches
from vidstill.data.made import make_clips
from vidstill.data.sampling import SegmentSampling
from vidstill.downstream.probe import features, linear_probe
from vidstill.engine.schedule import CosineConfig
from vidstill.folder import write_json
from vidstill.models.vit import ViT, ViTConfig
from vidstill.recipes import quickstart as settings
from vidstill.recipes.recipe import Finetune, Pretrain
from vidstill.weights.files import read_weights
from vidstill.weights.transfer import start_encoder

METHODS = ("videomae", "mvd", "amd", "maskagain", "dmae")
TEACHERS = {"teacher": "teacher", "video_teacher": "teacher", "image_teacher": "image_teacher"}  # a field's run
FEW = {"made": 25, "weizmann4": 6}  # labelled clips of each class
TEACHER_EPOCHS, STUDENT_EPOCHS = 60, 8  # a student's: of VideoMAE; the others have as many operations, so fewer epochs
STEPS = {"made": 600, "weizmann4": 200}  # of each fine-tuning, with few labels and with many
FRAMES = SegmentSampling(frames=8)


@dataclass(frozen=True)
class World:
    """Clips without labels, and labelled sets to fine-tune on."""

    out: Path
    labelled: dict[str, Path]

    @property
    def unlabelled(self) -> Path:
        return self.out / "clips" / "unlabelled.txt"

    def lists(self, name: str) -> dict[str, Path]:
        return {"few": self.out / "lists" / name, "many": self.labelled[name]}


def world(out: Path) -> World:
    actions = json.loads((out / "world.json").read_text())["actions"]
    real = {"weizmann4": Path(actions) / "weizmann4"} if actions else {}
    return World(out, {"made": out / "clips", **real})


def pretraining(recipe: Pretrain, epochs: int) -> Pretrain:
    return replace(
        recipe,
        optim=replace(recipe.optim, base_lr=4e-3),  # 1e-3 for 64 clips
        schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)),
        batch=64,
    )


def fine_tuning(name: str, labelled: Path) -> Finetune:
    """With as many steps for few labels as for many: what is compared is what is known, not how long."""
    recipe = settings.finetune
    if name != "made":
        crop = RandomResizedCrop(area=(0.5, 1.0))
        recipe = replace(recipe, clips=replace(recipe.clips, dataset=name, flip=0.5, crop=crop))
    clips = len(read_listing(labelled, split="train").rows)
    batch = 32 if clips >= 100 else 16
    epochs = max(1, round(STEPS[name] / (clips // batch)))
    return replace(
        recipe,
        optim=replace(recipe.optim, base_lr=1e-3 * 256 / batch),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 10)),
        batch=batch,
    )


def prepare(out: Annotated[Path, tyro.conf.Positional], *, actions: Path | None = None) -> None:
    """Draws the clips, writes the lists of few labels, and pre-trains the teachers that lack."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "world.json", {"actions": str(actions.resolve()) if actions else None})
    make_clips(out / "clips", replace(settings.made, unlabelled=12000, train=2400, val=600, seed=7))
    here = world(out)
    for name, folder in here.labelled.items():
        rows = read_listing(folder, split="train").rows
        seen: dict[int, int] = {}
        lines = []
        for row in (rows[place] for place in range(len(rows))):
            assert row.label is not None
            seen[row.label] = seen.get(row.label, 0) + 1
            if seen[row.label] <= FEW[name]:
                lines.append(f"{row.path} {row.label}\n")
        few = here.lists(name)["few"]
        few.mkdir(parents=True, exist_ok=True)
        (few / "train.csv").write_text("".join(lines))
        (few / "classes.txt").write_text((folder / "classes.txt").read_text())
    for name, recipe in (("teacher", settings.teacher), ("image_teacher", settings.image_teacher)):
        epochs = TEACHER_EPOCHS if name == "teacher" else TEACHER_EPOCHS // 3
        if not (out / name / "model.safetensors").exists():
            pretrain(pretraining(recipe, epochs), Launch(data=here.unlabelled, out=out / name, workers=1))


def operations(recipe: Pretrain) -> int:
    """Of a training step, for each clip: forwards and backwards, the teachers' as well; a multiply-add counts once."""
    method = recipe.method.build().train()
    clip = torch.zeros(2, 3, recipe.clips.sampling.frames, *recipe.clips.size)
    with FlopCounterMode(display=False) as counter:
        method(clip, seed=torch.arange(2)).loss.backward()
    return counter.get_total_flops() // 2 // len(clip)


def run(out: Annotated[Path, tyro.conf.Positional], *, seed: int, workers: int = 1) -> None:
    """One seed of every student; what is finished is kept."""
    here, results = world(out), out / f"results_{seed}.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    most = operations(settings.videomae)
    for method in (*METHODS, "scratch"):
        init = None
        if method != "scratch":
            recipe = getattr(settings, method)
            each = operations(recipe)
            epochs = max(1, round(STUDENT_EPOCHS * most / each))
            taught = {
                field: replace(getattr(recipe.method, field), weights=str(out / run_of))
                for field, run_of in TEACHERS.items()
                if hasattr(recipe.method, field)
            }
            recipe = replace(pretraining(recipe, epochs), seed=seed, method=replace(recipe.method, **taught))
            init = pretrain(recipe, Launch(data=here.unlabelled, out=out / f"{method}_{seed}", workers=workers))
            found[f"{method} epochs"], found[f"{method} operations"] = epochs, each
        found |= {
            f"{method} {word}": top1
            for word, top1 in downstream(here, f"{method}_{seed}", settings.finetune.encoder, init, seed).items()
        }
        write_json(results, found)


def teachers(out: Annotated[Path, tyro.conf.Positional]) -> None:
    """The teacher's size, pre-trained and from scratch."""
    here, size = world(out), settings.teacher.method.encoder
    found = {
        f"{name} {word}": top1
        for name, init in (("teacher", out / "teacher"), ("scratch", None))
        for word, top1 in downstream(here, f"of_teachers_size_{name}", size, init, 0).items()
    }
    write_json(out / "results_teacher.json", found)


def downstream(here: World, name: str, size: ViTConfig, init: Path | None, seed: int) -> dict[str, float]:
    """Top-1 of an encoder on each labelled set: fine-tuned with few labels and with many, and of its linear probe."""
    found = {}
    for data, folder in here.labelled.items():
        for labels, train in here.lists(data).items():
            recipe = replace(fine_tuning(data, train), seed=seed, encoder=size)
            launch = Launch(data=train, val=folder, out=here.out / f"{name}_{data}_{labels}", workers=1)
            tuned = finetune(recipe, launch, init=str(init) if init else None)
            found[f"{data} {labels}"] = json.loads((tuned / "test.json").read_text())["top1"]
        found[f"{data} probe"] = probe(encoder(size, init, seed), folder)
    return found


def encoder(size: ViTConfig, init: Path | None, seed: int) -> ViT:
    torch.manual_seed(seed)
    model = size.build()
    if init is not None:
        start_encoder(model, read_weights(init), size)
    return model.eval()


def probe(model: ViT, folder: Path) -> float:
    """Top-1 of a logistic regression on the frozen encoder's mean tokens, fitted on all labelled training clips."""
    views = ViewsConfig(sampling=FRAMES, views=1, crops=1, short_side=32, size=(32, 32))
    parts = []
    for split in ("train", "val"):
        listing = read_listing(folder, split=split)
        batches = view_batches(
            ViewClips(listing, views), videos_per_batch=32, broken={}, workers=0, device=torch.device("cpu")
        )
        vectors, labels = features(model, ((rearrange(b.clip, "b v ... -> (b v) ..."), b.label) for b in batches))
        parts += [vectors, labels]
    train, train_labels, val, val_labels = parts
    return linear_probe(train, train_labels, val, val_labels, len(listing.classes)).top1


def table(out: Annotated[Path, tyro.conf.Positional]) -> None:
    """A row for each student: mean and deviation over the seeds, and each seed."""
    here = world(out)
    seeds = [json.loads(path.read_text()) for path in sorted(out.glob("results_[0-9]*.json"))]
    columns = [f"{name} {kind}" for name in here.labelled for kind in ("few", "many", "probe")]
    print("| student | epochs | M operations a clip | " + " | ".join(columns) + " |")
    for method in ("scratch", *METHODS):
        cells = []
        for column in columns:
            values = [found[f"{method} {column}"] for found in seeds if f"{method} {column}" in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f} ({each})" if values else "")
        epochs, each = (seeds[0].get(f"{method} {word}", "–") for word in ("epochs", "operations"))
        million = f"{each / 1e6:.0f}" if isinstance(each, int) else each
        print(f"| {method} | {epochs} | {million} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict({"prepare": prepare, "run": run, "teachers": teachers, "table": table})
