"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here: `vidstill.pretrain(recipe, launch)`, `finetune`, `evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidstill.encoders.encoder import load
    from vidstill.prediction.ask import predict
    from vidstill.recipes.recipe import find as find_recipe
    from vidstill.run import finetune, pretrain
    from vidstill.testing import evaluate, load_classifier
    from vidstill.training import Launch

__all__ = ["Launch", "evaluate", "find_recipe", "finetune", "load", "load_classifier", "predict", "pretrain"]

_HOMES = {
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
