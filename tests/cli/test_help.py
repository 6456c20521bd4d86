"""Every option of every verb says what it is for, in a text of its own."""

import re

import pytest

from vidstill.cli.main import VERBS, main

RECIPES = {
    "pretrain": (
        *("amd.small_k400", "dmae.base_in1k", "imagemae.base_in1k", "maskagain.small_k400", "mvd.small_k400"),
        *("stmae.large_k400", "videomae.base_k400"),
    ),
    "finetune": ("auto", "videomae.base_ssv2_finetune", "imagemae.base_in1k_finetune"),
    "detect train": ("laptop.detect", "amd.base_ava"),
}
COMMANDS = [f"{verb} {recipe}".strip() for verb in VERBS for recipe in RECIPES.get(verb, ("",))]


def read_help_texts(lines: list[str]) -> dict[str, str]:
    """Return the text of each option, without its default and its kinds."""
    texts: dict[str, list[str]] = {}
    for line in lines:
        cells = line[1:-1]  # within the box
        if re.match(r" --\S+, *$", cells):
            continue  # the next line has the same option with no-, and the text
        if option := re.match(r" (?:-h, )?(--[a-z][a-z0-9.-]+)\S*(?:.*?  +(\S.*))?", cells):
            texts[option[1]] = [option[2] or ""]
        elif texts and cells.startswith("       "):
            next(reversed(texts.values())).append(cells.strip())
    return {
        option: re.sub(r"\((default:|required|absent|chosen for|not in|repeatable).*", "", " ".join(text)).strip()
        for option, text in texts.items()
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text_of_its_own(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "79")  # one column of boxes
    assert main([*command.split(), "--help"]) == 0
    texts = read_help_texts(capsys.readouterr().out.splitlines())
    assert len(texts) >= 2
    assert [option for option, text in texts.items() if not text] == []
    options = list(texts)
    neighbours = [pair for pair in zip(options, options[1:], strict=False) if texts[pair[0]] == texts[pair[1]]]
    assert neighbours == []
