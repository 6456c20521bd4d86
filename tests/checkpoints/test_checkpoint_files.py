"""Files of weights: written whole or not at all, read without being run, and refused in one sentence."""

import argparse
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vidstill.checkpoints import io as files
from vidstill.checkpoints.io import MODEL_FILE, read_checkpoint, write_checkpoint
from vidstill.utils.types import InputError

TENSORS = {"encoder.patch_embed.bias": torch.arange(5.0), "head.weight": torch.ones(2, 3, dtype=torch.bfloat16)}
ABOUT = {"kind": "classifier", "classes": ["fall", "läuft"], "nested": {"numbers": [1, 2.5, None]}}


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert path.name in sentence
    return sentence


def test_what_is_written_is_read_again_with_what_it_says_of_itself(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors", TENSORS, ABOUT)
    found = read_checkpoint(tmp_path / "a.safetensors")
    assert found.metadata == ABOUT
    assert set(found.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_a_runs_folder_is_read_by_its_model(tmp_path):
    write_checkpoint(tmp_path / MODEL_FILE, TENSORS, ABOUT)
    assert read_checkpoint(tmp_path).metadata == ABOUT
    assert read_checkpoint(str(tmp_path)).source == str(tmp_path / MODEL_FILE)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / MODEL_FILE
    write_checkpoint(path, TENSORS, ABOUT)
    old = path.read_bytes()

    def full(*_: object) -> Iterator[bytes]:
        yield old[: len(old) // 2]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_iterate_safetensors", full)
    with pytest.raises(InputError, match="No space left"):
        write_checkpoint(path, {"other": torch.zeros(100)}, {})
    assert path.read_bytes() == old


def test_a_file_that_is_not_there_is_met_with_what_to_give(tmp_path):
    assert "give a run directory, a .safetensors or a .pth file" in refusal(tmp_path / "nothing.pth")


def test_a_folder_without_a_model_is_met_with_why(tmp_path):
    assert f"holds no {MODEL_FILE}" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00", b"PK\x03\x04 half a zip", bytes(100)])
def test_garbage_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_bytes_are_refused_and_never_an_error_of_ours(tmp_path, content):
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).write_bytes(content)
        refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, name):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save({"model": {"weight": torch.ones(1000)}}, path)
    else:
        save_file({"weight": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 1, 20):
        path.write_bytes(whole[:length])
        refusal(path)


def test_metadata_that_is_no_json_is_refused(tmp_path):
    save_file({"weight": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"vidstill": "{half"})
    refusal(tmp_path / "a.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "b.safetensors", metadata={"vidstill": "[1]"})
    refusal(tmp_path / "b.safetensors")


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    refusal(tmp_path / "a.safetensors")


class Bomb:
    """A pickle that runs code where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_would_run_code_does_not_run(tmp_path, save):
    mark = tmp_path / "ran"
    save({"model": {"weight": torch.ones(1)}, "args": Bomb(mark)}, tmp_path / "a.pth")
    assert "no code in it was run" in refusal(tmp_path / "a.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"model": t}, lambda t: {"module": t, "epoch": 3}, lambda t: {"model_state": t}]
)
def test_the_authors_files_are_read_in_each_of_their_wrappings(tmp_path, wrap):
    torch.save(wrap(TENSORS), tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert set(found.tensors) == set(TENSORS)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert not found.metadata


def test_the_authors_own_trainer_writes_its_arguments_too(tmp_path):
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "params": [0]}]}
    arguments = argparse.Namespace(lr=1e-3, model="pretrain_videomae_base_patch16_224", opt_betas=[0.9, 0.95])
    content = {"model": TENSORS, "optimizer": optimizer, "epoch": 799, "scaler": {"scale": 1.0}, "args": arguments}
    torch.save(content, tmp_path / "checkpoint-799.pth")
    assert set(read_checkpoint(tmp_path / "checkpoint-799.pth").tensors) == set(TENSORS)


@pytest.mark.parametrize("content", [{}, [1, 2], torch.ones(3), {"model": {}}, {"epoch": 3}, {"model": {"a": 1}}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert "holds no named tensors" in refusal(tmp_path / "a.pth")


def test_nothing_is_left_beside_a_written_file(tmp_path):
    write_checkpoint(tmp_path / MODEL_FILE, TENSORS, ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_FILE]
    assert files.MODEL_FILE == "model.safetensors"
