"""No name, metadata or message of a user's file controls the terminal: what would do so is shown escaped."""

import io
import json
import re
import shutil
import sys

import pytest
import torch
from tiny_predictions import write_classifier
from tiny_runs import make_data

from vidstill.checkpoints.io import write_checkpoint
from vidstill.cli.main import main
from vidstill.utils.terminal import TerminalConsole, TerminalProgress, escape_controls

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202egp4"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = tmp_path_factory.mktemp("house")
    video = next(make_data(house / "data").rglob("*.mp4"))
    for split in ("train", "val"):
        for label in (f"left{EVIL}", "right"):
            (house / EVIL / split / label).mkdir(parents=True)
            for number in range(2):
                shutil.copy(video, house / EVIL / split / label / f"{number}{EVIL}.mp4")
            (house / EVIL / split / label / f"broken{EVIL}.mp4").write_bytes(b"no video")
    write_classifier(house / "classifier.safetensors", classes=(f"left{EVIL}", "right", "up"))
    write_checkpoint(house / f"{EVIL}.safetensors", {f"{EVIL}.weight": torch.zeros(1)}, {"kind": EVIL})
    return house


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("data inspect DATA", (), 0),
        ("data inspect DATA --json", (), 0),
        ("data scan DATA --out OUT.jsonl --workers 1", (), 1),
        ("data scan DATA --out OUT2.jsonl --json --workers 1", (), 1),
        ("predict MODEL DATA/val --workers 0", (), 1),
        ("predict MODEL DATA/val --workers 0 --json", (), 1),
        ("embed MODEL DATA --out OUT.npz --workers 0", (), 1),
        ("weights inspect", ("EVIL_FILE",), None),
        ("evaluate MODEL --data DATA --workers 0", (), None),
        ("data inspect", (EVIL,), 2),
        ("recipes", (EVIL,), None),
        ("recipes --show", (EVIL,), 2),
        ("pretrain", (EVIL,), 2),
        ("data make OUT --train", (EVIL,), 2),
        ("weights convert MODEL --out OUT.safetensors --to", (EVIL,), 2),
        (EVIL.replace("a", "data", 1).replace("\x1b", "\x1b", 1), (), 2),
    ],
)
def test_no_control_character_reaches_the_terminal(house, tmp_path, capsys, command, words, code):
    places = {
        "DATA": str(house / EVIL),
        "MODEL": str(house / "classifier.safetensors"),
        "OUT": str(tmp_path / "out"),
        "EVIL_FILE": str(house / f"{EVIL}.safetensors"),
    }
    arguments = [re.sub("DATA|MODEL|EVIL_FILE|OUT", lambda match: places[match[0]], word)
                 for word in (*command.split(" "), *words)]  # fmt: skip
    result = main(arguments)
    out, err = capsys.readouterr()
    assert not RAW.search(out + err)
    if code is not None:
        assert result == code
    if "--json" in arguments:
        json.loads(out)


def test_json_stays_exact():
    text = json.dumps({"name": EVIL})
    assert (
        json.loads(escape_controls(text))
        == json.loads(escape_controls(json.dumps({"name": EVIL}, ensure_ascii=False)))
        == {"name": EVIL}
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_above_a_progress_bar_is_escaped_and_the_bar_is_drawn(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with TerminalProgress(console=TerminalConsole("stderr"), refresh_per_second=0.1) as progress:
        progress.add_task("reading")
        print(f"skipped \x1b[31m{EVIL}\x1b]8;;http://evil\x1b\\", file=sys.stderr)
        progress.console.print(EVIL, markup=False)
    text = terminal.getvalue()
    assert "\\u001b[31ma\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m" in text.replace("\n", "")
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert "\x1b[2K" in text  # the bar's own
