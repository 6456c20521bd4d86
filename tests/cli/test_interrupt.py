"""Ctrl-C or a scheduler's signal in a command that is no run: one true sentence, and the same command works again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from paths import PROJECT
from tiny_predictions import film, write_classifier

from vidstill.cli.main import VERBS, main


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A model, and a data set of a thousand names for one video."""
    house = tmp_path_factory.mktemp("house")
    video = film(house / "film.mp4", 16)
    for number in range(1000):
        folder = house / "data" / ("train" if number % 2 else "val") / ("run" if number % 3 else "wave")
        folder.mkdir(parents=True, exist_ok=True)
        os.link(video, folder / f"{number}.mp4")
    write_classifier(house / "model.safetensors", classes=("run", "wave"))
    return house


def has_begun(process: subprocess.Popen, clips: Path | None) -> bool:
    """Whether a command has workers; or, of `data make`, whether it has written clips."""
    if clips is not None:
        return len(list(clips.rglob("*.mp4"))) > 3
    return any(path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children"))


def interrupt(
    command: list[str], *, cwd: Path, clips: Path | None = None, number: int = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """Run a command and send a signal to its process group, as a terminal or a scheduler does, once it works."""
    arguments = [sys.executable, "-m", "vidstill.cli", *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    listen = partial(signal.signal, number, signal.SIG_DFL)  # a shell's background jobs ignore SIGINT
    with subprocess.Popen(
        arguments, cwd=cwd, env=environment, start_new_session=True, preexec_fn=listen, **pipes
    ) as process:
        deadline = time.monotonic() + 60
        while not has_begun(process, clips):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the children of a process from /proc")
@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ("data make --train 2000 --val 12 --frames 8 --size 32 32 OUT", signal.SIGHUP, 75),
        ("data scan data --workers 2 --out OUT", signal.SIGUSR1, 75),
        ("data pack data --workers 2 --out OUT", signal.SIGTERM, 75),
        ("embed model.safetensors data --workers 2 --out OUT.npz", signal.SIGQUIT, 75),
        ("predict model.safetensors data --workers 2 --out OUT.csv", signal.SIGTERM, 143),
        ("bench data data --max-videos 500", signal.SIGINT, 130),
    ],
    ids=lambda each: " ".join(str(each).split()[:2]),
)
def test_interrupted_command_says_in_one_sentence_what_the_same_command_will_do(house, tmp_path, command, number, code):
    words = [word.replace("OUT", str(tmp_path / "out")) for word in command.split()]
    result = interrupt(words, cwd=house, number=number)
    assert result.returncode == code
    assert "Traceback" not in result.stdout + result.stderr
    cause = "" if number == signal.SIGINT else f" by {number.name}"
    effect = "goes on where it was" if code == 75 else "begins anew"
    assert result.stderr.splitlines()[-1] == f"vidstill: interrupted{cause}; the same command {effect}"
    assert "Exception" not in result.stderr


def test_the_same_data_make_works_after_an_interruption_and_draws_the_same(tmp_path):
    command = ["data", "make", "--train", "100", "--val", "12", "--unlabelled", "0"]
    command += ["--frames", "8", "--size", "32", "32"]
    stopped = interrupt([*command, str(tmp_path / "stopped")], cwd=tmp_path, clips=tmp_path / "stopped")
    assert stopped.returncode == 130
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").rglob("*.mp4")}
    assert 0 < len(drawn) < 112
    assert main([*command, str(tmp_path / "stopped")]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in drawn.items())  # what is there is not drawn again
    assert main([*command, str(tmp_path / "whole")]) == 0
    for path in (tmp_path / "whole").rglob("*.mp4"):
        assert path.read_bytes() == (tmp_path / "stopped" / path.relative_to(tmp_path / "whole")).read_bytes()
    shutil.rmtree(tmp_path / "whole")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_tells_the_truth_about_its_own_resuming(verb, monkeypatch, capsys):
    resumes = verb.split()[0] in ("quickstart", "pretrain", "finetune", "probe", "embed")
    resumes |= verb in ("detect train", "detect boxes", "data make", "data scan", "data pack")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75 if resumes else 143)):
        monkeypatch.setattr("vidstill.cli.main._parse_command", lambda *_, number=number: signal.raise_signal(number))
        assert main(verb.split()) == code
        assert ("goes on where it was" in capsys.readouterr().err) == resumes
