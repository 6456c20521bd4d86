"""The complete files of an output directory are listed with checksums, and verified where they are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from vidstill.utils.checksums import read_checksums, verify_directory
from vidstill.utils.output_dir import forget_results, open_output_dir, read_result, record_results, write_result_dir
from vidstill.utils.types import InputError

RUN = {"recipe": {"batch": 64}}


def open_run(out: Path, **metadata: Any) -> None:
    with open_output_dir(out, RUN, kind="a run", marker="recipe.json", metadata=metadata):
        assert "recipe.json" in read_checksums(out)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_recipe_is_refused_and_nothing_is_written(tmp_path: Path):
    open_run(tmp_path / "run")
    flip_bit(tmp_path / "run" / "recipe.json")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match=r"recipe\.json is damaged: .*; restore it from a copy, or choose another"):
        open_run(tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_directory_of_an_older_version_is_listed_when_it_is_opened(tmp_path: Path):
    (tmp_path / "recipe.json").write_text(json.dumps(RUN))
    open_run(tmp_path)
    assert not any(problem for _, problem in verify_directory(tmp_path))


def test_all_complete_files_are_listed_once_the_work_is_done_and_until_it_goes_on(tmp_path: Path):
    open_run(tmp_path)
    for name in ("model.safetensors", "log.jsonl", ".lock", "log.jsonl.part", "step.pt.sha256"):
        (tmp_path / name).write_text(name)
    (tmp_path / "state").mkdir()
    record_results(tmp_path)
    assert list(read_checksums(tmp_path)) == ["log.jsonl", "model.safetensors", "recipe.json"]
    forget_results(tmp_path, "recipe.json")
    assert list(read_checksums(tmp_path)) == ["recipe.json"]


def test_results_are_listed_without_those_of_an_earlier_evaluation(tmp_path: Path):
    write_result_dir(tmp_path, {"scores.csv": lambda: b"a", "confusion.png": lambda: b"b"}, {"top1": 1.0})
    assert list(read_checksums(tmp_path)) == ["confusion.png", "scores.csv", "test.json"]
    write_result_dir(tmp_path, {"scores.csv": lambda: b"c"}, {"top1": 2.0}, obsolete=["confusion.png"])
    assert list(read_checksums(tmp_path)) == ["scores.csv", "test.json"]
    assert not any(problem for _, problem in verify_directory(tmp_path))
    assert read_result(tmp_path) == {"top1": 2.0}


def test_an_evaluation_that_is_killed_leaves_no_wrong_line(tmp_path: Path):
    write_result_dir(tmp_path, {"scores.csv": lambda: b"a"}, {"top1": 1.0})
    with pytest.raises(ZeroDivisionError):
        write_result_dir(tmp_path, {"scores.csv": lambda: b"b", "other.csv": lambda: b"%d" % (1 // 0)}, {"top1": 2.0})
    assert not any(problem for _, problem in verify_directory(tmp_path))


def test_a_damaged_result_is_refused_with_how_to_mend_it(tmp_path: Path):
    write_result_dir(tmp_path, {}, {"top1": 1.0})
    flip_bit(tmp_path / "test.json")
    with pytest.raises(InputError, match=r"test\.json is damaged: .*; delete it and run the same command again"):
        read_result(tmp_path)
