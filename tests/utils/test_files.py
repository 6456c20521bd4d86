"""Files are complete or absent, and a directory has one owner at a time."""

import ast
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from paths import PROJECT

from vidstill.utils.files import atomic_write, check_output_file, write_bytes, write_json
from vidstill.utils.output_dir import check_output_dir, open_output_dir
from vidstill.utils.types import InputError

RUN: dict[str, object] = {
    "recipe": {"batch": 64, "size": (2, 3)},
    "data": {"train": {"source": "a.csv", "fingerprint": "1"}},
}


def test_a_file_is_complete_after_the_block_and_its_directories_are_made(tmp_path: Path):
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert os.listdir(path.parent) == ["file.bin"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_is_on_the_disk_before_its_name_and_the_name_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_bytes(tmp_path / "out", b"content")
    assert calls == ["out.part", "rename", tmp_path.name]


def test_every_result_gets_its_name_by_the_one_function_that_syncs_it():
    """`locks` renames the record of an owner, which is of no use after a power cut."""
    found = set()
    for path in (PROJECT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_of_path = node.func.attr in ("rename", "replace") and len(node.args) == 1  # a text's takes two
                if is_of_path or ast.unparse(node.func) in ("os.replace", "os.rename", "os.renames", "shutil.move"):
                    found.add(path.name)
    assert found == {"files.py", "locks.py"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    write_bytes(tmp_path / "file", [b"o", b"ld"])
    with pytest.raises(ZeroDivisionError):
        write_bytes(tmp_path / "file", (b"%d" % (1 // n) for n in (1, 0)))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.survival("SIGKILL while any file is written", "1→1", "same bits")
def test_what_a_kill_left_is_written_over(tmp_path: Path):
    (tmp_path / "file.part").write_bytes(b"much longer than the new one")
    write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.survival("full disk while any file is written", "1→1", "refused with a sentence")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"file cannot be written \(No space left on device\); free disk space"):
        write_bytes(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == []


@pytest.mark.survival("second process that writes the same file", "1→1", "refused with a sentence")
def test_a_file_that_another_process_writes_is_left_to_it(tmp_path: Path):
    with atomic_write(tmp_path / "file") as file:
        file.write(b"first")
        with pytest.raises(InputError, match="is being written by another process"):
            _run_in_other_process(write_bytes, tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def open_run(out: Path, identity: dict[str, object] = RUN, **options: Any) -> AbstractContextManager[None]:
    return open_output_dir(out, identity, kind="a run", marker="recipe.json", **options)


def enter_run(out: Path, identity: dict[str, object] = RUN) -> None:
    with open_run(out, identity):
        pass


def test_a_directory_is_opened_again_for_the_same_work(tmp_path: Path):
    out = tmp_path / "run"
    for metadata in ({"versions": 1}, {"versions": 2}):
        with open_run(out, metadata=metadata):
            pass
    assert json.loads((out / "recipe.json").read_text()) == json.loads(json.dumps({**RUN, "versions": 1}))
    assert sorted(os.listdir(out)) == ["SHA256SUMS", "recipe.json"]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"recipe": {"batch": 32}}, r"run holds a run with other settings \(recipe.batch is 64, here it is 32\)"),
        ({"data": {"train": {"fingerprint": "2"}}}, r"data.train differs, or has changed since; it was a.csv"),
    ],
)
def test_a_directory_of_other_work_is_refused(tmp_path: Path, identity: dict[str, object], message: str):
    enter_run(tmp_path / "run")
    with pytest.raises(InputError, match=message):
        enter_run(tmp_path / "run", {**RUN, **identity})


def test_results_go_into_a_new_an_empty_or_an_earlier_directory(tmp_path: Path):
    check_output_dir(tmp_path / "new" / "deeper", "predictions", "predictions.csv")
    check_output_dir(tmp_path, "predictions", "predictions.csv")
    (tmp_path / "video.json").touch()
    with pytest.raises(InputError, match="exists and holds something else than predictions"):
        check_output_dir(tmp_path, "predictions", "predictions.csv")
    check_output_dir(tmp_path, "predictions", "predictions.csv", ["video.json"])
    (tmp_path / "predictions.csv").touch()
    check_output_dir(tmp_path, "predictions", "predictions.csv")
    with pytest.raises(InputError, match="is a file; choose a directory"):
        check_output_dir(tmp_path / "video.json", "predictions", "predictions.csv")


def test_a_file_cannot_replace_a_directory_or_be_below_a_file(tmp_path: Path):
    write_json(tmp_path / "file", 1)
    with pytest.raises(InputError, match="is a directory"):
        check_output_file(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        check_output_file(tmp_path / "file" / "below")
    check_output_file(tmp_path / "new" / "file")


def _run_in_other_process(fn: Callable[..., None], *args: object) -> None:
    with get_context("fork").Pool(1) as pool:
        pool.apply(fn, args)
