"""The published checkpoints of the family: what their authors state of them, and our recipes that go with them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vidstill.utils.config_io import from_plain, near
from vidstill.utils.types import InputError

_FILE = Path(__file__).with_name("model_zoo.json")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A published accuracy, in percent; that of a pre-training is after its fine-tuning on `data`."""

    data: str
    top1: float
    top5: float | None = None
    views: str  # clips × crops

    def __str__(self) -> str:
        top5 = "" if self.top5 is None else f" / {self.top5}"
        return f"{self.data} {self.top1}{top5} ({self.views})"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A published file of weights; None: it is not stated, or not known here."""

    name: str  # ours
    family: str
    kind: Literal["pre-training", "fine-tuned"]
    size: Literal["S", "B", "L", "H", "g"]
    data: str  # that it learned from last
    epochs: int | None = None  # of the pre-training
    parameters: int | None = None  # without tables of positions that are computed
    results: tuple[Result, ...] = ()
    licence: str | None = None  # an SPDX name
    paper: str
    page: str  # where its authors publish it, or say where
    hub: str | None = None  # its repository on the Hugging Face Hub
    file: str | None = None  # in that repository, where it holds several
    md5: str | None = None  # how it begins
    made_by: str | None = None  # the recipe of its training
    used_by: tuple[str, ...] = ()  # recipes that start from it, or have it as a teacher
    note: str = ""


@cache
def published() -> tuple[Checkpoint, ...]:
    """All of them, family by family."""
    stated = json.loads(_FILE.read_text(encoding="utf-8"))
    families: Mapping[str, Any] = stated["families"]
    return tuple(from_plain(Checkpoint, families[row["family"]] | row) for row in stated["checkpoints"])


def find(pattern: str = "*") -> list[Checkpoint]:
    """Those whose name holds the pattern, or matches it where it has wildcards; a family's name is one, too.

    Raises:
        InputError: none does.
    """
    asked = pattern.casefold()
    wanted = asked if "*" in asked else f"*{asked}*"
    found = [each for each in published() if fnmatch(each.name, wanted) or each.family.casefold() == asked]
    if not found:
        hint = near(asked, [each.name for each in published()]) or "; `vidstill weights list` lists them"
        raise InputError(f"no published checkpoint matches {pattern!r}{hint}")
    return found


def recognised(source: str, md5: str = "") -> Checkpoint | None:
    """The published file that weights are, by their content, or by their repository on the Hub; None: none known here.

    Args:
        source: a path, that of the Hub's cache too, or an address.
        md5: of the whole file.
    """
    where = re.sub(r"models--([^/]+?)--([^/]+)", r"\1/\2", source.replace("\\", "/"))
    for each in published():
        if each.md5 and md5.startswith(each.md5):
            return each
        at_hub = each.hub and re.search(rf"(^|[/:]){re.escape(each.hub)}($|[/@:?#])", where)
        if at_hub and where.endswith(each.file or ""):
            return each
    return None
