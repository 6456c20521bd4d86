"""The published checkpoints of the family: what their authors state of them, and our recipes that go with them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vidstill.utils.config_io import from_dict, suggest_names
from vidstill.utils.types import InputError

_MODEL_ZOO_FILE = Path(__file__).with_name("model_zoo.json")


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """A published accuracy, in percent; that of a pre-training is after its fine-tuning on `data`."""

    dataset: str
    top1: float
    top5: float | None = None
    views: str  # clips × crops

    def __str__(self) -> str:
        top5 = "" if self.top5 is None else f" / {self.top5}"
        return f"{self.dataset} {self.top1}{top5} ({self.views})"


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """A published file of weights; None: it is not stated, or not known here."""

    name: str  # ours
    family: str
    kind: Literal["pre-training", "fine-tuned"]
    size: Literal["S", "B", "L", "H", "g"]
    dataset: str  # that it learned from last
    epochs: int | None = None  # of the pre-training
    num_parameters: int | None = None  # without tables of positions that are computed
    results: tuple[PublishedResult, ...] = ()
    licence: str | None = None  # an SPDX name
    paper: str
    url: str  # where its authors publish it, or say where
    hub_repo: str | None = None  # its repository on the Hugging Face Hub
    hub_file: str | None = None  # in that repository, where it holds several
    md5_prefix: str | None = None  # how it begins
    recipe: str | None = None  # the recipe of its training
    downstream_recipes: tuple[str, ...] = ()  # recipes that start from it, or have it as a teacher
    note: str = ""


@cache
def list_published_checkpoints() -> tuple[PublishedCheckpoint, ...]:
    """All of them, family by family."""
    stated = json.loads(_MODEL_ZOO_FILE.read_text(encoding="utf-8"))
    families: Mapping[str, Any] = stated["families"]
    return tuple(from_dict(PublishedCheckpoint, families[row["family"]] | row) for row in stated["checkpoints"])


def find_published_checkpoints(pattern: str = "*") -> list[PublishedCheckpoint]:
    """Those whose name holds the pattern, or matches it where it has wildcards; a family's name is one, too.

    Raises:
        InputError: none does.
    """
    asked = pattern.casefold()
    wanted = asked if "*" in asked else f"*{asked}*"
    found = [
        each for each in list_published_checkpoints() if fnmatch(each.name, wanted) or each.family.casefold() == asked
    ]
    if not found:
        hint = (
            suggest_names(asked, [each.name for each in list_published_checkpoints()])
            or "; `vidstill weights list` lists them"
        )
        raise InputError(f"no published checkpoint matches {pattern!r}{hint}")
    return found


def identify_published_checkpoint(source: str, md5: str = "") -> PublishedCheckpoint | None:
    """The published file that weights are, by their content, or by their repository on the Hub; None: none known here.

    Args:
        source: a path, that of the Hub's cache too, or an address.
        md5: of the whole file.
    """
    where = re.sub(r"models--([^/]+?)--([^/]+)", r"\1/\2", source.replace("\\", "/"))
    for each in list_published_checkpoints():
        if each.md5_prefix and md5.startswith(each.md5_prefix):
            return each
        at_hub = each.hub_repo and re.search(rf"(^|[/:]){re.escape(each.hub_repo)}($|[/@:?#])", where)
        if at_hub and where.endswith(each.hub_file or ""):
            return each
    return None
