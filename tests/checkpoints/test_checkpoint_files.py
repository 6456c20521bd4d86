"""Checkpoints are written whole or not at all, and what is no checkpoint is refused in one sentence."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

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


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / MODEL_FILE
    write_checkpoint(path, TENSORS, METADATA)
    old = path.read_bytes()

    (tmp_path / f"{MODEL_FILE}.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left"):
        write_checkpoint(path, {"other": torch.zeros(100)}, {})
    assert path.read_bytes() == old


def test_flipped_bits_of_a_native_file_are_refused_wherever_they_are(tmp_path):
    path = tmp_path / MODEL_FILE
    write_checkpoint(path, TENSORS, METADATA)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 7):
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        with pytest.raises(InputError):
            read_checkpoint(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert re.search(
        r"model.safetensors is damaged: .* SHA-256 .*; fetch it again, or, if it is of a run, delete it",
        read_error(path),
    )


def test_a_checksum_is_of_the_bytes_with_its_own_digits_as_zeros(tmp_path):
    path = tmp_path / MODEL_FILE
    write_checkpoint(path, TENSORS, METADATA)
    with safe_open(path, framework="pt") as file:
        checksum = file.metadata()["vidstill_sha256"].encode()
    assert hashlib.sha256(path.read_bytes().replace(checksum, b"0" * 64)).hexdigest().encode() == checksum


def test_files_of_others_and_of_older_versions_have_no_checksum(tmp_path):
    for metadata in (None, {"format": "pt"}, {"author": "me"}, {"format": "pt", "vidstill": json.dumps(METADATA)}):
        save_file(TENSORS, tmp_path / "old.safetensors", metadata)
        assert read_checkpoint(tmp_path / "old.safetensors").metadata == (
            METADATA if "vidstill" in (metadata or {}) else {}
        )


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
