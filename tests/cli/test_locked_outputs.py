"""Whatever writes an output refuses it while another process writes it, with one sentence and exit code 2."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from lock_holder import hold_in_other_process
from tiny_detectors import write_detector
from tiny_predictions import write_classifier
from tiny_runs import FINETUNE, TEACHER, make_data

from vidstill.cli.main import main
from vidstill.utils import locks
from vidstill.utils.locks import LOCK_FILE, hold_lock, lock_outputs


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = tmp_path_factory.mktemp("house")
    make_data(house / "data")
    shutil.copy(next((house / "data").rglob("*.mp4")), house / "one.mp4")
    write_classifier(house / "classifier.safetensors")
    write_detector(house / "detector.safetensors")
    return house


DIRECTORIES = {  # that are made for one work
    "data make": "data make {out} --train 2 --val 2 --unlabelled 2",
    "data split": "data split {house}/data/train.csv --out {out}",
    "data pack": "data pack {house}/data --out {out}",
    "pretrain": TEACHER + " --data {house}/data/unlabelled.txt --out {out}",
    "finetune": FINETUNE + " --data {house}/data --out {out}",
}
OTHERS = {
    "data scan": "data scan {house}/data --out {out}.jsonl",
    "data inspect": "data inspect {house}/data --contact-sheet {out}.png",
    "evaluate": "evaluate {house}/classifier.safetensors --data {house}/data --out {out}",
    "detect evaluate": "detect evaluate {house}/boxes.csv --data {house}/data --out {out}",
    "predict": "predict {house}/classifier.safetensors {house}/one.mp4 --out {out}.csv",
    "predict, a folder": "predict {house}/classifier.safetensors {house}/one.mp4 --out {out}",
    "predict, a plot": "predict {house}/classifier.safetensors {house}/one.mp4 --plot {out}.png",
    "embed": "embed {house}/classifier.safetensors {house}/one.mp4 --out {out}.npz",
    "embed, a folder": "embed {house}/classifier.safetensors {house}/one.mp4 --out {out}",
    "probe": "probe knn {house}/classifier.safetensors --data {house}/data --csv {out}.csv",
    "weights convert": "weights convert {house}/classifier.safetensors --to vidstill --out {out}.safetensors",
    "export": "weights convert {house}/classifier.safetensors --to torch --out {out}.pt2",
    "quickstart": "quickstart --out {out}",
}


@pytest.mark.survival("second process that writes with any verb", "1→1", "refused with a sentence")
@pytest.mark.parametrize("verb", [*DIRECTORIES, *OTHERS])
def test_an_output_that_another_process_writes_is_refused(house, tmp_path, verb, monkeypatch, capsys):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.0)
    command = {**DIRECTORIES, **OTHERS}[verb].format(house=house, out=tmp_path / "out")
    out = next(Path(word) for word in command.split() if word.startswith(str(tmp_path)))
    lock = partial(hold_lock, out / LOCK_FILE, out) if verb in DIRECTORIES else partial(lock_outputs, out)
    with hold_in_other_process(lock) as owner:
        before = sorted(map(str, tmp_path.rglob("*")))
        assert main(command.split()) == 2
        assert sorted(map(str, tmp_path.rglob("*"))) == before
    error = capsys.readouterr().err
    assert f"vidstill: {out} is being written by process {owner.pid} on " in error
    assert len([line for line in error.splitlines() if line.startswith("vidstill: ")]) == 1


@pytest.mark.nightly
@pytest.mark.survival("second process that starts the same pack at the same moment", "1→1", "same bits")
def test_two_packs_that_start_together_end_with_the_bytes_of_one(house, tmp_path):
    def pack(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "vidstill.cli", "data", "pack", str(house / "data"), "--out", str(out)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    alone = pack(tmp_path / "alone")
    alone.communicate()
    both = [pack(tmp_path / "shared") for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert alone.returncode == codes[0] == 0
    assert codes[1] == 0 or any(b"is being written by process" in error for error in errors)
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("alone", "shared")]
    assert contents[0] == contents[1]
