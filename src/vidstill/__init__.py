"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here: `vidstill.pretrain(recipe, launch)`, `finetune`, `evaluate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidstill.recipes.recipe import find as find_recipe
    from vidstill.run import evaluate, finetune, load_classifier, pretrain
    from vidstill.training import Launch

__all__ = ["Launch", "evaluate", "find_recipe", "finetune", "load_classifier", "pretrain"]

_HOMES = {"find_recipe": ("vidstill.recipes.recipe", "find"), "Launch": ("vidstill.training", "Launch")}


def __getattr__(name: str) -> Any:
    """Fetched when first asked for: `import vidstill` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
    module, attribute = _HOMES.get(name, ("vidstill.run", name))
    return getattr(import_module(module), attribute)
