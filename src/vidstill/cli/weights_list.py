"""`vidstill weights list`: the published checkpoints; torch is not imported."""

import json as jsons
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from tyro.conf import Positional

from vidstill.checkpoints.licences import allows_commercial
from vidstill.checkpoints.model_zoo import PublishedCheckpoint, find_published_checkpoints
from vidstill.cli.options import Json
from vidstill.utils.terminal import align_columns

_FOOTNOTE = """\
Top-1 / top-5 in percent (temporal clips × spatial crops); pre-trainings after fine-tuning on that dataset; –: unknown.
Licences are as the authors state them for the files; the datasets that they were trained on have terms of their own."""


def list_weights(pattern: Positional[str] = "*", /, *, commercial: bool = False, json: Json = False) -> None:
    """List the published checkpoints of the family: size, accuracy, licence, URL, and the recipes that go with them.

    Args:
        pattern: A part of the names, a pattern such as "videomae-*-finetuned", or a family such as "ST-MAE"
        commercial: Only those whose licence is known to allow commercial use
    """
    checkpoints = find_published_checkpoints(pattern)
    selected = [each for each in checkpoints if not commercial or allows_commercial(each.licence)]
    if json:
        print(jsons.dumps([asdict(each) for each in selected], indent=1))
        return
    blocks = [_format_family(list(family)) for _, family in groupby(selected, key=lambda each: each.family)]
    omitted = [_describe_omitted(checkpoints)] if len(selected) < len(checkpoints) else []
    print("\n\n".join([*blocks, "\n".join([*omitted, *([_FOOTNOTE] if blocks else [])])]))


def _format_family(checkpoints: Sequence[PublishedCheckpoint]) -> str:
    """Return one line per checkpoint, followed by its recipes and its note."""
    rows = []
    for each in checkpoints:
        parameters = f"{each.num_parameters / 1e6:.1f} M" if each.num_parameters else "–"
        results = ", ".join(map(str, each.results)) or "–"
        url = f"https://huggingface.co/{each.hub_repo}" if each.hub_repo else each.url
        rows.append((each.name, each.size, parameters, results, each.licence or "–", url))
    lines = [f"{checkpoints[0].family}, {checkpoints[0].paper}"]
    for each, line in zip(checkpoints, align_columns(rows), strict=True):
        lines.append(f"  {line}")
        recipes = [f"trained by {each.recipe}"] if each.recipe else []
        recipes += [f"used by {', '.join(each.downstream_recipes)}"] if each.downstream_recipes else []
        lines += [f"      {line}" for line in ("; ".join(recipes), each.note) if line]
    return "\n".join(lines)


def _describe_omitted(checkpoints: Sequence[PublishedCheckpoint]) -> str:
    """How many checkpoints --commercial leaves out, and why."""
    verdicts = [allows_commercial(each.licence) for each in checkpoints]
    counts = {"not for commercial use": verdicts.count(False), "under no known licence": verdicts.count(None)}
    return f"Left out: {', '.join(f'{count} {reason}' for reason, count in counts.items() if count)}."
