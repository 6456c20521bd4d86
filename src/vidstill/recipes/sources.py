"""Where a recipe comes from: this package, a Python file or module of the user's own, a run directory or JSON file."""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from vidstill.recipes.recipe import Recipe, find_recipe, list_recipe_names, load_recipes
from vidstill.recipes.run_file import Fork, find_run, upgrade_run
from vidstill.utils.config_io import from_dict, suggest_names
from vidstill.utils.files import RECIPE_FILE
from vidstill.utils.text import format_one_line, join_first
from vidstill.utils.types import InputError

_MAX_NAMES = 8  # of recipes in a message


def open_recipe(source: str) -> Recipe:
    """Return a recipe: of this package, of the user's own code, or of a run.

    Args:
        source: A name, `amd.small_k400`; a variable, `FILE.py:NAME` or `package.module:NAME`; a file that has one
            recipe, `FILE.py`; a run directory; a JSON file: a run's recipe.json, or the output of `recipes --show`.

    Raises:
        InputError: There is no such recipe, or its file cannot be used; the message says what there is.
    """
    path = Path(source)
    if path.suffix == ".json" or (path.is_dir() and source not in load_recipes()):
        return _read_recipe(path / RECIPE_FILE if path.is_dir() else path)
    if is_own_code(source):
        return _load_own_recipe(source)
    if path.is_file():
        raise InputError(f"{source} is no recipe; give a name, a run directory, a .json file, or FILE.py:NAME")
    if os.sep in source:
        raise InputError(f"there is no directory or file {source}")
    if source.replace("-", "_") not in load_recipes() and (own := _find_own_file(source)):
        raise InputError(f"there is no recipe {source!r}; one of your own is {own}")
    return find_recipe(source)


def list_recipes(pattern: str = "*") -> dict[str, Recipe]:
    """Return the recipes of this package whose names match a pattern, or all of the user's own `FILE.py`, by name.

    Raises:
        InputError: There are none.
    """
    if not is_own_code(pattern):
        return {name: find_recipe(name) for name in list_recipe_names(pattern)}
    where, _, part = split_source(pattern)
    if recipes := {name: recipe for name, recipe in load_own_recipes(where).items() if part in name[len(where) :]}:
        return recipes
    raise InputError(f"{where} defines no recipe{f' {part!r}' if part else ''}")


def find_definition(source: str) -> tuple[ModuleType, str] | None:
    """Return the module and the variable of a recipe; None for one of a run or JSON file.

    Raises:
        InputError: There is no such recipe.
    """
    recipe = open_recipe(source)
    if is_own_code(source):
        module = import_own_module(split_source(source)[0])
        return module, next(name for name, value in vars(module).items() if value is recipe)
    if all(recipe is not each for each in load_recipes().values()):
        return None
    family, _, variable = source.replace("-", "_").partition(".")
    return importlib.import_module(f"{__package__}.{family}"), variable


def name_run(source: str) -> str:
    """Return the name of the default run directory of a recipe: `amd.small_k400`, `my_recipes.mine`."""
    where, _, variable = split_source(source)
    path = Path(where)
    if path.name == RECIPE_FILE:
        path = path.absolute().parent
    name = path.stem if path.suffix in (".py", ".json") else path.name
    return f"{name}.{variable}" if variable else name


def is_own_code(source: str) -> bool:
    """Return whether a source is a file or module, or a variable of one."""
    return source.endswith(".py") or ":" in source


def split_source(source: str) -> tuple[str, str, str]:
    """Return file or module, colon and variable; the latter two are empty where the source has none."""
    return source.rpartition(":") if ":" in source else (source, "", "")


def load_own_recipes(where: str) -> dict[str, Recipe]:
    """Return the recipes that a file or module defines, by what can be typed: `FILE.py:NAME`.

    Raises:
        InputError: It cannot be imported.
    """
    imported = {id(recipe) for recipe in load_recipes().values()}  # not defined there
    return {
        f"{where}:{name}": value
        for name, value in vars(import_own_module(where)).items()
        if isinstance(value, Recipe) and id(value) not in imported
    }


def load_variable(source: str) -> Any:
    """Return a variable of a file or module: `FILE.py:NAME`, `package.module:NAME`.

    Raises:
        InputError: There is no such variable, or the module cannot be imported.
    """
    where, _, name = split_source(source)
    variables = vars(import_own_module(where))
    if name not in variables:
        raise InputError(f"{where} has no {name!r}{suggest_names(name, variables)}")
    return variables[name]


def import_own_module(where: str) -> ModuleType:
    """Import a Python file, or a module that is installed or lies in the current directory.

    The directory is searched after all others, so that a file in it cannot take the place of an installed module.

    Raises:
        InputError: There is no such module, it has the name of another one, or its code fails.
    """
    path = Path(where).resolve() if where.endswith(".py") else None
    name = path.stem if path else where
    if path and not path.is_file():
        raise InputError(f"there is no file {where}")
    if path and "." in name:
        raise InputError(f"{where} cannot be imported; rename it to {name.replace('.', '_')}.py")
    add_to_search_path(path.parent if path else Path.cwd())
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise InputError(f"there is no module {name} here; install its package, or run in its directory") from None
        raise InputError(f"{where} cannot be imported: {_describe(error, path)}") from error
    if path and Path(module.__file__ or "").resolve() != path:
        raise InputError(f"{where} has the name of another module, {module.__file__ or name}; rename it")
    return module


def add_to_search_path(directory: Path) -> None:
    """Search a directory for modules too, after all others."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def _describe(error: BaseException, path: Path | None) -> str:
    """Return the line of the file that failed, if it is known, and the exception."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    package = path is not None and "relative import" in str(error)
    hint = "; it is part of a package: give package.module:NAME" if package else ""
    return f"{f'line {lines[-1]}, ' if lines else ''}{format_one_line(f'{kind}{error}')}{hint}"


def _load_own_recipe(source: str) -> Recipe:
    where, _, name = split_source(source)
    recipes = load_own_recipes(where)
    value = load_variable(source) if name in vars(import_own_module(where)) else None
    if not name and len(recipes) == 1:
        (value,) = recipes.values()
    if isinstance(value, Recipe):
        return value
    lacks = "several recipes" if recipes and not name else f"no recipe{f' {name!r}' if name else ''}"
    choice = f"; give one of {join_first(list(recipes), _MAX_NAMES)}" if recipes else "; it defines none"
    raise InputError(f"{where} has {lacks}{choice}")


def _find_own_file(source: str) -> str:
    """Return what may have been meant by `my_recipes.mine`, if there is my_recipes.py; else an empty string."""
    for module, variable in ((source, "NAME"), source.rpartition(".")[::2]):
        path = Path(*module.split(".")).with_suffix(".py") if module.strip(".") else Path()
        if path.is_file():
            return f"{module}:{variable}" if path.parent.name else f"{path}:{variable}"
    return ""


def read_forks(source: str) -> tuple[Fork, ...]:
    """Return the forks of a run whose directory or recipe.json a recipe is read from; none for other recipes."""
    path = Path(source)
    directory = path.parent if path.name == RECIPE_FILE else path
    run = None if is_own_code(source) or source in load_recipes() else find_run(directory)
    return run.forks if run else ()


def _read_recipe(path: Path) -> Recipe:
    """Read a run's recipe.json, or what `recipes --show NAME --json` prints."""
    if path.name == RECIPE_FILE and (run := find_run(path.parent)):
        content: Any = run.content
    else:
        try:
            content = json.loads(path.read_text("utf-8"))
        except OSError:
            raise InputError(f"there is no file {path}; give a run directory, or another recipe") from None
        except (ValueError, RecursionError):
            content = None
    recipe = upgrade_run(content, path).get("recipe") if isinstance(content, dict) else None
    types = {f"{each.__module__}:{each.__name__}": each for each in get_args(Recipe)}
    recipe_type = types.get(str(recipe.get("class"))) if isinstance(recipe, dict) else None
    if recipe_type is None:
        raise InputError(f"{path} holds no recipe; `vidstill recipes --show NAME --json > FILE.json` writes one")
    add_to_search_path(Path.cwd())
    try:
        return from_dict(recipe_type, recipe, own_classes=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
