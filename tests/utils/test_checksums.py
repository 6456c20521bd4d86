"""A flipped bit in a listed file, in a list or in a sidecar is noticed."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
import torch

from vidstill.utils.checksums import (
    CHECKSUMS_FILE,
    HashingWriter,
    forget_checksums,
    hash_file,
    read_checksums,
    record_checksums,
    verify_directory,
    verify_file,
    verify_sidecar,
    write_sidecar,
)
from vidstill.utils.files import atomic_write
from vidstill.utils.types import InputError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with two listed files and one that is not."""
    for name in ("recipe.json", "model.safetensors", "log.jsonl"):
        (tmp_path / name).write_text(f"content of {name}")
    record_checksums(tmp_path, [tmp_path / "recipe.json", tmp_path / "model.safetensors"])
    return tmp_path


def list_problems(directory: Path) -> list[str]:
    return [problem for _, problem in verify_directory(directory) if problem]


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_the_list_is_one_that_sha256sum_reads(directory: Path):
    assert (
        subprocess.run(["sha256sum", "--strict", "-c", CHECKSUMS_FILE], cwd=directory, capture_output=True).returncode
        == 0
    )
    assert list_problems(directory) == []


def test_any_flipped_bit_of_a_list_or_of_a_listed_file_is_noticed(directory: Path):
    for name in (CHECKSUMS_FILE, "recipe.json"):
        for bit in range(8 * (directory / name).stat().st_size):
            flip_bit(directory / name, bit)
            assert list_problems(directory), f"{name}, bit {bit}"
            flip_bit(directory / name, bit)
    assert list_problems(directory) == []


def test_a_damaged_file_is_one_sentence_with_its_mend(directory: Path):
    verify_file(directory, directory / "recipe.json")
    flip_bit(directory / "recipe.json", 9)
    with pytest.raises(InputError, match=r"recipe.json is damaged: its SHA-256 is \w+…, not \w+…; fetch it again"):
        verify_file(directory, directory / "recipe.json", mend="fetch it again")
    (directory / "model.safetensors").unlink()
    missing, damaged = list_problems(directory)
    assert missing.endswith("model.safetensors is missing: its checksum is listed")
    assert "recipe.json is damaged" in damaged


def test_a_file_that_is_not_listed_and_a_directory_without_a_list_are_of_an_older_version(directory: Path):
    verify_file(directory, directory / "log.jsonl")
    (directory / CHECKSUMS_FILE).unlink()
    flip_bit(directory / "recipe.json", 9)
    verify_file(directory, directory / "recipe.json")
    assert list_problems(directory) == []
    assert read_checksums(directory) == {}


def test_a_file_is_forgotten_before_it_is_written_again_and_recorded_afterwards(directory: Path):
    forget_checksums(directory, [directory / "recipe.json", directory / "log.jsonl"])
    (directory / "recipe.json").write_text("new")
    assert list_problems(directory) == []
    record_checksums(directory, [directory / "recipe.json"])
    assert read_checksums(directory)["recipe.json"] == hashlib.sha256(b"new").hexdigest()
    forget_checksums(directory, map(directory.joinpath, read_checksums(directory)))
    assert not (directory / CHECKSUMS_FILE).exists()


def test_a_list_reaches_no_device(directory: Path):
    (directory / "recipe.json").unlink()
    (directory / "recipe.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"recipe.json is no file"):
        verify_file(directory, directory / "recipe.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"no list\n", b"\xff", b"0" * 64 + b"  a", *(b"0" * 64 + each for each in (b"  ../a\n", b"  /dev/zero\n"))],
)
def test_a_damaged_list_is_refused_and_says_how_to_go_on(directory: Path, content: bytes):
    (directory / CHECKSUMS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"SHA256SUMS is damaged: .*; delete it to go on without"):
        verify_file(directory, directory / "recipe.json")
    with pytest.raises(InputError, match="SHA256SUMS is damaged"):
        record_checksums(directory, [directory / "log.jsonl"])
    assert (directory / CHECKSUMS_FILE).read_bytes() == content


def test_a_sidecar_is_written_before_its_file_and_notices_any_flipped_bit(tmp_path: Path):
    path, sidecar = tmp_path / "step-000000100.pt", tmp_path / "step-000000100.pt.sha256"
    with atomic_write(path) as file:
        writer = HashingWriter(file)
        torch.save({"weight": torch.arange(99.0)}, writer)
        assert not verify_sidecar(path), "a file of an older version has none"
        write_sidecar(path, writer.hexdigest())
    assert verify_sidecar(path)
    assert hash_file(path) == writer.hexdigest()
    draw = random.Random(0)
    sizes = {each: 8 * os.path.getsize(each) for each in (path, sidecar)}
    for flipped, bit in [(sidecar, bit) for bit in range(sizes[sidecar])] + [
        (path, draw.randrange(sizes[path])) for _ in range(50)
    ]:
        flip_bit(flipped, bit)
        with pytest.raises(InputError, match=r"damaged|missing"):
            verify_sidecar(path)
        flip_bit(flipped, bit)
    assert verify_sidecar(path)
    path.unlink()
    with pytest.raises(InputError, match=r"step-000000100.pt is missing"):
        verify_sidecar(path)
