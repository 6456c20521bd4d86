"""What `vidstill weights inspect` does: its options are the function's signature, read by tyro."""

import json as jsons
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tyro.conf import Positional

from vidstill.commands.weights_convert import encoder_of
from vidstill.config import from_plain
from vidstill.models.vit import ViTConfig
from vidstill.terminal import aligned, tell
from vidstill.types import Grid
from vidstill.weights.files import Weights, read_weights
from vidstill.weights.importing import imported
from vidstill.weights.layouts.tables import WORDS
from vidstill.weights.ledger import Entry, Ledger
from vidstill.weights.licences import in_words, licence_of

_SHOWN = 10  # tensors of a kind
_EVEN = ("taken", "renamed")  # what needs no line of its own


def inspect(
    source: Positional[str],
    /,
    *,
    hint: str | None = None,
    allow: tuple[str, ...] = (),
    all: bool = False,
    json: bool = False,
) -> None:
    """Shows what weights are: layout, model, licence, and what becomes of every tensor; nothing is written.

    Args:
        source: a run's folder or a file of weights, ours or others'.
        hint: a recipe whose encoder the file has: its heads, and which positions are computed, where no tensor says so.
        allow: tensors that may be left out though nothing explains them: beginnings of names, or patterns.
        all: a line for every tensor.
        json: as JSON, for programs: every tensor.
    """
    read = read_weights(source)
    if read.about:
        entries = tuple(Entry(name, name, tuple(tensor.shape), "taken") for name, tensor in read.tensors.items())
        weights, ledger = read, Ledger("a file of vidstill", entries)
    else:
        weights, ledger = imported(read, None if hint is None else encoder_of(hint), allow=allow)
    found = _found(weights, ledger)
    if json:
        about = {"licence": licence_of(weights), "provenance": weights.about.get("provenance", [])}
        tell(jsons.dumps(found | about | {"ledger": [asdict(entry) for entry in ledger.entries]}, indent=1))
        return
    notes = [f"  {note}" for note in found.pop("notes")]
    lines = [aligned({name: value for name, value in found.items() if value is not None}), *notes]
    tell("\n".join([*lines, *in_words(weights), *_table(ledger, every=all)]))


def _found(weights: Weights, ledger: Ledger) -> dict[str, Any]:
    """What is said of weights, by name."""
    about = weights.about
    head = about.get("classifier", {})
    told: dict[str, Any] = {
        "source": weights.source,
        "layout": ledger.layout,
        "kind": about.get("kind"),
        "classes": head.get("classes"),
        "parameters": sum(tensor.numel() for tensor in weights.tensors.values()),
    }
    if about.get("encoder"):
        told |= _of_encoder(from_plain(ViTConfig, about["encoder"]))
    counts = Counter(entry.how for entry in ledger.entries)
    return told | {
        "tensors": ", ".join(f"{count} {how}" for how, count in counts.items()),
        "notes": list(ledger.notes),
    }


def _of_encoder(encoder: ViTConfig) -> dict[str, Any]:
    grid = None if encoder.learned_grid is None else Grid(*encoder.learned_grid)
    t, h, w = encoder.tubelet
    return {
        "width": encoder.dim,
        "depth": encoder.depth,
        "heads": encoder.heads,
        "mlp ratio": f"{encoder.mlp_ratio:g}",
        "tubelet": f"{t} × {h} × {w}" + (" (images)" if t == 1 else ""),
        "positions": WORDS[encoder.positions]
        + ("" if grid is None else f", for {grid.t} × {grid.h} × {grid.w} tokens"),
        "class token": "yes" if encoder.class_token else "no",
        "layer scale": "yes" if encoder.layer_scale else "no",
        "attention's biases": {"qv": "queries, values", "qkv": "queries, keys, values"}.get(
            encoder.attention_bias, "none"
        ),
        "layer norms' eps": f"{encoder.norm_eps:g}",
        "colours' mean": " ".join(f"{value:g}" for value in encoder.mean),
        "colours' deviation": " ".join(f"{value:g}" for value in encoder.std),
    }


def _table(ledger: Ledger, *, every: bool) -> list[str]:
    """A line for each tensor; without `every`, for those alone that were not simply taken, the first of each kind."""
    shown: list[Entry] = []
    for how in dict.fromkeys(entry.how for entry in ledger.entries):
        entries = list(ledger.of(how))
        shown += entries if every else [] if how in _EVEN else entries[:_SHOWN]
    if not shown:
        return []
    rows = [(e.how, e.theirs or "–", e.ours or "–", " × ".join(map(str, e.shape)), e.why) for e in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = len(ledger.entries) - len(shown)
    return ["", *lines, *([f"{_counted(left)}: --all shows every one"] if left else [])]


def _counted(left: int) -> str:
    return "one more tensor" if left == 1 else f"{left} more tensors"


VERBS: dict[str, Callable[..., None]] = {"weights inspect": inspect}
