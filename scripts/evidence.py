"""The comparison of docs/evidence.md: one student, pre-trained in five ways at equal compute, and not at all.

    python scripts/evidence.py prepare OUT [--real ACTIONS]    clips, lists and teachers
    python scripts/evidence.py run OUT --seed 0                one seed: pre-training, fine-tuning, probes; resumes
    python scripts/evidence.py table OUT                       what is there, as a table

On clips that it draws, or with --real on those of a folder with `pretrain.txt`, `weizmann4` and `cctv_fight`.
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
from vidstill.models.vit import ViT
from vidstill.recipes import quickstart as settings
from vidstill.recipes.recipe import Finetune, Pretrain
from vidstill.weights.files import read_weights
from vidstill.weights.transfer import start_encoder

METHODS = ("videomae", "mvd", "amd", "maskagain", "dmae")
TEACHERS = {"teacher": "teacher", "video_teacher": "teacher", "image_teacher": "image_teacher"}  # a field's run
FEW = {"made": 25, "weizmann4": 6, "cctv_fight": 16}  # labelled clips of each class
FRAMES = SegmentSampling(frames=8)


@dataclass(frozen=True)
class World:
    """What is compared on: settings for clips without labels, and labelled sets to fine-tune on, each with its own."""

    name: str
    unlabelled: Path
    labelled: dict[str, Path]
    teacher_epochs: int
    student_epochs: int  # of VideoMAE; the others have as many operations, and so fewer
    repeats: int = 1
    flip: float = 0.0

    def pretraining(self, recipe: Pretrain, epochs: int) -> Pretrain:
        sampling = recipe.clips.sampling  # single frames for the image teacher
        crop = recipe.clips.crop if self.name == "made" else RandomResizedCrop(area=(0.4, 1.0))
        clips = replace(
            recipe.clips, dataset=self.name, sampling=sampling, repeats=self.repeats, flip=self.flip, crop=crop
        )
        batch = 64
        return replace(
            recipe,
            clips=clips,
            optim=replace(recipe.optim, base_lr=1e-3 * 256 / batch, rate_per="clips"),
            schedule=CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 20)),
            batch=batch,
        )

    def fine_tuning(self, clips: int) -> Finetune:
        """With about as many steps for few labels as for many: what is compared is what is known, not how long."""
        recipe = settings.finetune
        if self.name != "made":
            crop = RandomResizedCrop(area=(0.5, 1.0))
            recipe = replace(recipe, clips=replace(recipe.clips, dataset=self.name, flip=self.flip, crop=crop))
        batch = 32 if clips >= 100 else 16
        steps = 1200 if self.name == "made" else 600
        epochs = max(1, round(steps / (clips // batch)))
        optim = replace(recipe.optim, base_lr=1e-3 * 256 / batch)
        schedule = CosineConfig(epochs=epochs, warmup_epochs=max(1, epochs // 10))
        return replace(recipe, optim=optim, schedule=schedule, batch=batch)


def world(out: Path) -> World:
    stated = json.loads((out / "world.json").read_text())
    if real := stated["real"]:
        actions = Path(real)
        labelled = {name: actions / name for name in ("weizmann4", "cctv_fight")}
        return World("real", actions / "pretrain.txt", labelled, 150, 30, repeats=4, flip=0.5)
    return World("made", out / "clips" / "unlabelled.txt", {"made": out / "clips"}, 60, 16)


def prepare(out: Annotated[Path, tyro.conf.Positional], *, real: Path | None = None) -> None:
    """Draws the clips (or takes real ones), writes the lists of few labels, and pre-trains the teachers that lack."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "world.json", {"real": str(real.resolve()) if real else None})
    if real is None:
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
        few = out / "lists" / name
        few.mkdir(parents=True, exist_ok=True)
        (few / "train.csv").write_text("".join(lines))
        (few / "classes.txt").write_text((folder / "classes.txt").read_text())
    for name, recipe in (("teacher", settings.teacher), ("image_teacher", settings.image_teacher)):
        epochs = here.teacher_epochs if name == "teacher" else here.teacher_epochs // 3  # it sees a frame of a clip
        if not (out / name / "model.safetensors").exists():
            pretrain(here.pretraining(recipe, epochs), Launch(data=here.unlabelled, out=out / name, workers=1))


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
    most = operations(here.pretraining(settings.videomae, 1))
    for method in (*METHODS, "scratch"):
        init = None
        if method != "scratch":
            recipe = getattr(settings, method)
            each = operations(recipe)
            epochs = max(1, round(here.student_epochs * most / each))
            taught = {
                field: replace(getattr(recipe.method, field), weights=str(out / run_of))
                for field, run_of in TEACHERS.items()
                if hasattr(recipe.method, field)
            }
            recipe = replace(here.pretraining(recipe, epochs), seed=seed, method=replace(recipe.method, **taught))
            init = pretrain(recipe, Launch(data=here.unlabelled, out=out / f"{method}_{seed}", workers=workers))
            found[f"{method} epochs"], found[f"{method} operations"] = epochs, each
        for name, folder in here.labelled.items():
            for labels, train in (("few", out / "lists" / name), ("many", folder)):
                clips = len(read_listing(train, split="train").rows)
                launch = Launch(data=train, val=folder, out=out / f"{method}_{seed}_{name}_{labels}", workers=workers)
                tuned = finetune(replace(here.fine_tuning(clips), seed=seed), launch, init=init and str(init))
                found[f"{method} {name} {labels}"] = json.loads((tuned / "test.json").read_text())["top1"]
            found[f"{method} {name} probe"] = probe(encoder(init, seed), folder)
        write_json(results, found)


def probe_teachers(out: Annotated[Path, tyro.conf.Positional]) -> None:
    """The teacher's own linear probe, and what it reaches fine-tuned with many labels."""
    here, found = world(out), {}
    for name, folder in here.labelled.items():
        weights = read_weights(out / "teacher")
        model = settings.teacher.method.encoder.build()
        start_encoder(model, weights, model.config)
        found[f"{name} probe"] = probe(model, folder)
        for labels, train in (("few", out / "lists" / name), ("many", folder)):
            clips = len(read_listing(train, split="train").rows)
            recipe = replace(here.fine_tuning(clips), encoder=settings.teacher.method.encoder)
            launch = Launch(data=train, val=folder, out=out / f"teacher_{name}_{labels}", workers=1)
            tuned = finetune(recipe, launch, init=str(out / "teacher"))
            found[f"{name} {labels}"] = json.loads((tuned / "test.json").read_text())["top1"]
    write_json(out / "results_teacher.json", found)


def encoder(init: Path | None, seed: int) -> ViT:
    torch.manual_seed(seed)
    model = settings.finetune.encoder.build()
    if init is not None:
        start_encoder(model, read_weights(init), settings.finetune.encoder)
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
    tyro.extras.subcommand_cli_from_dict({"prepare": prepare, "run": run, "teachers": probe_teachers, "table": table})
