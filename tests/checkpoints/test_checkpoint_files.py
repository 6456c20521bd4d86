"""Checkpoints are written whole or not at all, and what is no checkpoint is refused in one sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vidstill.checkpoints import io as checkpoint_io
from vidstill.checkpoints.io import MODEL_FILE, read_checkpoint, write_checkpoint
from vidstill.utils.types import InputError

TENSORS = {"encoder.patch_embed.bias": torch.arange(5.0), "head.weight": torch.ones(2, 3, dtype=torch.bfloat16)}
METADATA = {"kind": "classifier", "classes": ["fall", "läuft"], "nested": {"numbers": [1, 2.5, None]}}


def read_error(path: Path) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    return str(error.value)


def test_a_run_directory_is_read_by_its_model_with_its_metadata(tmp_path):
    write_checkpoint(tmp_path / MODEL_FILE, TENSORS, METADATA)
    checkpoint = read_checkpoint(str(tmp_path))
    assert checkpoint.source == str(tmp_path / MODEL_FILE)
    assert checkpoint.metadata == METADATA
    assert checkpoint.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[name], tensor)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_FILE] == ["model.safetensors"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / MODEL_FILE
    write_checkpoint(path, TENSORS, METADATA)
    old = path.read_bytes()

    def fill_the_disk(*_: object) -> Iterator[bytes]:
        yield old[: len(old) // 2]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_io, "_iterate_safetensors", fill_the_disk)
    with pytest.raises(InputError, match="No space left"):
        write_checkpoint(path, {"other": torch.zeros(100)}, {})
    assert path.read_bytes() == old


def test_a_path_without_a_checkpoint_is_refused_with_what_to_give(tmp_path):
    assert "give a run directory, a .safetensors or a .pth file" in read_error(tmp_path / "nothing.pth")
    assert f"holds no {MODEL_FILE}" in read_error(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail))
@example(b"\x80\x02}q\x00")
@example(b"PK\x03\x04 half a zip")
@example(bytes(100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_bytes_are_refused(tmp_path, content):
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).write_bytes(content)
        read_error(tmp_path / name)


@pytest.mark.parametrize("content", [{}, [1, 2], torch.ones(3), {"model": {}}, {"epoch": 3}, {"model": {"a": 1}}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert "holds no named tensors" in read_error(tmp_path / "a.pth")
