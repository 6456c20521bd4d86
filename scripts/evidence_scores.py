"""How docs/evidence.md scores a student: probes of its frozen encoder, and its fine-tunings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_arms import ClipSet
from evidence_tables import encode_bits
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_checkpoint
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest, open_test_manifest
from vidstill.pipelines.trained_models import load_classifier
from vidstill.recipes import quickstart as recipes
from vidstill.tasks.probes.attentive import FeatureDataset, compute_attentive_logits, fit_attentive_probe
from vidstill.tasks.probes.linear import PENALTY_GRID, choose_penalty, fit_logistic_regression
from vidstill.utils.types import InputError

Model = Callable[[Float[Tensor, "b 3 t h w"]], Float[Tensor, "b ..."]]


def name_finetuning(labels: str, lr: float) -> str:
    """Return the directory of a fine-tuning on a labelled set with a peak learning rate."""
    return f"{labels}_{lr:g}"


def score_student(arm: Mapping[str, Any], run_dir: Path) -> list[dict[str, Any]]:
    """Select a student's settings on validation clips, and test it.

    Args:
        arm: What `evidence.py run` recorded of it.
        run_dir: Where its fine-tunings are.

    Returns:
        A row for each metric: its name, the selected setting, the top-1 in percent, and which clips are correct.
    """
    clips = ClipSet(**arm["clip_set"])
    finetuned = (score_finetuned(arm, clips, run_dir, labels) for labels in arm["finetuned"])
    return [*score_probes(arm, clips), *finetuned]


def score_probes(arm: Mapping[str, Any], clips: ClipSet) -> list[dict[str, Any]]:
    """Fit a linear and an attentive probe on the frozen encoder's tokens of the largest labelled set, and test them."""
    train = open_manifest(list(clips.labelled.values())[-1], split="train")
    num_classes, seed = len(train.classes), arm["seed"]
    encoder = load_frozen_encoder(arm["init"], num_classes, seed)
    tokens, labels = apply_to_clips(encoder, train)
    test_tokens, test_labels = apply_to_clips(encoder, open_test_manifest(clips.test))
    features = tokens.mean(dim=1)
    if clips.validation is None:
        penalty = choose_penalty(features, labels, num_classes)
        probe = fit_logistic_regression(features, labels, num_classes, penalty)
    else:
        val_tokens, val_labels = apply_to_clips(encoder, open_test_manifest(clips.validation))
        probes = {each: fit_logistic_regression(features, labels, num_classes, each) for each in PENALTY_GRID}
        logits = {each: probe.predict_logits(val_tokens.mean(dim=1)) for each, probe in probes.items()}
        penalty = select_best({each: (logits[each], val_labels) for each in probes})
        probe = probes[penalty]
    linear = find_correct(probe.predict_logits(test_tokens.mean(dim=1)), test_labels)
    train_set, test_set = (
        FeatureDataset(each.numpy(), np.arange(len(each)), label)
        for each, label in ((tokens, labels), (test_tokens, test_labels))
    )
    attentive = fit_attentive_probe(train_set, num_classes, seed=seed, device=torch.device("cpu"))
    correct = find_correct(compute_attentive_logits(attentive, test_set), test_labels)
    return [make_row("linear", f"penalty {penalty:g}", linear), make_row("attentive", "", correct)]


def score_finetuned(arm: Mapping[str, Any], clips: ClipSet, run_dir: Path, labels: str) -> dict[str, Any]:
    """Test the fine-tuning whose learning rate has the best validation score."""
    models = {lr: load_classifier(run_dir / name_finetuning(labels, lr))[0].eval() for lr in arm["learning_rates"]}
    best = next(iter(models))
    if clips.validation is not None:
        validation = open_test_manifest(clips.validation)
        best = select_best({lr: apply_to_clips(model, validation) for lr, model in models.items()})
    correct = find_correct(*apply_to_clips(models[best], open_test_manifest(clips.test)))
    return make_row(labels, f"lr {best:g}", correct)


def load_frozen_encoder(source: str | None, num_classes: int, seed: int) -> Model:
    """Return the function of clips that gives an encoder's tokens; from scratch, with the weights at step 0."""
    torch.manual_seed(seed)
    recipe = recipes.finetune
    if source is None:
        encoder = recipe.build_classifier_config(num_classes).build().encoder.eval()
    else:
        weights = load_checkpoint(source, recipe.encoder)
        config = infer_encoder_config(weights, recipe.encoder)
        encoder = config.build().eval()
        init_encoder(encoder, weights, config)
    return lambda clip: encoder(clip).tokens


@torch.no_grad()
def apply_to_clips(model: Model | nn.Module, manifest: Manifest) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n"]]:
    """Return a model's outputs for one view of each clip, in fp32, and the labels.

    Raises:
        InputError: A clip does not decode.
    """
    cache, _ = open_frame_cache(manifest, workers=0)
    dataset, broken = ViewClips(manifest, recipes.finetune.views, cache=cache), dict[int, str]()
    options: Any = {"videos_per_batch": 64, "broken_videos": broken, "device": torch.device("cpu")}
    pairs = [(model(batch.clip[:, 0]), batch.label) for batch in iter_view_batches(dataset, **options)]
    if broken:
        raise InputError(f"{len(broken)} clips of {manifest.source} do not decode; {min(broken.items())[1]}")
    outputs, labels = zip(*pairs, strict=True)
    return torch.cat(outputs), torch.cat(labels)


def select_best(outputs: Mapping[float, tuple[Float[Tensor, "n classes"], Int[Tensor, "n"]]]) -> float:
    """Return the setting with the most correct validation clips, of its logits and labels; ties go to the first."""
    return max(outputs, key=lambda setting: find_correct(*outputs[setting]).sum())


def find_correct(logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"]) -> Bool[np.ndarray, "n"]:
    return (logits.argmax(dim=1) == labels).numpy()


def make_row(metric: str, setting: str, correct: Bool[np.ndarray, "n"]) -> dict[str, Any]:
    value, bits = round(100 * float(correct.mean()), 2), encode_bits(correct)
    return {"metric": metric, "setting": setting, "value": value, "tested": len(correct), "correct": bits}
