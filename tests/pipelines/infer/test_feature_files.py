"""Files of features: what is written comes back, by our reader and by everybody else's."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from vidstill.pipelines.infer.embed_config import FeatureKey, FileStamp
from vidstill.pipelines.infer.writers import npz, parquet
from vidstill.pipelines.infer.writers import safetensors as tensors
from vidstill.pipelines.infer.writers.feature_table import FeatureColumn, FeatureTable, build_npy_header
from vidstill.utils.types import InputError

FORMATS = {"npz": npz, "safetensors": tensors, "parquet": parquet}
ABOUT = {"kind": "features", "settings": {"pool": "mean"}, "broken": ['"a" is\nbroken']}
ROWS = (3, 1, 2)
NAMES = ("a b/ü.mp4", "train/ü\\udcff.mp4", "line\nend 漢.mp4")


@pytest.fixture(params=FORMATS)
def kind(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'vidstill[parquet]'")
    return request.param


def column(array: np.ndarray) -> FeatureColumn:
    def chunks(step):
        return (array[first : first + step] for first in range(0, len(array), step))

    return FeatureColumn(array.dtype.str, array.shape[1:], chunks)


def numbers(shape: tuple[int, ...], kind: str = "<f4") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(sum(ROWS), *shape)).astype(kind)


ARRAYS = {
    "starts": numbers((), "<f8"),
    "ends": numbers((), "<f8"),
    "block_2": numbers((5,)),
    "final": numbers((2, 3, 5)),
}
TABLE = FeatureTable(
    metadata=ABOUT,
    keys=[FeatureKey("train", NAMES[0]), FeatureKey("train", NAMES[1]), FeatureKey("val", NAMES[1])],
    stamps=[FileStamp(2**40, 1795290996908897335), FileStamp(7, -1), FileStamp(-1, -1)],
    labels=np.array([1, -1, 0]),
    classes=("run, fast", "jump"),
    offsets=np.array([0, 3, 4, 6]),
    columns={name: column(array) for name, array in ARRAYS.items()},
)
TABLES = {
    "labelled": TABLE,
    "several labels": replace(TABLE, labels=np.array([[1, 1], [0, 0], [0, 1]], np.uint8)),
    "unlabelled": replace(TABLE, labels=None, classes=()),
    "no splits": replace(TABLE, keys=[FeatureKey("", name) for name in NAMES]),
    "views": replace(
        TABLE,
        offsets=np.arange(4),
        columns={"final": column(ARRAYS["block_2"][:3])},
    ),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_is_written_is_read_again(tmp_path, kind, table):
    path = tmp_path / "features"
    with path.open("wb") as file:
        FORMATS[kind].write(file, table)
    found = FORMATS[kind].read(path)
    assert found.about == table.about
    assert (found.keys, found.stamps, found.classes) == (table.keys, table.stamps, table.classes)
    assert (found.labels is None) == (table.labels is None)
    assert found.labels is None or np.array_equal(found.labels, table.labels)
    assert found.says_what(table)
    assert list(found.offsets) == list(table.offsets)
    assert list(found.columns) == list(table.columns)
    for name, each in found.columns.items():
        for step in (1, 4, 100):
            whole = np.concatenate(list(each.chunks(step)))
            assert whole.dtype == np.dtype(each.kind)
            assert np.array_equal(whole, np.concatenate(list(table.columns[name].chunks(7))))


def test_the_same_features_are_the_same_bytes(tmp_path, kind):
    for name in ("one", "other"):
        with (tmp_path / name).open("wb") as file:
            FORMATS[kind].write(file, TABLE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_is_no_file_of_features_is_none(tmp_path, kind):
    path = tmp_path / "features"
    with path.open("wb") as file:
        FORMATS[kind].write(file, TABLE)
    whole = path.read_bytes()
    for part in (b"", b"words\n", b"\x93NUMPY", bytes(100), whole[:9], whole[: len(whole) // 2]):
        path.write_bytes(part)
        assert FORMATS[kind].read(path) is None
    with path.open("wb") as file:
        FORMATS[kind].write(file, replace(TABLE, metadata={"kind": "classifier"}))
    assert FORMATS[kind].read(path) is None


def test_numpy_reads_npz(tmp_path):
    with (tmp_path / "features.npz").open("wb") as file:
        npz.write_npz(file, TABLE)
    found = np.load(tmp_path / "features.npz", allow_pickle=False)
    assert found["names"].tolist() == [key.name for key in TABLE.keys]
    assert found["splits"].tolist() == ["train", "train", "val"]
    assert json.loads(str(found["about"])) == ABOUT
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)


def test_safetensors_reads_safetensors(tmp_path):
    with (tmp_path / "features.safetensors").open("wb") as file:
        tensors.write_feature_safetensors(file, TABLE)
    found = load_file(tmp_path / "features.safetensors")
    assert set(found) == {*ARRAYS, "labels", "offsets", "bytes", "modified"}
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
    with safe_open(tmp_path / "features.safetensors", framework="np") as file:
        about = json.loads(file.metadata()["vidstill"])
    assert about["names"] == [key.name for key in TABLE.keys]
    assert about["classes"] == list(TABLE.classes)
    assert about["settings"] == ABOUT["settings"]


def test_pyarrow_reads_parquet_a_row_for_each_window(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow: pip install 'vidstill[parquet]'")
    with (tmp_path / "features.parquet").open("wb") as file:
        parquet.write_parquet(file, TABLE)
    found = pq.read_table(tmp_path / "features.parquet")
    assert found["name"].to_pylist() == [NAMES[0]] * 3 + [NAMES[1]] * 3
    assert found["split"].to_pylist() == ["train"] * 4 + ["val"] * 2
    assert found["label"].to_pylist() == [1, 1, 1, None, 0, 0]
    assert np.array_equal(np.stack(found["block_2"].to_pylist()).astype("f4"), ARRAYS["block_2"])
    about = json.loads(found.schema.metadata[b"vidstill"])
    assert about["shapes"]["final"] == [2, 3, 5]
    assert np.array_equal(np.array(found["final"].to_pylist(), "f4").reshape(6, 2, 3, 5), ARRAYS["final"])


def test_parquet_without_pyarrow_says_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'vidstill\[parquet\]'"):
        parquet.read_parquet(tmp_path / "features.parquet")


@given(st.lists(st.integers(0, 10**6), max_size=4), st.sampled_from(["<f4", "<f8", "<i8"]))
def test_the_head_of_an_npy_file_is_as_numpy_reads_it_and_always_as_long(tmp_path_factory, shape, kind):
    head = build_npy_header(kind, tuple(shape))
    assert len(head) == len(build_npy_header("<f4", (0, 1)))
    path = tmp_path_factory.mktemp("npy") / "head.npy"
    path.write_bytes(head)
    with path.open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == (tuple(shape), False, np.dtype(kind))
        assert file.read() == b""
