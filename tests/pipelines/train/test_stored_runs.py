"""Runs that older versions of the code began are resumed: see tests/stored_runs/README.md."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import log, weights

from vidstill.cli.main import main

STORED = Path(__file__).parents[2] / "stored_runs"
RUNS = [
    (path.parent.name, name) for path in STORED.glob("*/runs.json") for name in json.loads(path.read_text())["runs"]
]


def read_machine() -> dict[str, str]:
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": cpus[0].partition(":")[2].strip() if cpus else "",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def hash_weights(out: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights(out).items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.survival("upgrade of vidstill", "1→1", "same bits")
@pytest.mark.parametrize(("version", "name"), RUNS)
def test_a_run_that_an_older_version_began_ends_as_it_would_have_there(version, name, tmp_path, monkeypatch, capsys):
    """Its losses; and its bits, where the processor and torch are those on which the stored run was made."""
    shutil.copytree(STORED / version, tmp_path / version)
    monkeypatch.chdir(tmp_path / version)
    facts = json.loads(Path("runs.json").read_text())
    run, machine, before = facts["runs"][name], facts["machine"], log(Path(name))
    assert main(run["command"].split()) == 0
    assert f"resuming after step {run['saved_step']} of {len(run['losses'])}" in capsys.readouterr().err
    assert log(Path(name))[: run["saved_step"]] == before[: run["saved_step"]]
    losses = [line["loss"] for line in log(Path(name))]
    assert losses == pytest.approx(run["losses"], rel=1e-5)
    if read_machine() == machine:
        assert losses == run["losses"]
        assert hash_weights(Path(name)) == run["sha256"]
