"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run.

The verbs of the command line are functions here, with the same names and defaults:

    run = vidstill.finetune("auto", data="videos")
    predictions = vidstill.predict(run, "new_videos")

`vidstill.open_recipe("amd.small_k400")` returns a recipe to look at; `load_classifier`, `load_encoder` and
`load_detector` return models. An argument that cannot be used raises `vidstill.InputError`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidstill.pipelines.api.evaluate import evaluate as evaluate
    from vidstill.pipelines.api.evaluate import evaluate_detector as evaluate_detector
    from vidstill.pipelines.api.evaluate import probe as probe
    from vidstill.pipelines.api.infer import detect as detect
    from vidstill.pipelines.api.infer import embed as embed
    from vidstill.pipelines.api.infer import predict as predict
    from vidstill.pipelines.api.train import finetune as finetune
    from vidstill.pipelines.api.train import pretrain as pretrain
    from vidstill.pipelines.api.train import train_detector as train_detector
    from vidstill.pipelines.infer.encoder import load_encoder as load_encoder
    from vidstill.pipelines.quickstart.run import quickstart as quickstart
    from vidstill.pipelines.trained_models import load_classifier as load_classifier
    from vidstill.pipelines.trained_models import load_detector as load_detector
    from vidstill.recipes.sources import list_recipes as list_recipes
    from vidstill.recipes.sources import open_recipe as open_recipe
    from vidstill.synthetic.make import make_clips as make_clips
    from vidstill.utils.types import InputError as InputError

_MODULES = {
    "InputError": "utils.types",
    "detect": "pipelines.api.infer",
    "embed": "pipelines.api.infer",
    "evaluate": "pipelines.api.evaluate",
    "evaluate_detector": "pipelines.api.evaluate",
    "finetune": "pipelines.api.train",
    "list_recipes": "recipes.sources",
    "load_classifier": "pipelines.trained_models",
    "load_detector": "pipelines.trained_models",
    "load_encoder": "pipelines.infer.encoder",
    "make_clips": "synthetic.make",
    "open_recipe": "recipes.sources",
    "predict": "pipelines.api.infer",
    "pretrain": "pipelines.api.train",
    "probe": "pipelines.api.evaluate",
    "quickstart": "pipelines.quickstart.run",
    "train_detector": "pipelines.api.train",
}

__all__ = list(_MODULES)


if not TYPE_CHECKING:  # which knows the names above, and no others

    def __getattr__(name: str) -> object:
        """Import a name when it is first used, so that `import vidstill` takes no time."""
        if name == "__version__":
            from importlib.metadata import version

            return version("vidstill")
        if name not in _MODULES:
            raise AttributeError(f"module 'vidstill' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"vidstill.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
