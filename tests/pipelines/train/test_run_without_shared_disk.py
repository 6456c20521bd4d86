"""Two processes with a run directory each: rank 0's holds the run, and the other one needs none."""

import shlex
import shutil
import subprocess
import sys

import pytest
from tiny_runs import TEACHER, make_data, typed


@pytest.mark.nightly
@pytest.mark.survival("lost disk of a node after the run's end", "2→2", "same bits")
def test_finished_run_is_loaded_by_the_ranks_that_have_no_directory(tmp_path):
    data = make_data(tmp_path / "data") / "unlabelled.txt"
    arguments = typed(TEACHER, data=data, schedule__epochs=2)
    command = f"exec {shlex.join([sys.executable, '-m', 'vidstill.cli', *arguments])} --out {tmp_path}/disk$RANK"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    for text in ("step 4/4", "holds the finished run"):
        process = subprocess.run([*launch, "sh", "-c", command], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert text in process.stderr
        assert (tmp_path / "disk0" / "model.safetensors").exists()
        shutil.rmtree(tmp_path / "disk1", ignore_errors=True)
