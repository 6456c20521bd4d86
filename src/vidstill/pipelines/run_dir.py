"""A run's directory: made for a run, or found to be the same run's by what its sources and data hold; locked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidstill.checkpoints.fingerprint import fingerprint_checkpoint, fingerprint_model
from vidstill.checkpoints.io import EMA_MODEL_FILE, Checkpoint, read_checkpoint
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.engine.checkpoint import set_aside
from vidstill.engine.distributed import Runtime
from vidstill.engine.state import read_on_main
from vidstill.pipelines.forks import apply_forks, can_change
from vidstill.recipes.recipe import Recipe
from vidstill.recipes.run_file import Fork, RunFile, find_config_difference, find_run, write_run
from vidstill.utils.checksums import read_checksums
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import PRETRAINING_DIR, RECIPE_FILE, START_FILE, find_difference
from vidstill.utils.output_dir import lock_output_dir
from vidstill.utils.types import InputError

_SHORT = 12  # digits of a fingerprint in a message


@dataclass(frozen=True)
class WeightsSource:
    """Weights that a run learns from: its start, or a teacher.

    Args:
        path: As the user gave it.
        checkpoint: What was read from it.
        model: The model of another library, if that has read it.
    """

    path: str
    checkpoint: Checkpoint
    model: nn.Module | None = None

    def to_dict(self) -> dict[str, str]:
        """Return what a run records; the weights are hashed."""
        fingerprint = fingerprint_checkpoint(self.checkpoint) if self.model is None else fingerprint_model(self.model)
        return {"source": self.path, "fingerprint": fingerprint}


@dataclass(frozen=True)
class RunIdentity:
    """What decides a run's result, and so whether it is the same run.

    Args:
        recipe: As the run was begun.
        forks: The changes since then; the last one may be new.
        sources: By their role; as `WeightsSource.to_dict` gives them.
        others: Settings and datasets, by their names in recipe.json.
    """

    recipe: Any
    forks: Sequence[Fork]
    sources: Mapping[str, Mapping[str, str]]
    others: Mapping[str, Any]

    def build_content(self, forks: Sequence[Fork], original_recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what recipe.json states; with forks, `recipe` is the present one."""
        recipe = {"recipe": to_dict(apply_forks(self.recipe, forks))}
        if forks:
            recipe["original_recipe"] = original_recipe or to_dict(self.recipe)
            recipe["forks"] = [fork.to_dict() | ({"pending": True} if fork.is_pending else {}) for fork in forks]
        return {**recipe, "sources": dict(self.sources), **self.others}

    def find_difference(self, run: RunFile) -> str:
        """Return what makes a stored run another one, or an empty string."""
        return self._find_recipe_difference(run) or self._find_source_difference(run) or self._find_other(run)

    def _find_recipe_difference(self, run: RunFile) -> str:
        kind = type(self.recipe)
        if not run.is_of(kind):
            return f"recipe is a {str(run.content['recipe'].get('class')).rpartition(':')[2]}, here a {kind.__name__}"
        difference = find_config_difference(run.parse_recipe(kind, original=True), self.recipe, "recipe")
        if difference and self.forks and not find_config_difference(run.parse_recipe(kind), self.recipe, "recipe"):
            return ""
        return difference

    def _find_source_difference(self, run: RunFile) -> str:
        stored = run.content.get("sources", {})
        for role in dict.fromkeys((*stored, *self.sources)):
            before, now = stored.get(role, {}), self.sources.get(role, {})
            paths = [f"{each['source']}" if each else "nothing" for each in (before, now)]
            if before.get("fingerprint") and now and before["fingerprint"] != now["fingerprint"]:
                digests = (each["fingerprint"][:_SHORT] for each in (before, now))
                texts = (f"{path} (SHA-256 {digest}…)" for path, digest in zip(paths, digests, strict=True))
                return "{} was {}, and is {} now: its weights are others".format(role.replace("_", " "), *texts)
            if not (before and now) or (not before.get("fingerprint") and before["source"] != now["source"]):
                return f"{role.replace('_', ' ')} is {paths[0]}, here it is {paths[1]}"
        return ""

    def _find_other(self, run: RunFile) -> str:
        return find_difference(run.content, self.others)


def lock_run_dir(out: Path) -> AbstractContextManager[None]:
    """Make a run directory, or check that it holds a run or what `auto` writes before one, and lock it in the block.

    Raises:
        InputError: Another process is writing it, or it holds something else.
    """
    return lock_output_dir(out, kind="a run", marker=RECIPE_FILE, earlier=(START_FILE, PRETRAINING_DIR))


@contextmanager
def open_run_dir(
    out: Path, identity: RunIdentity, metadata: Mapping[str, Any], log: Callable[[str], None]
) -> Iterator[Mapping[str, Any]]:
    """Make a directory this run's, or check that it is, and lock it during the block; a new fork is recorded and made.

    The block is given the further facts as the run was begun.

    Args:
        metadata: Further facts for recipe.json, which are not compared.
        log: Called with a message on a fork.

    Raises:
        InputError: The directory holds something else (it is unchanged then), another process is writing it, or it
            cannot be written.
    """
    with lock_run_dir(out):
        run = find_run(out)
        if run is None:
            write_run(out, {**identity.build_content(identity.forks), **metadata})
            yield metadata
        else:
            facts = {**metadata, **{name: run.content[name] for name in metadata if name in run.content}}
            _resume(out, run, identity, facts, log)
            yield facts


def _resume(
    out: Path, run: RunFile, identity: RunIdentity, facts: Mapping[str, Any], log: Callable[[str], None]
) -> None:
    if difference := identity.find_difference(run):
        name = difference.partition(" is ")[0].removeprefix("recipe.")
        has_option = isinstance(identity.recipe, Recipe)
        mend = f", or change it with --resume-with {name}=…" if has_option and can_change(name) else ""
        raise InputError(f"{out} holds a run with other settings ({difference}); choose another directory{mend}")
    forks = tuple(identity.forks)
    if run.forks not in (forks, forks[:-1]):
        raise InputError(f"{out} has been changed since this command began; type it again")
    sources = {role: {**now, **run.content["sources"][role]} for role, now in identity.sources.items()}
    original_recipe = run.content.get("original_recipe", run.content["recipe"])

    def write(directory: Path, forks: Sequence[Fork]) -> None:
        content = {**run.content, **facts, **identity.build_content(forks, original_recipe), "sources": sources}
        names = content.keys() - (set() if forks else {"original_recipe", "forks"})
        write_run(directory, {name: content[name] for name in content if name in names})

    is_complete = run.content["sources"] == sources and facts.keys() <= run.content.keys()  # of an older version: no
    if run.forks != forks or not is_complete or RECIPE_FILE not in read_checksums(out):
        write(out, forks)
    if forks and forks[-1].is_pending:
        *previous, fork = forks
        aside = set_aside(out, fork.step)
        write(aside, previous)
        write(out, (*previous, replace(fork, is_pending=False)))
        log(f"goes on {fork}; what the run had been after this step is in {aside}")


def load_average(run_dir: Path, model: nn.Module, runtime: Runtime) -> dict[str, Any]:
    """Give the model the averaged weights of a finished run, and return how their epoch was selected."""
    path = run_dir / EMA_MODEL_FILE

    def read() -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        averaged = read_checkpoint(path)
        return averaged.tensors, dict(averaged.metadata.get("model_selection", {}))

    tensors, selection = read_on_main(read, runtime)
    load_state_dict_strict(model, tensors, str(path))
    return selection
