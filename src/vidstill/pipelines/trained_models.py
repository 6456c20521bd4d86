"""A trained classifier or action detector, loaded from a run directory or a checkpoint file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.checkpoints.load import build_from_state, infer_encoder_config, load_checkpoint, parse_metadata
from vidstill.data.ava.label_map import LabelMap
from vidstill.recipes import imagemae, stmae, videomae
from vidstill.recipes.recipe import NUM_CLASSES, DetectionRecipe
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.tasks.detection import Detector, DetectorConfig
from vidstill.utils.arguments import check_arguments
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError, StrPath

DETECTOR_KIND = "detector"
"""The `kind` in the metadata of a detector's checkpoint."""


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with what its checkpoint states."""

    model: Detector
    actions: LabelMap
    recipe: DetectionRecipe
    source: str


@check_arguments
def load_classifier(source: StrPath | Checkpoint) -> tuple[Classifier, Checkpoint]:
    """Load a fine-tuned model, native or foreign, and the metadata of its file.

    The classes of a foreign file are named by their numbers, and its views are those of its family's papers.

    Args:
        source: A run directory, a file, or a loaded checkpoint.

    Raises:
        InputError: It is no classifier, or is damaged.
    """
    checkpoint = source if isinstance(source, Checkpoint) else load_checkpoint(os.fspath(source))
    source = checkpoint.source if isinstance(source, Checkpoint) else os.fspath(source)
    if (kind := checkpoint.metadata.get("kind", "a foreign file")) != "classifier":
        raise InputError(
            f"{source} is no fine-tuned model but {kind}; fine-tune it first: vidstill finetune … --init {source}"
        )
    if "layout" in checkpoint.metadata:
        checkpoint = replace(checkpoint, metadata={**_build_default_metadata(checkpoint), **checkpoint.metadata})
    metadata = checkpoint.metadata
    _check_keys(source, metadata, "classifier", "classes", "views")
    config = parse_metadata(ClassifierConfig, metadata["classifier"], source)
    _check_count(source, config.num_classes, len(metadata["classes"]), "classes")
    return build_from_state(config.build, config.encoder, checkpoint.tensors, source), checkpoint


@check_arguments
def load_detector(source: StrPath) -> LoadedDetector:
    """Load the detector of a run directory or of a weights file.

    Raises:
        InputError: It is no detector, or is damaged.
    """
    source = os.fspath(source)
    checkpoint = read_checkpoint(source)
    metadata = checkpoint.metadata
    if (kind := metadata.get("kind", "a foreign file")) != DETECTOR_KIND:
        raise InputError(
            f"{source} is no detector of actions but {kind}; train one from it first: vidstill detect train RECIPE "
            f"--init {source} --data DATA"
        )
    _check_keys(source, metadata, "detector", "actions", "evaluated", "recipe")
    config = parse_metadata(DetectorConfig, metadata["detector"], source)
    actions = LabelMap(
        {int(number): str(name) for number, name in metadata["actions"]}, frozenset(metadata["evaluated"])
    )
    _check_count(source, config.num_actions, len(actions), "actions")
    model = build_from_state(config.build, config.encoder, checkpoint.tensors, source)
    return LoadedDetector(model, actions, parse_metadata(DetectionRecipe, metadata["recipe"], source), source)


def _check_keys(source: str, metadata: Mapping[str, Any], *keys: str) -> None:
    for key in keys:
        if key not in metadata:
            raise InputError(f"{source} does not state its {key}; it is damaged, fetch or write it again")


def _check_count(source: str, num_outputs: int, num_names: int, noun: str) -> None:
    if num_outputs != num_names:
        raise InputError(
            f"{source} scores {num_outputs} {noun} and names {num_names}; it is damaged, fetch or write it again"
        )


def _build_default_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the class names of a foreign classifier, which are numbers, and the views of its family's papers."""
    num_classes = checkpoint.metadata["classifier"]["num_classes"]
    is_ssv2 = num_classes == NUM_CLASSES["ssv2"]
    if infer_encoder_config(checkpoint).tubelet[0] == 1:
        recipe = imagemae.base_in1k_finetune
    elif checkpoint.metadata["layout"] in ("stmae", "slowfast"):
        recipe = stmae.large_ssv2_finetune if is_ssv2 else stmae.large_k400_finetune
    else:
        recipe = videomae.base_ssv2_finetune if is_ssv2 else videomae.base_k400_finetune
    return {"classes": [str(index) for index in range(num_classes)], "views": to_dict(recipe.views)}
