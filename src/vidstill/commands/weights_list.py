"""What `vidstill weights list` does: its options are the function's signature, read by tyro."""

import json as jsons
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import groupby

from tyro.conf import Positional

from vidstill.terminal import tell
from vidstill.weights.published import Checkpoint, find
from vidstill.weights.spdx import allows_commercial


def listed(pattern: Positional[str] = "*", /, *, commercial: bool = False, json: bool = False) -> None:
    """Lists the published checkpoints of the family: size, accuracy, licence, where they are, and our recipes.

    Args:
        pattern: a part of the names, or a pattern such as "videomae-*-finetuned"; or a family, such as "ST-MAE".
        commercial: only those whose licence is stated and allows commercial use.
        json: as JSON, for programs.
    """
    found = find(pattern)
    free = [each for each in found if allows_commercial(each.licence)]
    shown = free if commercial else found
    if json:
        tell(jsons.dumps([asdict(each) for each in shown], indent=1))
        return
    blocks = [_block(list(of_one)) for _, of_one in groupby(shown, key=lambda each: each.family)]
    left_out = [_left_out(found)] if commercial and len(free) < len(found) else []
    tell("\n\n".join([*blocks, "\n".join([*left_out, _LAST] if blocks else left_out)]))


_LAST = """\
Top-1 / top-5 in percent (clips × crops), of a pre-training after its fine-tuning on that data set; –: not known.
Licences are as the authors state them for the files; the data sets that they learned from have terms of their own."""


def _block(of_one: Sequence[Checkpoint]) -> str:
    """A family's checkpoints: a line for each, with one below it for its recipes and one for what is to be known."""
    first = of_one[0]
    rows = [
        (each.name, each.size, _millions(each), _results(each), each.licence or "–", _where(each)) for each in of_one
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{first.family}, {first.paper}"]
    for each, row in zip(of_one, rows, strict=True):
        lines.append("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        recipes = [f"made by {each.made_by}"] if each.made_by else []
        recipes += [f"used by {', '.join(each.used_by)}"] if each.used_by else []
        lines += [f"      {line}" for line in ("; ".join(recipes), each.note) if line]
    return "\n".join(lines)


def _millions(each: Checkpoint) -> str:
    return f"{each.parameters / 1e6:.1f} M" if each.parameters else "–"


def _results(each: Checkpoint) -> str:
    return ", ".join(map(str, each.results)) or "–"


def _where(each: Checkpoint) -> str:
    return f"https://huggingface.co/{each.hub}" if each.hub else each.page


def _left_out(found: Sequence[Checkpoint]) -> str:
    """How many are not shown with --commercial, and why."""
    verdicts = [allows_commercial(each.licence) for each in found]
    why = {
        "not for commercial use": verdicts.count(False),
        "under no licence that is known here": verdicts.count(None),
    }
    return f"Left out: {', '.join(f'{count} {reason}' for reason, count in why.items() if count)}."


VERBS: dict[str, Callable[..., None]] = {"weights list": listed}
