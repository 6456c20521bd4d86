"""The published checkpoints of the family: what their authors state, and the recipes that go with them."""

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Literal

from vidstill.utils.config_io import from_dict, suggest_names
from vidstill.utils.types import InputError

_MODEL_ZOO_FILE = Path(__file__).with_name("model_zoo.json")


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """A published accuracy in percent; a pre-training's is after fine-tuning on `dataset`."""

    dataset: str
    top1: float
    top5: float | None = None
    views: str  # temporal clips × spatial crops

    def __str__(self) -> str:
        top5 = "" if self.top5 is None else f" / {self.top5}"
        return f"{self.dataset} {self.top1}{top5} ({self.views})"


@dataclass(frozen=True, kw_only=True)
class PublishedCheckpoint:
    """A published file; None: not stated, or not known here."""

    name: str  # ours
    family: str
    kind: Literal["pre-training", "fine-tuned"]
    size: Literal["S", "B", "L", "H", "g"]
    dataset: str  # of its last training
    epochs: int | None = None  # of its pre-training
    num_parameters: int | None = None  # without fixed position tables
    results: tuple[PublishedResult, ...] = ()
    licence: str | None = None  # an SPDX identifier
    paper: str
    url: str  # where its authors publish it, or say where
    hub_repo: str | None = None  # on the Hugging Face Hub
    hub_file: str | None = None  # in that repository, if it holds several
    md5_prefix: str | None = None
    recipe: str | None = None  # of its training
    downstream_recipes: tuple[str, ...] = ()  # that start from it, or have it as a teacher
    note: str = ""


@cache
def list_published_checkpoints() -> tuple[PublishedCheckpoint, ...]:
    """Return all published checkpoints, family by family."""
    content = json.loads(_MODEL_ZOO_FILE.read_text(encoding="utf-8"))
    families = content["families"]
    return tuple(from_dict(PublishedCheckpoint, families[row["family"]] | row) for row in content["checkpoints"])


def find_published_checkpoints(pattern: str = "*") -> list[PublishedCheckpoint]:
    """Return the published checkpoints of a family, or whose name contains or matches a pattern.

    Raises:
        InputError: None does.
    """
    lowered = pattern.casefold()
    wildcard = lowered if "*" in lowered else f"*{lowered}*"
    checkpoints = list_published_checkpoints()
    matching = [each for each in checkpoints if fnmatch(each.name, wildcard) or each.family.casefold() == lowered]
    if not matching:
        hint = suggest_names(lowered, [each.name for each in checkpoints]) or "; `vidstill weights list` lists them"
        raise InputError(f"no published checkpoint matches {pattern!r}{hint}")
    return matching


def identify_published_checkpoint(source: str, md5: str = "") -> PublishedCheckpoint | None:
    """Return the published checkpoint that a file is, by its hash or its repository on the Hub; None: none known here.

    Args:
        source: A path, also one in the Hub's cache, or a URL.
        md5: Of the whole file.
    """
    location = re.sub(r"models--([^/]+?)--([^/]+)", r"\1/\2", source.replace("\\", "/"))
    for each in list_published_checkpoints():
        if each.md5_prefix and md5.startswith(each.md5_prefix):
            return each
        in_repo = each.hub_repo and re.search(rf"(^|[/:]){re.escape(each.hub_repo)}($|[/@:?#])", location)
        if in_repo and location.endswith(each.hub_file or ""):
            return each
    return None
