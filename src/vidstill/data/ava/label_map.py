"""The actions of a data set of boxes: their numbers, names, and which of them a score counts."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from vidstill.data.manifest.parsed import MAX_CLASSES, shorten
from vidstill.data.storage.fetch import PathOrUrl, format_error
from vidstill.data.storage.filesystem import read_text
from vidstill.utils.types import InputError


@dataclass(frozen=True)
class LabelMap:
    """What a person in a box may do.

    Args:
        names: by number, ascending; AVA's numbers are 1 to 80.
        evaluated_ids: the numbers that a score counts; AVA's are 60 of them.
    """

    names: Mapping[int, str]
    evaluated_ids: frozenset[int]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def action_ids(self) -> tuple[int, ...]:
        """By place: the order of a model's scores."""
        return tuple(self.names)

    @cached_property
    def id_to_index(self) -> Mapping[int, int]:
        """By number."""
        return {number: place for place, number in enumerate(self.names)}


def set_evaluated_actions(label_map: LabelMap, evaluated: LabelMap) -> LabelMap:
    """The first ones, of which the second ones are counted: AVA's 80 actions with the 60.

    Raises:
        InputError: an action is counted that is none of the first ones.
    """
    if unknown := sorted(evaluated.evaluated_ids - label_map.names.keys()):
        raise InputError(
            f"the action {unknown[0]}, {evaluated.names[unknown[0]]!r}, is evaluated and is not among all "
            f"{len(label_map)} actions; give two lists of one data set"
        )
    return LabelMap(label_map.names, evaluated.evaluated_ids)


def read_label_map(path: PathOrUrl) -> LabelMap:
    """A list of actions, all of them evaluated.

    It is AVA's label map (.pbtxt, in either spelling), lines of `number,name`, or a name on each line, numbered from 1.

    Raises:
        InputError: it cannot be read; the line is named.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a list of actions that is there") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({format_error(error)}); give a list of actions") from error
    stated = _parse_label_map(path, text) if _LABEL_MAP_PATTERN.match(text) else _parse_action_lines(path, text)
    names: dict[int, str] = {}
    lines: dict[int | str, int] = {}  # that a number and a name were stated on
    for line, number, name in stated:
        if not 1 <= number <= MAX_CLASSES:
            raise InputError(f"line {line} of {path} has the action {number}; actions are numbered from 1")
        if not name:
            raise InputError(f"line {line} of {path} has no name for the action {number}; give it one")
        for each in (number, name):
            if each in lines:
                raise InputError(f"line {line} of {path} has the action {each!r}, as line {lines[each]} has; keep one")
            lines[each] = line
        names[number] = name
    if not names:
        raise InputError(f"{path} names no action; give a label map, or a name on each line")
    return LabelMap(dict(sorted(names.items())), frozenset(names))


_LABEL_MAP_PATTERN = re.compile(r"(\s|#.*\n)*\w+\s*:?\s*\{")
_TOKEN_PATTERN = re.compile(r"""\s+|\#.*|[{}:;,]|[\w.+-]+|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
_ID_FIELDS, _NAME_FIELDS = ("id", "label_id"), ("name", "label_name")


def _parse_label_map(path: PathOrUrl, text: str) -> Iterator[tuple[int, int, str]]:
    """Each block's line, number and name."""
    fields: dict[str, tuple[int, str]] | None = None  # of the open block; by word, where a value stands and which
    word, begun = "", 0
    for line, token in _tokenize(path, text):
        if token == "{":
            if fields is not None:
                raise InputError(f"line {line} of {path} opens a block in the one of line {begun}; close that with }}")
            fields, word, begun = {}, "", line
        elif token == "}":
            if fields is None or word:
                raise InputError(f"line {line} of {path} closes a block that is not open or lacks a value; mend it")
            yield _parse_item(path, begun, fields)
            fields = None
        elif not word:
            word = token
        elif fields is None:
            raise InputError(f"line {line} of {path} has {token!r} outside of a block; write item {{ name … id … }}")
        else:
            if word in fields:
                raise InputError(f"line {line} of {path} states the {word} of an action again; close its block before")
            fields[word], word = (line, token), ""
    if fields is not None:
        raise InputError(f"line {begun} of {path} opens a block that is never closed; the file is cut, fetch it again")


def _tokenize(path: PathOrUrl, text: str) -> Iterator[tuple[int, str]]:
    place, line = 0, 1
    while place < len(text):
        found = _TOKEN_PATTERN.match(text, place)
        if found is None:
            raise InputError(f"line {line} of {path} reads {shorten(text[place:].splitlines()[0])}; quote each name")
        token, place = found[0], found.end()
        if not token.isspace() and token[0] not in "#:;,":
            yield line, token
        line += token.count("\n")


def _parse_item(path: PathOrUrl, begun: int, fields: Mapping[str, tuple[int, str]]) -> tuple[int, int, str]:
    line, number = next((fields[word] for word in _ID_FIELDS if word in fields), (begun, ""))
    if not re.fullmatch(r"[+-]?\d{1,18}", number):
        raise InputError(f"line {line} of {path} has an action whose id is {number or 'missing'}; give a whole number")
    _, name = next((fields[word] for word in _NAME_FIELDS if word in fields), (begun, ""))
    quoted = name[:1] in ("'", '"')
    return line, int(number), re.sub(r"\\(.)", r"\1", name[1:-1]).strip() if quoted else name


def _parse_action_lines(path: PathOrUrl, text: str) -> Iterator[tuple[int, int, str]]:
    """Each line's own number, the action's, and its name."""
    lines = [(line, each.strip()) for line, each in enumerate(text.split("\n"), 1) if each.strip()]
    head = [word.strip(' "').lower() for word in lines[0][1].split(",")] if lines else []
    where = [next((head.index(word) for word in words if word in head), None) for words in (_ID_FIELDS, _NAME_FIELDS)]
    if None not in where:
        lines = lines[1:]
    elif lines and re.match(r"[+-]?\d+\s*,", lines[0][1]):
        head, where = ["number", "name"], [0, 1]
    else:
        yield from ((line, number, name) for number, (line, name) in enumerate(lines, 1))
        return
    for line, each in lines:
        fields = next(csv.reader([each], skipinitialspace=True))
        if len(fields) != len(head):
            raise InputError(
                f"line {line} of {path} has {len(fields)} fields where {len(head)} are wanted, {','.join(head)}; "
                "put a name that has commas into quotes"
            )
        number, name = (fields[place].strip() for place in where if place is not None)
        if not re.fullmatch(r"[+-]?\d{1,18}", number):
            raise InputError(f"line {line} of {path} has {number!r} for an action's number; give a whole number")
        yield line, int(number), name
