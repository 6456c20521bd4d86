"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here: `vidstill.pretrain(recipe, run_config)`, `finetune`,
`evaluate_classifier`, `predict`; `train_detector` and `evaluate_detector` are `detect train` and `detect evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidstill.pipelines.box_data import BoxDataConfig as BoxDataConfig
    from vidstill.pipelines.evaluate.classifier import evaluate_classifier as evaluate_classifier
    from vidstill.pipelines.evaluate.detector import run_detector_evaluation as evaluate_detector  # noqa: F401
    from vidstill.pipelines.infer.encoder import load_encoder as load_encoder
    from vidstill.pipelines.infer.predict import predict as predict
    from vidstill.pipelines.run_config import DetectRunConfig as DetectRunConfig
    from vidstill.pipelines.run_config import FinetuneRunConfig as FinetuneRunConfig
    from vidstill.pipelines.run_config import RunConfig as RunConfig
    from vidstill.pipelines.run_config import Workers as Workers
    from vidstill.pipelines.train.detector import run_detector_training as train_detector  # noqa: F401
    from vidstill.pipelines.train.finetune import run_finetuning as finetune  # noqa: F401
    from vidstill.pipelines.train.pretrain import run_pretraining as pretrain  # noqa: F401
    from vidstill.pipelines.trained_models import load_classifier as load_classifier
    from vidstill.pipelines.trained_models import load_detector as load_detector
    from vidstill.recipes.recipe import find_recipe as find_recipe

_MODULES = {
    "BoxDataConfig": "pipelines.box_data",
    "DetectRunConfig": "pipelines.run_config",
    "FinetuneRunConfig": "pipelines.run_config",
    "RunConfig": "pipelines.run_config",
    "Workers": "pipelines.run_config",
    "evaluate_classifier": "pipelines.evaluate.classifier",
    "evaluate_detector": "pipelines.evaluate.detector:run_detector_evaluation",
    "find_recipe": "recipes.recipe",
    "finetune": "pipelines.train.finetune:run_finetuning",
    "load_classifier": "pipelines.trained_models",
    "load_detector": "pipelines.trained_models",
    "load_encoder": "pipelines.infer.encoder",
    "predict": "pipelines.infer.predict",
    "pretrain": "pipelines.train.pretrain:run_pretraining",
    "train_detector": "pipelines.train.detector:run_detector_training",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `import vidstill` takes no time."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
    module, _, own_name = _MODULES[name].partition(":")
    return getattr(import_module(f"vidstill.{module}"), own_name or name)
