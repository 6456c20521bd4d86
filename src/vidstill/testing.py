"""A fine-tuned model's test: every view of every video, merged as in the papers, by one process or by several."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.config import from_plain
from vidstill.data.annotations import Listing, listing_to_test
from vidstill.data.datasets import ViewClips, ViewsConfig
from vidstill.data.loading import view_batches
from vidstill.downstream.accuracy import Accuracy, accuracy, merged
from vidstill.downstream.classification import Classifier, ClassifierConfig
from vidstill.engine.runtime import Runtime
from vidstill.training import Launch
from vidstill.types import InputError
from vidstill.weights.files import Weights, read_weights
from vidstill.weights.transfer import load_exactly


def evaluate(source: str, launch: Launch, *, runtime: Runtime | None = None) -> "Tested":
    """Tests a fine-tuned model on labelled videos, with the views of its recipe.

    Raises:
        InputError: the weights are no classifier's, or the videos have other classes.
    """
    runtime = runtime or Runtime(launch.precision)
    model, weights = load_classifier(source)
    listing = labelled(listing_to_test(launch.data, fold=launch.fold))
    check_classes(listing, weights.about["classes"], source)
    return score(model, listing, from_plain(ViewsConfig, weights.about["views"]), launch, runtime)


def load_classifier(source: str) -> tuple[Classifier, Weights]:
    """A fine-tuned model of ours, with what its file says of itself.

    Raises:
        InputError: it is none.
    """
    weights = read_weights(source)
    if weights.about.get("kind") != "classifier":
        kind = weights.about.get("kind", "a foreign file")
        raise InputError(
            f"{source} is no fine-tuned model but {kind}; fine-tune it first: vidstill finetune … --init {source}"
        )
    model = from_plain(ClassifierConfig, weights.about["classifier"]).build()
    load_exactly(model, weights.tensors, source)
    return model, weights


@dataclass(frozen=True)
class Tested:
    """A test: the accuracy over the videos that could be scored, and those that could not."""

    accuracy: Accuracy
    missing: int  # videos that an official list names and that are not there
    broken: tuple[str, ...]  # a sentence for each video that could not be decoded
    places: tuple[int, ...]  # of the scored videos, in the list
    scores: Float[Tensor, "videos classes"]

    def plain(self) -> dict[str, Any]:
        return {**asdict(self.accuracy), "missing": self.missing, "broken": list(self.broken)}


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
    unscored = tuple(broken[place] for place in sorted(broken))
    return Tested(accuracy(scores, labels), listing.missing, unscored, tuple(places), scores)


def check_views(listing: Listing, views: ViewsConfig, workers: int) -> None:
    """Raises an InputError where no video can be tested: before hours of training, not after them."""
    broken: dict[int, str] = {}
    clips, device = ViewClips(listing, views), torch.device("cpu")
    batches = view_batches(clips, videos_per_batch=1, broken=broken, workers=workers, device=device)
    if next(batches, None) is None:
        raise InputError(f"none of the {len(broken)} videos of {listing.source} can be tested on; {broken[0]}")


def labelled(listing: Listing) -> Listing:
    if not listing.classes:
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
