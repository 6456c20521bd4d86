"""A run whose loss explodes says how it goes on in its own directory, and does."""

import re
import shlex

import pytest
from tiny_runs import TEACHER, log, make_data, typed

from vidstill.cli.main import main
from vidstill.engine.checkpoint import get_step, list_states


@pytest.mark.survival("NaN from the second step on, then a lower learning rate", "1→1", "same bits")
def test_the_advice_after_an_explosion_can_be_followed_in_the_same_directory(tmp_path, capsys):
    data, out = make_data(tmp_path / "data") / "unlabelled.txt", tmp_path / "run"
    options = {"optim__base_lr": 1e30, "optim__max_grad_norm": "None", "schedule__epochs": 15, "save_seconds": 0}
    command = typed(TEACHER, data=data, out=out, **options)
    assert main(command) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "consecutive steps" in message
    (advice,) = re.findall(r"--resume-with optim.base_lr=1e\+29", message)
    (step,) = re.findall(r"the state of step (\d+) remains", message)
    states = [get_step(path) for path in list_states(out / "state")]
    assert int(step) == states[-1] < 5
    good = f"{advice.partition('=')[0]}=1e-3 --resume-from {states[0]}"
    assert main([*command, *shlex.split(good)]) == 0
    assert [line["step"] for line in log(out)] == list(range(1, 31))
    assert all(line["loss"] is not None for line in log(out)[states[0] :])
    assert (out / "forks" / "1" / "log.jsonl").exists()
