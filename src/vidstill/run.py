"""Puts a recipe's parts together: pretrain, finetune, evaluate. A run is a folder, and the same call again resumes it."""

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.config import from_plain, to_plain
from vidstill.data.annotations import Listing, read_listing
from vidstill.data.datasets import TrainClips, ViewClips, ViewsConfig
from vidstill.data.loading import train_batches, view_batches
from vidstill.downstream.accuracy import Accuracy, accuracy, merged
from vidstill.downstream.classification import ClassificationTask, Classifier, ClassifierConfig
from vidstill.engine.runtime import Precision, Runtime
from vidstill.engine.schedule import Plan, make_plan
from vidstill.engine.trainer import Fitted, SaveConfig, fit
from vidstill.pretext.teachers import TeacherConfig
from vidstill.recipes.recipe import Finetune, Pretrain
from vidstill.types import InputError
from vidstill.weights.files import MODEL_FILE, Weights, read_weights, write_weights
from vidstill.weights.transfer import encoder_config, load_exactly, start_encoder

RECIPE_FILE = "recipe.json"
TEST_FILE = "test.json"


def _default_workers() -> int:
    return max(1, (os.cpu_count() or 2) - 1)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how a recipe runs; what is learned does not depend on it, but for rounding."""

    data: Path  # a folder of videos or of class folders, or a list
    out: Path  # the run's folder
    val: Path | None = None  # labelled videos to test on; default: what `data` says of itself
    workers: int = -1  # processes that decode; -1: a core less than there are
    device_batch: int | None = None  # clips that a device takes at once, more are accumulated; default: all of its share
    precision: Precision = "auto"  # auto: bf16 where the device does it well, else fp32
    save_seconds: float = 600.0  # between two saved states

    @property
    def decoders(self) -> int:
        return _default_workers() if self.workers < 0 else self.workers


def pretrain(recipe: Pretrain, launch: Launch, *, runtime: Runtime | None = None) -> Path:
    """Pre-trains to the recipe's end, from the newest saved state where there is one; gives the run's folder.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(launch.precision)
    recipe = replace(recipe, method=_resolved(recipe.method))
    listing = read_listing(launch.data, split="train")
    plan = _plan(recipe, listing, launch, runtime)
    torch.manual_seed(recipe.seed)
    method = recipe.method.build()
    _load_teachers(method, recipe.method)
    _claim(launch.out, recipe, listing, runtime)
    _fit(method, recipe, launch, runtime, listing, plan, title="pretrain")
    about = {"kind": "pretraining", "encoder": to_plain(recipe.method.encoder), "recipe": to_plain(recipe)}
    _finish(launch.out, method, about, runtime)
    return launch.out


def finetune(recipe: Finetune, launch: Launch, *, init: str | None, runtime: Runtime | None = None) -> Path:
    """Trains a classifier from an encoder (from scratch without one) and tests it; gives the run's folder.

    Args:
        init: a run's folder or a file of weights.

    Raises:
        InputError: something the user gave cannot be used; nothing was written then.
    """
    runtime = runtime or Runtime(launch.precision)
    listing = _labelled(read_listing(launch.data, split="train"))
    val = _labelled(read_listing(launch.val or launch.data, split="val"))
    if val.classes != listing.classes:
        raise InputError(f"{val.source} has the classes {val.classes}, but {listing.source} has {listing.classes}")
    start = read_weights(init) if init else None
    if start is not None:
        recipe = replace(recipe, encoder=_with_drop_path(encoder_config(start, recipe.encoder), recipe.encoder))
    plan = _plan(recipe, listing, launch, runtime)
    torch.manual_seed(recipe.seed)
    model = recipe.classifier(len(listing.classes)).build()
    if start is not None:
        start_encoder(model.encoder, start, recipe.encoder)
    _claim(launch.out, recipe, listing, runtime, init=init)
    task = ClassificationTask(model, mixing=recipe.mixing, erasing=recipe.erasing, smoothing=recipe.smoothing)
    _fit(task, recipe, launch, runtime, listing, plan, title="finetune")
    about = {
        "kind": "classifier",
        "encoder": to_plain(recipe.encoder),
        "classifier": to_plain(model.config),
        "classes": list(listing.classes),
        "views": to_plain(recipe.views),
        "recipe": to_plain(recipe),
    }
    _finish(launch.out, model, about, runtime)
    tested = score(model, val, recipe.views, launch, runtime)
    if runtime.is_main:
        _write_json(launch.out / TEST_FILE, tested.plain())
    return launch.out


def evaluate(source: str, launch: Launch, *, runtime: Runtime | None = None) -> "Tested":
    """Tests a fine-tuned model on labelled videos, with the views of its recipe.

    Raises:
        InputError: the weights are no classifier's, or the videos have other classes.
    """
    runtime = runtime or Runtime(launch.precision)
    model, weights = load_classifier(source)
    listing = _labelled(read_listing(launch.data, split="val"))
    if len(listing.classes) > model.config.classes:
        raise InputError(
            f"{listing.source} has {len(listing.classes)} classes and {source} tells {model.config.classes} apart"
        )
    return score(model, listing, from_plain(ViewsConfig, weights.about["views"]), launch, runtime)


def load_classifier(source: str) -> tuple[Classifier, Weights]:
    """A fine-tuned model of ours, with what its file says of itself.

    Raises:
        InputError: it is none.
    """
    weights = read_weights(source)
    if weights.about.get("kind") != "classifier":
        kind = weights.about.get("kind", "a foreign file")
        raise InputError(f"{source} is no fine-tuned model but {kind}; fine-tune it first: vidstill finetune … --init {source}")
    model = from_plain(ClassifierConfig, weights.about["classifier"]).build()
    load_exactly(model, weights.tensors, source)
    return model, weights


@dataclass(frozen=True)
class Tested:
    """A test: the accuracy over the videos that could be scored, and those that could not."""

    accuracy: Accuracy
    broken: tuple[str, ...]  # a sentence for each video that could not be decoded
    places: tuple[int, ...]  # of the scored videos, in the list
    scores: Float[Tensor, "videos classes"]

    def plain(self) -> dict[str, Any]:
        return {**asdict(self.accuracy), "broken": list(self.broken)}


def score(model: Classifier, listing: Listing, views: ViewsConfig, launch: Launch, runtime: Runtime) -> Tested:
    """The views of each video, merged as VideoMAE does; every process takes its share of the videos."""
    model = model.to(runtime.device).eval()
    scored: dict[int, Tensor] = {}
    broken: dict[int, str] = {}
    batches = view_batches(
        ViewClips(listing, views),
        videos_per_batch=1,
        broken=broken,
        rank=runtime.rank,
        world=runtime.world,
        workers=launch.decoders,
        device=runtime.device,
    )
    with torch.inference_mode(), runtime.autocast():
        for batch in batches:
            for clips, place in zip(batch.clip, batch.place.tolist(), strict=True):
                logits = [model(part).float() for part in clips.split(launch.device_batch or len(clips))]
                scored[place] = merged(torch.cat(logits)).cpu()
    for their_scored, their_broken in runtime.gathered((scored, broken)):
        scored |= their_scored
        broken |= their_broken
    if not scored:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} could be scored; {broken[0]}")
    places = sorted(scored)
    scores = torch.stack([scored[place] for place in places])
    labels = torch.from_numpy(listing.rows.labels[places]).long()
    return Tested(accuracy(scores, labels), tuple(broken[place] for place in sorted(broken)), tuple(places), scores)


def _fit(
    task: nn.Module,
    recipe: Pretrain | Finetune,
    launch: Launch,
    runtime: Runtime,
    listing: Listing,
    plan: Plan,
    *,
    title: str,
) -> Fitted:
    dataset = TrainClips(listing, recipe.clips, seed=recipe.seed)
    return fit(
        task,
        lambda start: train_batches(
            dataset,
            videos_per_step=plan.videos_per_step,
            total_steps=plan.total_steps,
            start_step=start,
            accumulation=plan.accumulation,
            rank=runtime.rank,
            world=plan.world,
            workers=launch.decoders,
            device=runtime.device,
        ),
        plan=plan,
        optim=recipe.optim,
        runtime=runtime,
        run_dir=launch.out,
        seed=recipe.seed,
        save=SaveConfig(seconds=launch.save_seconds),
        title=title,
    )


def _plan(recipe: Pretrain | Finetune, listing: Listing, launch: Launch, runtime: Runtime) -> Plan:
    return make_plan(
        videos=len(listing.rows),
        batch=recipe.batch,
        optim=recipe.optim,
        schedule=recipe.schedule,
        repeats=recipe.clips.repeats,
        world=runtime.world,
        at_once=launch.device_batch,
    )


def _resolved(method: Any) -> Any:
    """A method's configuration with its teachers' sizes as their files say."""
    changes = {}
    for name, teacher in _teachers(method).items():
        if not teacher.weights:
            raise InputError(f"the {name} has no weights; give --method.{name}.weights a run's folder or a file")
        changes[name] = replace(teacher, model=encoder_config(read_weights(teacher.weights), teacher.model))
    return replace(method, **changes)


def _load_teachers(method: nn.Module, config: Any) -> None:
    """Fills each frozen teacher: the method's attribute is named as its configuration's field."""
    for name, teacher in _teachers(config).items():
        start_encoder(getattr(method, name).model, read_weights(teacher.weights), teacher.model)


def _teachers(method: Any) -> dict[str, TeacherConfig]:
    named = {field.name: getattr(method, field.name) for field in fields(method)}
    return {name: value for name, value in named.items() if isinstance(value, TeacherConfig)}


def _with_drop_path(found: Any, asked: Any) -> Any:
    """The file's encoder, trained with the recipe's rate of dropped branches."""
    return replace(found, drop_path=asked.drop_path)


def _labelled(listing: Listing) -> Listing:
    if not listing.classes:
        raise InputError(f"{listing.source} has no labels ({listing.kind}); take class folders or a list `path label`")
    return listing


def _claim(out: Path, recipe: Pretrain | Finetune, listing: Listing, runtime: Runtime, **more: Any) -> None:
    """Makes the run's folder this recipe's, or finds that it is.

    Raises:
        InputError: it holds another recipe's run, or one on other data.
    """
    ours = {"recipe": to_plain(recipe), "data": {"source": str(listing.source), "fingerprint": listing.fingerprint}}
    ours |= {name: value for name, value in more.items()}
    path = out / RECIPE_FILE
    if path.exists():
        theirs = json.loads(path.read_text())
        if different := _first_difference(theirs["recipe"], ours["recipe"], "recipe"):
            raise InputError(f"{out} holds another recipe's run ({different}); choose another folder with --out")
        if theirs["data"]["fingerprint"] != listing.fingerprint:
            raise InputError(f"{out} holds a run on other data ({theirs['data']['source']}); choose another --out")
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run; choose another folder with --out")
    elif runtime.is_main:
        out.mkdir(parents=True, exist_ok=True)
        _write_json(path, ours | {"versions": {name: version(name) for name in ("vidstill", "torch", "torchvision", "av")}})
    runtime.wait()


def _first_difference(theirs: Any, ours: Any, where: str) -> str:
    """`recipe.batch is 64, here 32`, or nothing."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in theirs.keys() | ours.keys():
            if found := _first_difference(theirs.get(name), ours.get(name), f"{where}.{name}"):
                return found
        return ""
    return "" if theirs == ours else f"{where} is {theirs}, here it is {ours}"


def _finish(out: Path, model: nn.Module, about: dict[str, Any], runtime: Runtime) -> None:
    if runtime.is_main:
        write_weights(out / MODEL_FILE, model.state_dict(), about)
    runtime.wait()


def _write_json(path: Path, value: Any) -> None:
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(half, path)
