"""Two processes probe as one does: each computes the features of its share of the videos."""

import pytest
from fresh_programs import run_ranks
from tiny_runs import TEACHER, make_data, run

from vidstill.cli.main import main


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """The features (and a table beside them) of one process, and of two."""
    folder = tmp_path_factory.mktemp("processes")
    data = make_data(folder / "data")
    broken = data / (data / "val.csv").read_text().split()[0]
    broken.write_bytes(b"no video")
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "teacher", schedule__epochs=2)
    command = f"probe all {folder}/teacher --data {data} --workers 0 --precision fp32 --shots 2"
    for world_size, name in enumerate(("one", "two"), 1):
        arguments = [*command.split(), "--cache", str(folder / name), "--csv", str(folder / f"{name}.csv")]
        assert run_ranks(main, arguments, world_size=world_size) == [0] * world_size
    return folder / "one", folder / "two"


def test_the_features_and_the_table_are_the_same_to_the_byte(caches):
    one, two = ({path.name: path.read_bytes() for path in cache.iterdir()} for cache in caches)
    assert (
        len([name for name in one if not name.endswith(".sha256")]) == 8
    )  # a table and a description of vectors and of tokens, for two splits
    assert one == two
    one, two = (cache.with_suffix(".csv").read_text() for cache in caches)
    assert len(one.splitlines()) == 1 + 5  # linear and knn, with all clips and with 2 shots, and attentive
    assert one == two
