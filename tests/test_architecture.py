"""The rooms of the package, who may import whom, and the words that no name or message uses."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from paths import PROJECT

import vidstill

PACKAGE = Path(vidstill.__file__).parent
PAGE = (PROJECT / "docs" / "architecture.md").read_text()
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> Iterator[str]:
    """Yield every module of the package that a file imports, wherever in the file the import is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("vidstill."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the room that it comes from"
            if str(node.module).partition(".")[0] == "vidstill":
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in MODULES else str(node.module)


@cache
def list_imports(module: str) -> set[str]:
    return set(imports_of(MODULES[module]))


def floors(start: str) -> dict[str, int]:
    """Read the line of the page that begins so: the floor of each room, counted from the last one."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"    {start}"))
    line = line.partition(":")[2] or line
    return {room.strip(): floor for floor, rooms in enumerate(reversed(line.split("→"))) for room in rooms.split(",")}


ROOMS = floors("cli → ")
SUB_ROOMS = {"data": floors("data: "), "pipelines": floors("pipelines: ")}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "vidstill"])
def test_a_file_imports_only_from_rooms_to_the_right_of_its_own(module):
    room, *inside = module.split(".")[1:]
    assert room in ROOMS, f"{room} has no place in the line of docs/architecture.md"
    for other in list_imports(module):
        other_room, *other_inside = other.split(".")[1:]
        if other_room != room:
            assert ROOMS[other_room] < ROOMS[room], f"{module} imports {other}: {room} must not know {other_room}"
        elif room in SUB_ROOMS and inside and other_inside and inside[0] != other_inside[0]:
            floor = SUB_ROOMS[room]
            assert floor[other_inside[0]] < floor[inside[0]], f"{module} imports {other}"


def test_no_imports_form_a_circle():
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' → '.join((*path[path.index(module) :], module))}"
        if module not in finished:
            for other in list_imports(module):
                visit(other, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


METHODS = [
    module for module in MODULES if re.fullmatch(r"vidstill\.methods\.[a-z]+", module) and "common" not in module
]


@pytest.mark.parametrize("module", METHODS)
def test_no_method_imports_another(module):
    assert not list_imports(module) & set(METHODS)


def test_the_package_has_the_rooms_of_the_page_and_no_others():
    rooms = {path.name for path in PACKAGE.iterdir() if list(path.glob("*.py"))}
    assert rooms == set(ROOMS)
    assert len(rooms) <= 14
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    for room in rooms:
        assert f"\n      {room}/ " in PAGE, f"the tree of the page lacks {room}/"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_one_line_on_its_purpose(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, f"{path} does not say what it is for"
    assert text.splitlines()[0].endswith((".", ":")), f"{path}: the first line of its docstring is no sentence"


# ---- Names and words ------------------------------------------------------------------------------------------------

NO_NAMES = {"told", "kept", "asked", "found", "looked", "standing", "chance", "rehearse", "taken", "alike"}
NO_WORDS = re.compile(r"\b(told|rehearse[sd]?|is asked|are asked|looked at|standing|by chance|highest rate)\b", re.I)


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_are_standard_terms(path):
    wrong = [
        f"line {line}: {name}" for line, name in names_in(ast.parse(path.read_text())) if name.strip("_") in NO_NAMES
    ]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_help_and_comments_are_plain_english(path):
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    wrong = [f"line {token.start[0]}: {match[0]}" for token in tokens if token.type in kinds
             for match in NO_WORDS.finditer(token.string)]  # fmt: skip
    assert wrong == []


def test_one_public_name_is_defined_in_one_file():
    owners: dict[str, str] = {}
    for module, path in MODULES.items():
        if ".recipes." in module:  # recipes are named by file and variable
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in owners, f"{node.name} is defined in {owners[node.name]} and in {module}"
                owners[node.name] = module
