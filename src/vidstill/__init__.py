"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here: `vidstill.pretrain(recipe, launch)`, `finetune`, `evaluate`;
`train_detector` and `evaluate_detector` are `detect train` and `detect evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidstill.detection.data import DetectLaunch
    from vidstill.detection.evaluate import evaluate as evaluate_detector
    from vidstill.detection.load import load_detector
    from vidstill.detection.train import train as train_detector
    from vidstill.encoders.encoder import load
    from vidstill.prediction.ask import predict
    from vidstill.recipes.recipe import find as find_recipe
    from vidstill.run import finetune, pretrain
    from vidstill.testing import evaluate, load_classifier
    from vidstill.training import Launch

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
    "DetectLaunch": ("vidstill.detection.data", "DetectLaunch"),
    "evaluate_detector": ("vidstill.detection.evaluate", "evaluate"),
    "load_detector": ("vidstill.detection.load", "load_detector"),
    "train_detector": ("vidstill.detection.train", "train"),
    "find_recipe": ("vidstill.recipes.recipe", "find"),
    "finetune": ("vidstill.run", "finetune"),
    "load": ("vidstill.encoders.encoder", "load"),
    "load_classifier": ("vidstill.testing", "load_classifier"),
    "Launch": ("vidstill.training", "Launch"),
    "evaluate": ("vidstill.testing", "evaluate"),
    "predict": ("vidstill.prediction.ask", "predict"),
    "pretrain": ("vidstill.run", "pretrain"),
}


def __getattr__(name: str) -> Any:
    """Fetched when first asked for: `import vidstill` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
