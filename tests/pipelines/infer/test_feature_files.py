"""Files of features: our reader and other people's readers give back what was written."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from vidstill.pipelines.infer.writers.feature_formats import FILE_FORMATS
from vidstill.pipelines.infer.writers.features import FeatureKey, FeatureTable, FileStamp, Segment
from vidstill.utils.types import InputError

METADATA = {"kind": "features", "settings": {"pool": "mean"}, "broken": ['"a" is\nbroken']}
ROWS = (3, 1, 2)
NAMES = ("a b/ü.mp4", "train/ü\\udcff.mp4", "line\nend 漢.mp4")


@pytest.fixture(params=FILE_FORMATS)
def format(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'vidstill[parquet]'")
    return FILE_FORMATS[request.param]


def write(format, path, table):
    with path.open("wb") as file:
        format.write(file, table)
    return path


def columns(arrays: dict[str, np.ndarray]) -> dict:
    """Two segments, of which the second is read out of the middle of arrays."""
    longer = {name: np.concatenate([array[:1], array, array[:1]]) for name, array in arrays.items()}
    num_rows = len(next(iter(arrays.values())))
    return {
        "row_dtype": np.dtype([(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]),
        "segments": [
            Segment(lambda name, first, end: arrays[name][first:end], 0, 2),
            Segment(lambda name, first, end: longer[name][first:end], 3, num_rows - 2),
        ],
    }


def numbers(shape: tuple[int, ...], dtype: str = "<f4") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(sum(ROWS), *shape)).astype(dtype)


ARRAYS = {
    "starts": numbers((), "<f8"),
    "ends": numbers((), "<f8"),
    "block_2": numbers((5,)),
    "final": numbers((2, 3, 5)),
}
TABLE = FeatureTable(
    metadata=METADATA,
    keys=[FeatureKey("train", NAMES[0]), FeatureKey("train", NAMES[1]), FeatureKey("val", NAMES[1])],
    stamps=[FileStamp(2**40, 1795290996908897335), FileStamp(7, -1), FileStamp(-1, -1)],
    labels=np.array([1, -1, 0]),
    classes=("run, fast", "jump"),
    offsets=np.array([0, 3, 4, 6]),
    **columns(ARRAYS),
)
TABLES = {
    "labelled": TABLE,
    "several labels": replace(TABLE, labels=np.array([[1, 1], [0, 0], [0, 1]], np.uint8)),
    "unlabelled": replace(TABLE, labels=None, classes=()),
    "no splits": replace(TABLE, keys=[FeatureKey("", name) for name in NAMES]),
    "views": replace(TABLE, offsets=np.arange(4), **columns({"final": ARRAYS["block_2"][:3]})),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_is_written_is_read_back(tmp_path, format, table):
    read = format.read(write(format, tmp_path / "features", table))
    assert read.metadata == table.metadata
    assert (read.keys, read.stamps, read.classes) == (table.keys, table.stamps, table.classes)
    assert (read.labels is None) == (table.labels is None)
    assert read.labels is None or np.array_equal(read.labels, table.labels)
    assert list(read.offsets) == list(table.offsets)
    assert read.columns == table.columns
    for name, dtype in table.columns.items():
        expected = np.concatenate(list(table.read_chunks(name, 7)))
        for num_rows in (1, 4, 100):
            rows = np.concatenate(list(read.read_chunks(name, num_rows)))
            assert rows.dtype == dtype.base
            assert np.array_equal(rows, expected)


def test_the_same_features_are_the_same_bytes(tmp_path, format):
    one, two = (write(format, tmp_path / name, TABLE).read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_chunk_has_the_same_rows_wherever_the_pieces_end():
    chunks = [len(each) for each in TABLE.read_chunks("final", 4)]
    assert chunks == [4, 2]


def test_other_files_are_read_as_none(tmp_path, format):
    path = write(format, tmp_path / "features", TABLE)
    whole = path.read_bytes()
    for content in (b"", b"words\n", b"\x93NUMPY", bytes(100), whole[:9], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert format.read(path) is None
    write(format, path, replace(TABLE, metadata={"kind": "classifier"}))
    assert format.read(path) is None


class Malice:
    def __reduce__(self):
        return os.mkdir, (os.environ["VIDSTILL_MALICE"],)


@pytest.mark.parametrize("name", ["metadata", "names", "final"])
def test_a_file_with_python_objects_is_read_as_none_and_nothing_runs(tmp_path, monkeypatch, name):
    monkeypatch.setenv("VIDSTILL_MALICE", str(tmp_path / "executed"))
    path = write(FILE_FORMATS["npz"], tmp_path / "features.npz", TABLE)
    arrays = dict(np.load(path))
    objects = np.empty(len(arrays[name]) if arrays[name].ndim else (), object)
    objects[...] = Malice()
    np.savez(path, **{**arrays, name: objects})
    assert FILE_FORMATS["npz"].read(path) is None
    assert not (tmp_path / "executed").exists()


def test_numpy_reads_npz(tmp_path):
    arrays = np.load(write(FILE_FORMATS["npz"], tmp_path / "features.npz", TABLE), allow_pickle=False)
    assert arrays["names"].tolist() == [key.name for key in TABLE.keys]
    assert arrays["splits"].tolist() == ["train", "train", "val"]
    assert json.loads(str(arrays["metadata"])) == METADATA
    for name, array in ARRAYS.items():
        assert np.array_equal(arrays[name], array)


def test_safetensors_reads_safetensors(tmp_path):
    path = write(FILE_FORMATS["safetensors"], tmp_path / "features.safetensors", TABLE)
    arrays = load_file(path)
    assert set(arrays) == {*ARRAYS, "labels", "offsets", "num_bytes", "mtime_ns"}
    for name, array in ARRAYS.items():
        assert np.array_equal(arrays[name], array)
    with safe_open(path, framework="np") as file:
        metadata = json.loads(file.metadata()["vidstill"])
    assert metadata["names"] == [key.name for key in TABLE.keys]
    assert metadata["classes"] == list(TABLE.classes)
    assert metadata["settings"] == METADATA["settings"]


def test_pyarrow_reads_one_row_of_parquet_per_window(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow: pip install 'vidstill[parquet]'")
    rows = pq.read_table(write(FILE_FORMATS["parquet"], tmp_path / "features.parquet", TABLE))
    assert rows["name"].to_pylist() == [NAMES[0]] * 3 + [NAMES[1]] * 3
    assert rows["split"].to_pylist() == ["train"] * 4 + ["val"] * 2
    assert rows["label"].to_pylist() == [1, 1, 1, None, 0, 0]
    assert np.array_equal(np.stack(rows["block_2"].to_pylist()).astype("f4"), ARRAYS["block_2"])
    metadata = json.loads(rows.schema.metadata[b"vidstill"])
    assert metadata["shapes"]["final"] == [2, 3, 5]
    assert np.array_equal(np.array(rows["final"].to_pylist(), "f4").reshape(6, 2, 3, 5), ARRAYS["final"])


def test_parquet_without_pyarrow_says_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'vidstill\[parquet\]'"):
        FILE_FORMATS["parquet"].read(tmp_path / "features.parquet")
