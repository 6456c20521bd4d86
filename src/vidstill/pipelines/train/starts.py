"""What a fine-tuning starts from: compared by short fine-tunings on videos that are not tested, and decided once."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidstill.checkpoints.fingerprint import fingerprint_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.shipped import SCRATCH
from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.manifest.hold_out import hold_out, identify_files, list_folds, read_groups
from vidstill.data.manifest.manifest import Manifest
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.pipelines.evaluate.classifier import score_classifier
from vidstill.pipelines.labeled_data import LabeledSplits, list_shared_rows
from vidstill.pipelines.run_config import FinetuneRunConfig
from vidstill.pipelines.session import TrainingSession
from vidstill.pipelines.train.finetune import build_classifier, build_task
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.starts import StartScore, plan_comparison, rank_starts, shorten_recipe
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.tasks.metrics.accuracy import predict_classes
from vidstill.utils.checksums import forget_checksums, record_checksums, verify_file
from vidstill.utils.files import START_FILE, write_json
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError


@dataclass(frozen=True)
class StartDecision:
    """The start that was taken, and why."""

    start: str
    reason: str


@dataclass(frozen=True)
class _Round:
    """A part of the comparison: each start is trained on some videos, and answers for others."""

    train: Manifest
    held_out: Manifest
    seed: int


def decide_start(
    recipe: FinetuneRecipe,
    starts: Mapping[str, Checkpoint],
    splits: LabeledSplits,
    run_config: FinetuneRunConfig,
    runtime: Runtime,
) -> StartDecision:
    """Return the start that the run directory states for these videos and weights, or compare them and write it there.

    Args:
        recipe: That of a training from scratch.
        starts: What else a training can start from, by address.
        splits: The test set is not read. Videos are held out of the training set, unless there is a validation set that
            is large and has none of the test videos.
        run_config: Run directory, decoding processes, precision.
        runtime: Device and processes.

    Raises:
        InputError: No held-out video can be scored, or the run directory cannot be written.
    """
    path = run_config.out / START_FILE
    identity = {
        "train": splits.train.fingerprint,
        "validation": splits.validation.fingerprint,
        "starts": runtime.run_on_main(lambda: {name: fingerprint_checkpoint(each) for name, each in starts.items()}),
    }
    stored = runtime.run_on_main(lambda: read_start(run_config.out))
    if stored.get("identity") == identity:
        return StartDecision(stored["start"], f"{stored['reason']} (decided before: {path})")
    start, reason, scores = _compare_starts(recipe, starts, splits, run_config, runtime)

    def write() -> None:
        forget_checksums(run_config.out, [path])
        write_json(path, {"start": start, "reason": reason, "scores": list(map(asdict, scores)), "identity": identity})
        record_checksums(run_config.out, [path])

    runtime.run_on_main(write)
    return StartDecision(start, reason)


def read_start(out: Path) -> dict[str, Any]:
    """Return what a run directory states about the start of its run; {} if nothing was compared.

    Raises:
        InputError: The file is damaged.
    """
    path, mend = out / START_FILE, "delete it, and the same command compares the starts again"
    if not path.is_file():
        return {}
    verify_file(out, path, mend=mend)
    try:
        content = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError):
        raise InputError(f"{path} is damaged; {mend}") from None
    if not all(isinstance(content.get(key), str) for key in ("start", "reason")):
        raise InputError(f"{path} is damaged; {mend}")
    return content


def _compare_starts(
    recipe: FinetuneRecipe,
    starts: Mapping[str, Checkpoint],
    splits: LabeledSplits,
    run_config: FinetuneRunConfig,
    runtime: Runtime,
) -> tuple[str, str, list[StartScore]]:
    """Return the start to take, a line that says why, and the scores."""
    rounds, where = _list_rounds(splits)
    smallest = min(len(each.train) for each in rounds)
    short_recipes = shorten_recipe(recipe, starts, num_clips=smallest, processes=runtime.world_size)
    plan = plan_comparison(
        recipe,
        list(short_recipes.values()),
        num_clips=len(splits.train),
        num_validation_clips=len(splits.validation),
        num_trained=sum(len(each.train) for each in rounds),
        num_scored=sum(len(each.held_out) for each in rounds),
    )
    rounds = [_cut(each, plan.share, minimum=runtime.world_size) for each in rounds]
    schedule = CosineConfig(epochs=plan.epochs, warmup_epochs=plan.epochs / 10)
    short_recipes = {name: replace(short, schedule=schedule) for name, short in short_recipes.items()}
    clips, number = next(iter(short_recipes.values())).clips, len(rounds) * len(short_recipes)
    what = (
        f"{pluralize(number, 'short fine-tuning')} of {pluralize(plan.epochs, 'epoch')}, with clips of "
        f"{clips.sampling.num_frames} x {clips.size[0]} x {clips.size[1]}, {where}"
    )
    if runtime.is_main:
        starts_text = ", ".join(short_recipes)
        print(f"finetune: compares the starts {starts_text} by {what}; --init {SCRATCH} skips this", file=sys.stderr)
    correct = {
        name: [_answer(short_recipes[name], starts.get(name), each, run_config, runtime, title=name) for each in rounds]
        for name in short_recipes
    }
    best, scores = rank_starts(*_merge_rounds(correct, rounds))
    margin = (
        f"a start is taken if it is better than those before it by {defaults.MIN_GAIN:g} points and by "
        f"{defaults.MIN_GAIN_ERRORS} standard errors"
    )
    return best, f"starts from {best}: {'; '.join(map(str, scores))}; {what}; {margin}", scores


def _list_rounds(splits: LabeledSplits) -> tuple[list[_Round], str]:
    """Return the rounds, and which videos they hold out."""
    train, validation, noun = splits.train, splits.validation, splits.train.noun
    is_large = len(validation) >= min(defaults.MIN_VALIDATION_CLIPS, len(train))
    if is_large and not list_shared_rows(splits.test, validation):
        rounds = [_Round(train, validation, seed) for seed in range(defaults.NUM_REPEATS)]
        return rounds, f"scored on the {len(validation)} validation {noun}s, {len(rounds)} seeds each"
    rounds = [_Round(*fold, seed=0) for fold in list_folds(train, defaults.NUM_FOLDS)]
    return rounds, f"scored on training {noun}s held out in {len(rounds)} folds, none on the test set"


def _cut(round_: _Round, share: float, *, minimum: int) -> _Round:
    """Return a round on a share of its videos."""
    if share == 1 or share * min(len(round_.train), len(round_.held_out)) < max(2, minimum):
        return round_
    return replace(round_, train=hold_out(round_.train, share)[1], held_out=hold_out(round_.held_out, share)[1])


def _answer(
    recipe: FinetuneRecipe,
    start: Checkpoint | None,
    round_: _Round,
    run_config: FinetuneRunConfig,
    runtime: Runtime,
    title: str,
) -> Float[np.ndarray, "n"]:
    """Fine-tune, and return 1 for each held-out video whose most probable class is one of its labels, else 0."""
    recipe = replace(recipe, seed=recipe.seed + round_.seed)
    train, held_out = round_.train, round_.held_out
    (cache, _), (held_out_cache, _) = run_config.open_cache(train), run_config.open_cache(held_out)
    config = recipe.build_classifier_config(len(train.classes), multi_label=train.multi_label)
    model = build_classifier(recipe, config, start)
    with _make_run_dir(runtime) as out:
        config_of_run = replace(run_config, out=out, resume_from=None, resume_with=())
        clips = TrainClips(train, recipe.clips, seed=recipe.seed, cache=cache)
        session = TrainingSession(
            f"compare: {title}",
            recipe,
            clips,
            config_of_run,
            runtime,
            recipe.mixup.group_clips if recipe.mixup else 1,
            "--mixup.group-clips",
        )
        session.build_trainer(build_task(recipe, model)).train()
    result = score_classifier(
        model,
        held_out,
        train.classes,
        recipe.views,
        replace(run_config, device_batch=session.plan.clips_per_microbatch),
        runtime,
        multi_label=train.multi_label,
        cache=held_out_cache,
        show_progress=False,
    )
    answers = np.zeros(len(held_out))
    for row, label in zip(result.indices, predict_classes(result.scores).tolist(), strict=True):
        answers[row] = label in held_out.rows[row].labels
    return answers


@contextmanager
def _make_run_dir(runtime: Runtime) -> Iterator[Path]:
    """Make a directory for a run that nobody resumes, and delete it after the block."""
    with tempfile.TemporaryDirectory(prefix="vidstill-") as folder:
        yield Path(runtime.broadcast(folder))


def _merge_rounds(
    correct: Mapping[str, Sequence[Float[np.ndarray, "_"]]], rounds: Sequence[_Round]
) -> tuple[dict[str, Float[np.ndarray, "n"]], Int[np.ndarray, "n"]]:
    """Return each start's mean answer for each video, and the video's group; a video that states none is alone."""
    videos: list[str] = []
    groups: list[str] = []
    for each in rounds:
        names = identify_files(each.held_out.rows)
        stated = read_groups(each.held_out.rows) or [""] * len(names)
        videos += names
        groups += [group or f"/{name}" for group, name in zip(stated, names, strict=True)]
    unique, first, video_of_answer = np.unique(videos, return_index=True, return_inverse=True)
    counts = np.bincount(video_of_answer)
    means = {
        name: np.bincount(video_of_answer, weights=np.concatenate(answers), minlength=len(unique)) / counts
        for name, answers in correct.items()
    }
    return means, np.unique(np.array(groups)[first], return_inverse=True)[1]
