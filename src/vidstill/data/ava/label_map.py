"""The actions of a dataset of boxes: their numbers, their names, and which of them are evaluated."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from vidstill.data.ava.box_table import convert_read_errors
from vidstill.data.manifest.parsed import MAX_CLASSES, shorten
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_file, read_text
from vidstill.utils.types import InputError

_LABEL_MAP_PATTERN = re.compile(r"(\s|#.*\n)*\w+\s*:?\s*\{")
_TOKEN_PATTERN = re.compile(r"""\s+|\#.*|[{}:;,]|[\w.+-]+|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
_INTEGER_PATTERN = re.compile(r"[+-]?\d{1,18}")
_ID_FIELDS, _NAME_FIELDS = ("id", "label_id"), ("name", "label_name")

AVA_EVALUATED_IDS = frozenset(  # of its 80 actions, those with at least 25 boxes in the validation set
    {1, *range(3, 16), 17, 20, 22, 24, *range(26, 31), 34, 36, 37, 38, 41, 43, *range(45, 50), 51, 52, 54}
    | {*range(56, 71), 72, 73, 74, *range(76, 81)}
)


@dataclass(frozen=True)
class LabelMap:
    """The actions that a person in a box may perform."""

    names: Mapping[int, str]  # by number, in ascending order; AVA's numbers are 1 to 80
    evaluated_ids: frozenset[int]  # of the actions that a score counts; AVA has 60 of them

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def action_ids(self) -> tuple[int, ...]:
        """Number of each action, in the order of a model's outputs."""
        return tuple(self.names)

    @cached_property
    def id_to_index(self) -> Mapping[int, int]:
        """Index of each action among a model's outputs, by its number."""
        return {number: index for index, number in enumerate(self.names)}


def set_evaluated_actions(label_map: LabelMap, evaluated: LabelMap) -> LabelMap:
    """Return the actions of the first label map; those of the second, which must be among them, are evaluated."""
    if unknown := sorted(evaluated.evaluated_ids - label_map.names.keys()):
        raise InputError(
            f"the action {unknown[0]}, {evaluated.names[unknown[0]]!r}, is evaluated and is not among all "
            f"{len(label_map)} actions; give two lists of one dataset"
        )
    return LabelMap(label_map.names, evaluated.evaluated_ids)


def read_label_map(path: PathOrUrl) -> LabelMap:
    """Read a list of actions, all of them evaluated.

    It is AVA's label map (.pbtxt, in either spelling), lines of `number,name`, or one name per line, numbered from 1.

    Raises:
        InputError: The file cannot be read; the line is named.
    """
    with convert_read_errors(path, "a list of actions"):
        text = read_text(path)
    names: dict[int, str] = {}
    lines: dict[int | str, int] = {}  # line of each number and of each name
    for line, number, name in _parse_pbtxt(path, text) if _LABEL_MAP_PATTERN.match(text) else _parse_lines(path, text):
        if not 1 <= number <= MAX_CLASSES:
            raise InputError(f"line {line} of {path} has the action {number}; number actions from 1")
        if not name:
            raise InputError(f"line {line} of {path} has no name for the action {number}; add one")
        for key in (number, name):
            if key in lines:
                raise InputError(f"line {line} of {path} has the action {key!r}, as line {lines[key]} has; delete one")
            lines[key] = line
        names[number] = name
    if not names:
        raise InputError(f"{path} names no action; give a label map, or write one name per line")
    return LabelMap(dict(sorted(names.items())), frozenset(names))


def _parse_pbtxt(path: PathOrUrl, text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the line of each action, its number and its name."""
    fields: dict[str, tuple[int, str]] | None = None  # line and value of each field of the open block
    key, start = "", 0
    for line, token in _tokenize(path, text):
        if token == "{":
            if fields is not None:
                raise InputError(f"line {line} of {path} opens a block in that of line {start}; close that with }}")
            fields, key, start = {}, "", line
        elif token == "}":
            if fields is None or key:
                raise InputError(f"line {line} of {path} closes a block that is not open or lacks a value; correct it")
            at, number = next((fields[key] for key in _ID_FIELDS if key in fields), (start, ""))
            if not _INTEGER_PATTERN.fullmatch(number):
                raise InputError(
                    f"line {at} of {path} has an action whose id is {number or 'missing'}; write an integer"
                )
            name = next((fields[key][1] for key in _NAME_FIELDS if key in fields), "")
            is_quoted = name[:1] in ("'", '"')
            yield at, int(number), re.sub(r"\\(.)", r"\1", name[1:-1]).strip() if is_quoted else name
            fields = None
        elif not key:
            key = token
        elif fields is None:
            raise InputError(f"line {line} of {path} has {token!r} outside of a block; write item {{ name … id … }}")
        elif key in fields:
            raise InputError(f"line {line} of {path} repeats the {key} of an action; close its block before")
        else:
            fields[key], key = (line, token), ""
    if fields is not None:
        raise InputError(f"line {start} of {path} opens a block that is never closed; download the file again")


def _tokenize(path: PathOrUrl, text: str) -> Iterator[tuple[int, str]]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN_PATTERN.match(text, position)
        if match is None:
            raise InputError(f"line {line} of {path} reads {shorten(text[position:].splitlines()[0])}; quote each name")
        token, position = match[0], match.end()
        if not token.isspace() and token[0] not in "#:;,":
            yield line, token
        line += token.count("\n")


def _parse_lines(path: PathOrUrl, text: str) -> Iterator[tuple[int, int, str]]:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    header = [field.strip(' "').lower() for field in lines[0][1].split(",")] if lines else []
    columns = [next((header.index(key) for key in keys if key in header), -1) for keys in (_ID_FIELDS, _NAME_FIELDS)]
    if -1 not in columns:
        lines = lines[1:]
    elif lines and re.match(r"[+-]?\d+\s*,", lines[0][1]):
        header, columns = ["number", "name"], [0, 1]
    else:
        yield from ((line, number, name) for number, (line, name) in enumerate(lines, 1))
        return
    for line, row in lines:
        fields = next(csv.reader([row], skipinitialspace=True))
        if len(fields) != len(header):
            raise InputError(
                f"line {line} of {path} has {len(fields)} fields, not {','.join(header)}; quote a name that has commas"
            )
        number, name = (fields[column].strip() for column in columns)
        if not _INTEGER_PATTERN.fullmatch(number):
            raise InputError(f"line {line} of {path} has {number!r} for an action's number; write an integer")
        yield line, int(number), name


def read_ava_label_map(directory: PathOrUrl, version: str) -> LabelMap:
    """Read all 80 actions; those that a list for the ActivityNet challenge has are evaluated."""
    challenge = [f"ava_action_list_v{version}_for_activitynet_{year}.pbtxt" for year in (2019, 2018)]
    evaluated = read_label_map(path) if (path := find_first(directory, challenge)) else None
    if path := find_first(directory, [f"ava_action_list_v{version}.pbtxt"]):
        label_map = read_label_map(path)
        if evaluated:
            return set_evaluated_actions(label_map, evaluated)
        return LabelMap(label_map.names, AVA_EVALUATED_IDS)
    if evaluated is None:
        raise InputError(
            f"{directory} has no list of AVA's actions; put ava_action_list_v{version}.pbtxt there, or give a list"
        )
    names = {number: evaluated.names.get(number, f"action {number}") for number in range(1, 81)}
    return LabelMap(names, evaluated.evaluated_ids)  # a model has scores for all


def read_custom_label_map(directory: PathOrUrl) -> LabelMap:
    """Read the list of actions of one's own dataset."""
    if path := find_first(directory, ["actions.pbtxt", "actions.csv", "actions.txt"]):
        return read_label_map(path)
    raise InputError(
        f"{directory} has no list of actions; add actions.csv, a line `number,name` for each, or give a list"
    )


def find_first(directory: PathOrUrl, names: Iterable[str]) -> PathOrUrl | None:
    """Return the first of these files that exists."""
    return next((path for name in names if is_file(path := join_path(directory, name))), None)
