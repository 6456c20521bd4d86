"""A fine-tuned classifier, loaded from a run directory or a checkpoint file."""

from dataclasses import replace
from typing import Any

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import build_from_state, infer_encoder_config, load_checkpoint
from vidstill.recipes import imagemae, stmae, videomae
from vidstill.recipes.recipe import NUM_CLASSES
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError


def load_classifier(source: str | Checkpoint) -> tuple[Classifier, Checkpoint]:
    """Load a fine-tuned model, native or foreign, and the metadata of its file.

    The classes of a foreign file are named by their numbers, and its views are those of its family's papers.

    Args:
        source: A run directory, a file, or a loaded checkpoint.

    Raises:
        InputError: It is no classifier, or is damaged.
    """
    checkpoint = load_checkpoint(source) if isinstance(source, str) else source
    source = checkpoint.source if isinstance(source, Checkpoint) else source
    metadata = checkpoint.metadata
    if (kind := metadata.get("kind", "a foreign file")) != "classifier":
        raise InputError(
            f"{source} is no fine-tuned model but {kind}; fine-tune it first: vidstill finetune … --init {source}"
        )
    if "layout" in metadata:
        metadata = {**_build_default_metadata(checkpoint), **metadata}
        checkpoint = replace(checkpoint, metadata=metadata)
    if missing := [key for key in ("classifier", "classes", "views") if key not in metadata]:
        raise InputError(f"{source} does not state its {missing[0]}; it is damaged, fetch or write it again")
    config, num_names = from_dict(ClassifierConfig, metadata["classifier"]), len(metadata["classes"])
    if config.num_classes != num_names:
        raise InputError(
            f"{source} scores {config.num_classes} classes and names {num_names}; it is damaged, fetch or write it "
            "again"
        )
    return build_from_state(config.build, config.encoder, checkpoint.tensors, source), checkpoint


def _build_default_metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """The class names of a foreign classifier, which are numbers, and the views of its family's papers."""
    num_classes = checkpoint.metadata["classifier"]["num_classes"]
    is_ssv2 = num_classes == NUM_CLASSES["ssv2"]
    if infer_encoder_config(checkpoint).tubelet[0] == 1:
        recipe = imagemae.base_in1k_finetune
    elif checkpoint.metadata["layout"] in ("stmae", "slowfast"):
        recipe = stmae.large_ssv2_finetune if is_ssv2 else stmae.large_k400_finetune
    else:
        recipe = videomae.base_ssv2_finetune if is_ssv2 else videomae.base_k400_finetune
    return {"classes": [str(index) for index in range(num_classes)], "views": to_dict(recipe.views)}
