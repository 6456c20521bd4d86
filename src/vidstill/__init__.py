"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here: `vidstill.pretrain(recipe, launch)`, `finetune`, `evaluate`;
`train_detector` and `evaluate_detector` are `detect train` and `detect evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidstill.pipelines.detector_checkpoint import load_detector
    from vidstill.pipelines.evaluate.classifier import evaluate, load_classifier
    from vidstill.pipelines.evaluate.detector import evaluate as evaluate_detector
    from vidstill.pipelines.infer.encoder import load
    from vidstill.pipelines.infer.predict import predict
    from vidstill.pipelines.train.detector import train as train_detector
    from vidstill.pipelines.train.detector_data import DetectLaunch
    from vidstill.pipelines.train.finetune import finetune
    from vidstill.pipelines.train.pretrain import pretrain
    from vidstill.pipelines.train.session import Launch
    from vidstill.recipes.recipe import find as find_recipe

__all__ = [
    "DetectLaunch",
    "Launch",
    "evaluate",
    "evaluate_detector",
    "find_recipe",
    "finetune",
    "load",
    "load_classifier",
    "load_detector",
    "predict",
    "pretrain",
    "train_detector",
]

_HOMES = {
    "DetectLaunch": ("vidstill.pipelines.train.detector_data", "DetectLaunch"),
    "evaluate_detector": ("vidstill.pipelines.evaluate.detector", "evaluate"),
    "load_detector": ("vidstill.pipelines.detector_checkpoint", "load_detector"),
    "train_detector": ("vidstill.pipelines.train.detector", "train"),
    "find_recipe": ("vidstill.recipes.recipe", "find"),
    "finetune": ("vidstill.pipelines.train.finetune", "finetune"),
    "load": ("vidstill.pipelines.infer.encoder", "load"),
    "load_classifier": ("vidstill.pipelines.evaluate.classifier", "load_classifier"),
    "Launch": ("vidstill.pipelines.train.session", "Launch"),
    "evaluate": ("vidstill.pipelines.evaluate.classifier", "evaluate"),
    "predict": ("vidstill.pipelines.infer.predict", "predict"),
    "pretrain": ("vidstill.pipelines.train.pretrain", "pretrain"),
}


def __getattr__(name: str) -> Any:
    """Fetched when first asked for: `import vidstill` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
