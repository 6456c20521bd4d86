"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here: `vidstill.pretrain(recipe, run_config)`, `finetune`, `evaluate`;
`train_detector` and `evaluate_detector` are `detect train` and `detect evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidstill.pipelines.classifier_checkpoint import load_classifier
    from vidstill.pipelines.detector_checkpoint import load_detector
    from vidstill.pipelines.evaluate.classifier import evaluate_classifier as evaluate
    from vidstill.pipelines.evaluate.detector import evaluate_detector
    from vidstill.pipelines.infer.encoder import load_encoder
    from vidstill.pipelines.infer.predict import predict
    from vidstill.pipelines.train.detector import train_detector
    from vidstill.pipelines.train.finetune import finetune
    from vidstill.pipelines.train.pretrain import pretrain
    from vidstill.pipelines.train.run_config import DetectRunConfig, RunConfig
    from vidstill.recipes.recipe import find_recipe

__all__ = [
    "DetectRunConfig",
    "RunConfig",
    "evaluate",
    "evaluate_detector",
    "find_recipe",
    "finetune",
    "load_classifier",
    "load_detector",
    "load_encoder",
    "predict",
    "pretrain",
    "train_detector",
]

_SOURCES = {
    "DetectRunConfig": "vidstill.pipelines.train.run_config:DetectRunConfig",
    "RunConfig": "vidstill.pipelines.train.run_config:RunConfig",
    "evaluate": "vidstill.pipelines.evaluate.classifier:evaluate_classifier",
    "evaluate_detector": "vidstill.pipelines.evaluate.detector:evaluate_detector",
    "find_recipe": "vidstill.recipes.recipe:find_recipe",
    "finetune": "vidstill.pipelines.train.finetune:finetune",
    "load_classifier": "vidstill.pipelines.classifier_checkpoint:load_classifier",
    "load_detector": "vidstill.pipelines.detector_checkpoint:load_detector",
    "load_encoder": "vidstill.pipelines.infer.encoder:load_encoder",
    "predict": "vidstill.pipelines.infer.predict:predict",
    "pretrain": "vidstill.pipelines.train.pretrain:pretrain",
    "train_detector": "vidstill.pipelines.train.detector:train_detector",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for, so that `import vidstill` takes no time."""
    if name not in _SOURCES:
        raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
    module, _, attribute = _SOURCES[name].partition(":")
    return getattr(import_module(module), attribute)
