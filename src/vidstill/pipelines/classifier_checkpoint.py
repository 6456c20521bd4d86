"""A fine-tuned classifier, read from a run directory or a file of weights."""

from dataclasses import replace
from typing import Any

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import build_from_state, infer_encoder_config, load_checkpoint
from vidstill.recipes.finetuning import imagemae, stmae, videomae
from vidstill.recipes.recipe import NUM_CLASSES
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError


def load_classifier(source: str | Checkpoint) -> tuple[Classifier, Checkpoint]:
    """A fine-tuned model, ours or the authors', with what its file says of itself.

    Of the authors' files, classes are named by their numbers, and videos are looked at as their family's papers do.

    Args:
        source: a run's folder, a file, or what was read from one.

    Raises:
        InputError: it is none.
    """
    weights = load_checkpoint(source) if isinstance(source, str) else source
    source = weights.source if isinstance(source, Checkpoint) else source
    if "layout" in weights.metadata and weights.metadata.get("kind") == "classifier":
        weights = replace(weights, metadata={**_build_default_metadata(weights), **weights.metadata})
    if weights.metadata.get("kind") != "classifier":
        kind = weights.metadata.get("kind", "a foreign file")
        raise InputError(
            f"{source} is no fine-tuned model but {kind}; fine-tune it first: vidstill finetune … --init {source}"
        )
    if lacking := [word for word in ("classifier", "classes", "views") if word not in weights.metadata]:
        raise InputError(f"{source} does not say what its {lacking[0]} are; it is damaged, fetch or write it again")
    config, num_names = from_dict(ClassifierConfig, weights.metadata["classifier"]), len(weights.metadata["classes"])
    if config.num_classes != num_names:
        raise InputError(
            f"{source} scores {config.num_classes} classes and names {num_names}; it is damaged, fetch or write it again"
        )
    return build_from_state(config.build, config.encoder, weights.tensors, source), weights


def _build_default_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """The classes of a foreign classifier, by their numbers, and how its family's papers look at videos in a test."""
    encoder, classes = infer_encoder_config(checkpoint), checkpoint.metadata["classifier"]["num_classes"]
    if encoder.tubelet[0] == 1:
        recipe = imagemae.base_in1k_finetune
    elif checkpoint.metadata["layout"] in ("stmae", "slowfast"):
        recipe = stmae.large_ssv2_finetune if classes == NUM_CLASSES["ssv2"] else stmae.large_k400_finetune
    else:
        recipe = videomae.base_ssv2_finetune if classes == NUM_CLASSES["ssv2"] else videomae.base_k400_finetune
    return {"classes": [str(number) for number in range(classes)], "views": to_dict(recipe.views)}
