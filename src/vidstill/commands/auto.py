"""What comes before `vidstill finetune auto` reads its options: the recipe, made for the data, that they change."""

from collections.abc import Sequence
from pathlib import Path

from vidstill.auto.choice import Chosen, choose, kept
from vidstill.auto.facts import EXAMPLE, facts_of, machine
from vidstill.auto.rules import RULES
from vidstill.data.annotations import read_listing, splits_of
from vidstill.testing import labelled
from vidstill.types import InputError
from vidstill.weights.transfer import read_known

NAME = "auto"
ABOUT = (
    "The recipe `auto` is made for the data: `vidstill finetune auto --data DATA` counts clips and classes, looks at "
    f"up to {RULES.looked_at} files, at the machine and at what --init names, and says what it picked and why; every "
    "pick is an option that can be typed."
)


def chosen(verb: str, words: Sequence[str]) -> Chosen:
    """The recipe for what the words name; that of the run which the folder holds, where it holds one.

    Args:
        words: that come after the name; without --data, an example stands for it.

    Raises:
        InputError: the data have no labels, or something else that was named cannot be used.
    """
    if verb != "finetune":
        raise InputError(f"{NAME} makes recipes for fine-tuning; type vidstill finetune {NAME}")
    data, init, val, fold = (_value(words, option) for option in ("--data", "--init", "--val", "--fold"))
    out = Path(_value(words, "--out") or f"runs/{NAME}")
    if recipe := kept(out):
        return Chosen(recipe=recipe, picks=(), note=f"goes on with the recipe that {out} holds")
    start = None if init in (None, "None") else read_known(init)
    if data is None:
        return choose(EXAMPLE, start, machine(), third=False)
    listing = labelled(read_listing(data, split="train", fold=int(fold) if fold in ("2", "3") else 1), several=True)
    third = bool(_value(words, "--watch")) or (val is not None and "val" in splits_of(data))
    return choose(facts_of(listing), start, machine(), third=third)


def _value(words: Sequence[str], option: str) -> str | None:
    """The last that is typed for an option, as `--data X` or `--data=X`."""
    found = None
    for word, after in zip(words, [*words[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else after
    return found
