"""Two processes probe as one does: each computes the features of its share, and the first probes them all."""

import os
import subprocess
import sys

import pytest
from tiny_runs import TEACHER, make_data, run


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    """A folder of features and a table from one process, and from two."""
    folder = tmp_path_factory.mktemp("processes")
    data = make_data(folder / "data")
    broken = data / (data / "val.csv").read_text().split()[0]
    broken.write_bytes(b"no video")
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    program = [
        "-m",
        "vidstill.cli",
        "probe",
        "all",
        "teacher",
        "--data",
        "data",
        "--workers",
        "0",
        "--precision",
        "fp32",
    ]
    launch = {"one": [], "two": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, words in launch.items():
        more = ["--cache", name, "--csv", f"{name}.csv", "--shots", "2"]
        command = [sys.executable, *words, *program, *more]
        subprocess.run(command, check=True, cwd=folder, env=environment)
    return folder / "one", folder / "two"


def test_the_features_are_the_same_to_the_byte(roads):
    one, two = ({path.name: path.read_bytes() for path in road.iterdir()} for road in roads)
    assert len(one) == 6  # vectors, tokens and what is in them, of two splits
    assert one == two


def test_the_table_is_the_same(roads):
    one, two = (road.with_suffix(".csv").read_text() for road in roads)
    assert len(one.splitlines()) == 1 + 5  # linear, knn, each with 2 shots as well, and attentive
    assert one == two
