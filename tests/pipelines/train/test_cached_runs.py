"""Runs with the cache of decoded videos: the same weights as without it, and each video opened once."""

from pathlib import Path

import pytest
import torch
from tiny_runs import FINETUNE, TEACHER, make_data, read_validation, run, weights

from vidstill.data.datasets import open_cache
from vidstill.data.decode.reader import VideoReader
from vidstill.data.loader import loader

SHORT = {"schedule__epochs": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _forget_caches(monkeypatch):
    monkeypatch.setattr(open_cache, "_caches", {})


@pytest.fixture
def openings(monkeypatch) -> list[str]:
    """The names of the videos that this process opens."""
    names, init = [], VideoReader.__init__

    def record(self: VideoReader, source: Path, **options: int | None) -> None:
        names.append(Path(source).name)
        init(self, source, **options)

    monkeypatch.setattr(VideoReader, "__init__", record)
    return names


def same(one: Path, other: Path) -> bool:
    tensors = weights(other)
    return all(torch.equal(tensor, tensors[name]) for name, tensor in weights(one).items())


def test_a_pre_training_is_the_same_run_with_and_without_a_cache(data, tmp_path, openings, capsys):
    counts = []
    for out, options in (("auto", {}), ("off", {"cache": "off"}), ("again", {})):
        openings.clear()
        run(TEACHER, data=data / "unlabelled.txt", out=tmp_path / out, **SHORT, **options)
        counts.append(len(openings))
        said = "pretrain: cache: 16 videos, about 0.1 MB decoded, are held in memory\n" in capsys.readouterr().err
        assert said == (not options)
    assert counts == [16 + 8, 3 * 16 + 1, 0]  # 8 tell that all will fit; without a cache the dry run opens one
    assert same(tmp_path / "auto", tmp_path / "off")
    run(TEACHER, data=data / "unlabelled.txt", out=tmp_path / "auto", **SHORT, cache="off")  # not another run
    assert "holds the finished run" in capsys.readouterr().err


def test_a_fine_tuning_opens_its_videos_once_and_scores_each_epoch_alike(data, tmp_path, openings, capsys):
    run(FINETUNE, data=data, out=tmp_path / "auto", **SHORT)
    assert len(openings) == 8 + 6 + 8 + 6
    assert "finetune: validation cache: 6 videos" in capsys.readouterr().err
    openings.clear()
    run(FINETUNE, data=data, out=tmp_path / "off", **SHORT, cache="off")
    assert len(openings) == 2 + 3 * (8 + 6) + 6
    assert same(tmp_path / "auto", tmp_path / "off")
    assert read_validation(tmp_path / "auto") == read_validation(tmp_path / "off")
    assert (tmp_path / "auto/scores.csv").read_bytes() == (tmp_path / "off/scores.csv").read_bytes()


def test_a_validation_in_memory_that_fits_a_batch_starts_no_process(data, tmp_path, monkeypatch):
    started, pool = [], loader.WorkerPool

    def start(*args, **options):
        started.append(options["workers"])
        return pool(*args, **options)

    monkeypatch.setattr(loader, "WorkerPool", start)
    run(FINETUNE, data=data, out=tmp_path / "processes", **SHORT, workers=1, cache="off")
    with_processes = len(started)
    run(FINETUNE, data=data, out=tmp_path / "here", **SHORT, workers=1)
    assert len(started) == 2 * with_processes - 2  # before the first of three validations, nothing is in memory
    assert read_validation(tmp_path / "here") == read_validation(tmp_path / "processes")
