"""A fine-tuned model's test: every view of every video, merged as in the papers, by one process or by several."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.load import encoder_config, load_exactly, read_known
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.loader.loader import view_batches
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import listing_to_test
from vidstill.data.storage.fetch import name_of
from vidstill.engine.distributed import Runtime
from vidstill.figures.confusion import confusion_png
from vidstill.pipelines.train.session import Launch
from vidstill.recipes.finetuning import imagemae, stmae, videomae
from vidstill.recipes.recipe import CLASSES
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.tasks.metrics.accuracy import merged
from vidstill.tasks.results import SeveralTested, Tested
from vidstill.utils.config_io import from_plain, to_plain
from vidstill.utils.files import check_findings, write_findings
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError

SCORES_FILE = "scores.csv"
CLASSES_FILE = "classes.csv"
CONFUSION_FILE = "confusion.csv"
CONFUSION_PICTURE = "confusion.png"
FILES = (SCORES_FILE, CLASSES_FILE, CONFUSION_FILE, CONFUSION_PICTURE)

log = logging.getLogger("vidstill")


def evaluate(
    source: str, launch: Launch, *, out: Path | None = None, runtime: Runtime | None = None
) -> Tested | SeveralTested:
    """Tests a fine-tuned model on labelled videos, with the views of its recipe.

    Args:
        out: a folder to leave all that was found in.

    Raises:
        InputError: the weights are no classifier's, or the videos have other classes.
    """
    if out is not None:
        check_findings(out, FILES)
    runtime = runtime or Runtime(launch.precision)
    model, weights = load_classifier(source)
    several = model.config.several
    listing = labelled(listing_to_test(launch.data, fold=launch.fold), several=several)
    classes = weights.about["classes"]
    check_classes(listing, classes, source)
    views = from_plain(ViewsConfig, weights.about["views"])
    tested = score(model, listing, classes, views, launch, runtime, several=several)
    if out is not None and runtime.is_main:
        write_test(out, tested)
    return tested


def load_classifier(source: str | Weights) -> tuple[Classifier, Weights]:
    """A fine-tuned model, ours or the authors', with what its file says of itself.

    Of the authors' files, classes are named by their numbers, and videos are looked at as their family's papers do.

    Args:
        source: a run's folder, a file, or what was read from one.

    Raises:
        InputError: it is none.
    """
    weights = read_known(source) if isinstance(source, str) else source
    source = weights.source if isinstance(source, Weights) else source
    if "layout" in weights.about and weights.about.get("kind") == "classifier":
        weights = replace(weights, about={**_unsaid(weights), **weights.about})
    if weights.about.get("kind") != "classifier":
        kind = weights.about.get("kind", "a foreign file")
        raise InputError(
            f"{source} is no fine-tuned model but {kind}; fine-tune it first: vidstill finetune … --init {source}"
        )
    if lacking := [word for word in ("classifier", "classes", "views") if word not in weights.about]:
        raise InputError(f"{source} does not say what its {lacking[0]} are; it is damaged, fetch or write it again")
    model = from_plain(ClassifierConfig, weights.about["classifier"]).build()
    if model.config.classes != len(weights.about["classes"]):
        raise InputError(
            f"{source} scores {model.config.classes} classes and names {len(weights.about['classes'])}; "
            "it is damaged, fetch or write it again"
        )
    load_exactly(model, weights.tensors, source)
    return model, weights


def _unsaid(weights: Weights) -> dict[str, Any]:
    """The classes of a foreign classifier, by their numbers, and how its family's papers look at videos in a test."""
    encoder, classes = encoder_config(weights), weights.about["classifier"]["classes"]
    if encoder.tubelet[0] == 1:
        recipe = imagemae.base_in1k_finetune
    elif weights.about["layout"] in ("stmae", "slowfast"):
        recipe = stmae.large_ssv2_finetune if classes == CLASSES["ssv2"] else stmae.large_k400_finetune
    else:
        recipe = videomae.base_ssv2_finetune if classes == CLASSES["ssv2"] else videomae.base_k400_finetune
    return {"classes": [str(number) for number in range(classes)], "views": to_plain(recipe.views)}


def score(
    model: nn.Module,
    listing: Listing,
    classes: Sequence[str],
    views: ViewsConfig,
    launch: Launch,
    runtime: Runtime,
    *,
    several: bool = False,
    shown: bool = True,
) -> Tested | SeveralTested:
    """The views of each video, merged as VideoMAE does; every process takes its share of the videos.

    Args:
        model: clips of colours in [0, 1] → logits.
        classes: the model's.
        several: a video may show several of them.
        shown: by a progress bar.

    Raises:
        InputError: not one video can be scored.
    """
    bar = progress_bar("testing") if shown else nullcontext(lambda done, of: None)
    with bar as done:
        scored, broken = video_scores(
            model,
            listing,
            views,
            runtime,
            workers=launch.decoders,
            device_batch=launch.device_batch,
            several=several,
            done=done if runtime.is_main else None,
        )
    if not scored:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} could be scored; {broken[0]}")
    places = sorted(scored)
    kind = SeveralTested if several else Tested
    return kind(listing, tuple(classes), tuple(places), torch.stack([scored[place] for place in places]), broken)


def video_scores(
    model: nn.Module,
    listing: Listing,
    views: ViewsConfig,
    runtime: Runtime,
    *,
    workers: int,
    device_batch: int | None = None,
    several: bool = False,
    done: Callable[[int, int], None] | None = None,
) -> tuple[dict[int, Float[Tensor, "classes"]], dict[int, str]]:
    """Each video's probabilities, merged over its views, by its place in the list; and why others have none.

    Every process scores its share, and has the scores of all.

    Args:
        device_batch: views that a device takes at once; None: all of a video's.
        several: a video may show several classes.
        done: is told how many videos of this process's share are done, and how many these are.
    """
    model = model.to(runtime.device).eval()
    scored: dict[int, Tensor] = {}
    broken: dict[int, str] = {}
    share = len(range(runtime.rank, len(listing.rows), runtime.world))
    batches = view_batches(
        ViewClips(listing, views),
        videos_per_batch=1,
        broken=broken,
        rank=runtime.rank,
        world=runtime.world,
        workers=workers,
        device=runtime.device,
    )
    with torch.inference_mode(), runtime.autocast():
        for batch in batches:
            for clips, place in zip(batch.clip, batch.place.tolist(), strict=True):
                logits = [model(part).float() for part in clips.split(device_batch or len(clips))]
                found = merged(torch.cat(logits), several=several).cpu()
                if found.isfinite().all():
                    scored[place] = found
                else:
                    broken[place] = f"{name_of(listing.rows[place].source)} has scores that are no finite numbers"
                    log.warning("%s; it is not counted", broken[place])
            if done is not None:
                done(len(scored) + len(broken), share)
    if done is not None and scored:
        done(share, share)  # the last ones may be broken
    for their_scored, their_broken in runtime.gathered((scored, broken)):
        scored |= their_scored
        broken |= their_broken
    return scored, broken


def write_test(folder: Path, tested: Tested | SeveralTested, taken: Mapping[str, Any] | None = None) -> None:
    """Leaves all that a test found in a folder, as `folder.write_findings` does.

    Args:
        taken: what chose the weights that were tested, where something did.

    Raises:
        InputError: the folder cannot be written.
    """
    files: dict[str, Callable[[], bytes | Iterable[bytes]]] = {
        SCORES_FILE: tested.scores_csv,
        CLASSES_FILE: tested.classes_csv,
    }
    if isinstance(tested, Tested):
        files[CONFUSION_FILE] = tested.confusion_csv
        files[CONFUSION_PICTURE] = lambda: confusion_png(tested.confusion, tested.classes)
    for name in set(FILES) - set(files):
        (folder / name).unlink(missing_ok=True)  # of an earlier test, of the other kind
    write_findings(folder, files, tested.plain() | ({"taken": dict(taken)} if taken else {}))


def check_views(listing: Listing, views: ViewsConfig, workers: int) -> None:
    """Raises an InputError where no video can be tested: before hours of training, not after them."""
    broken: dict[int, str] = {}
    clips, device = ViewClips(listing, views), torch.device("cpu")
    batches = view_batches(clips, videos_per_batch=1, broken=broken, workers=workers, device=device)
    if next(batches, None) is None:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} can be tested on; {broken[0]}")


def labelled(listing: Listing, *, several: bool = False) -> Listing:
    """
    Args:
        several: whether videos may have several labels.

    Raises:
        InputError: not every video has a label, or one has several where it may not.
    """
    if listing.several and not several:
        raise InputError(
            f"{listing.source} has videos with several labels, and one for each is asked for; give it one for each"
        )
    if not listing.classes or listing.rows.labels.min() < 0:
        raise InputError(f"{listing.source} has no labels ({listing.kind}); take class folders or a list `path label`")
    return listing


def check_classes(listing: Listing, known: Sequence[str], whose: str) -> None:
    """Raises an InputError where labels would not mean the same; numbers without names are taken at their word."""
    ours = listing.classes
    numbered = list(ours) == [str(label) for label in range(len(ours))]
    strays = ours[len(known) :] if numbered else [name for name in ours if name not in known]
    if list(ours) == list(known) or (numbered and not strays):
        return
    what = f"the class {strays[0]!r}, which {whose} has not" if strays else f"{len(ours)} classes, {whose} {len(known)}"
    raise InputError(f"{listing.source} has {what}; give both the same classes, in the same order")


def check_taught(train: Listing, val: Listing) -> None:
    """Raises an InputError where a test asks for a class that training does not show, or training shows one alone."""
    taught, asked = (np.unique(each.rows.pairs()[1]) for each in (train, val))
    if len(taught) < 2:
        raise InputError(
            f"{train.source} has videos of one class only, {train.classes[taught[0]]!r}; give two or more to tell apart"
        )
    if len(strays := np.setdiff1d(asked, taught)):
        raise InputError(
            f"{val.source} asks for the class {train.classes[strays[0]]!r}, of which {train.source} has no video to "
            "train on; add some there, or take the class out of the test"
        )
