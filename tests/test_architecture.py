"""Who imports whom: to the right only, never sideways, as docs/architecture.md draws it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import PROJECT

import vidstill

HOUSE = Path(vidstill.__file__).parent
PAGE = (PROJECT / "docs" / "architecture.md").read_text()
LINE = next(line for line in PAGE.splitlines() if line.startswith("    cli → "))
FLOORS = [[room.strip() for room in floor.split(",")] for floor in reversed(LINE.split("→"))]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}  # rooms of one do not know each other
FILES = sorted(HOUSE.rglob("*.py"))


def room_of(module: str) -> str:
    """`vidstill.models.vit` is in the room `models`, `vidstill.pipelines.train.pretrain_command` is the room `run`."""
    return module.split(".")[1]


def module_of(path: Path) -> str:
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the room it comes from"
            module = str(node.module)  # `from vidstill import run` imports a room by its name
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "vidstill" else [module]
        else:
            continue
        yield from (name for name in names if name.startswith("vidstill."))


def names(files: list[Path]) -> list[str]:
    return [str(path.relative_to(HOUSE)) for path in files]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_a_file_imports_only_from_rooms_below_its_own(path: Path) -> None:
    module = module_of(path)
    if module == "vidstill":  # the door of the house stands before all rooms
        return
    mine = room_of(module)
    assert mine in FLOOR, f"{mine} has no place yet: say in the line of docs/architecture.md where it stands"
    for other in imported(path):
        theirs = room_of(other)
        if theirs != mine:
            assert FLOOR[theirs] < FLOOR[mine], f"{module} imports {other}: {mine} must not know {theirs}"


@pytest.mark.parametrize("path", METHODS := [p for p in FILES if p.parent.name == "methods"], ids=names(METHODS))
def test_no_method_imports_another(path: Path) -> None:
    assert [other for other in imported(path) if room_of(other) == "methods"] == []


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_file_opens_with_one_line_on_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, f"{path} does not say what it is for"
    assert text.splitlines()[0].endswith("."), f"{path}: the first line of its docstring is no sentence"


def test_every_room_is_explained_in_the_architecture_page() -> None:
    rooms = {room_of(module_of(path)) for path in FILES if path.parent != HOUSE or path.stem != "__init__"}
    missing = sorted(room for room in rooms if f"`{room}`" not in PAGE and f"`{room}/`" not in PAGE)
    assert missing == []
