"""What is said of a data set before anything is trained on it."""

import pytest
from tiny_videos import cut_short, write_video

from vidstill.data.inspect import Spread, inspect
from vidstill.types import InputError


def test_a_summary_counts_videos_classes_frames_and_sizes(tmp_path):
    for name, frames in (("run/a", 25), ("run/b", 50), ("jump/c", 100)):
        write_video(tmp_path / f"{name}.mp4", frames)
    summary = inspect(tmp_path)
    assert list(summary.parts) == ["all"]
    assert summary.parts["all"].videos == summary.looked_at == 3
    assert summary.parts["all"].classes == {"jump": 1, "run": 2}
    assert summary.frames == Spread(least=25.0, median=50.0, most=100.0)
    assert summary.seconds == Spread(least=1.0, median=2.0, most=4.0)  # 25 frames a second
    assert summary.sizes == {"64x32": 3}
    assert summary.problems == ()


def test_only_so_many_files_are_opened(tmp_path):
    for n in range(5):
        write_video(tmp_path / f"{n}.mp4", 4)
    assert inspect(tmp_path, files=2).looked_at == 2


def test_what_is_wrong_is_said(tmp_path):
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4")
    cut_short(tmp_path / "c.mp4")
    (tmp_path / "classes.txt").write_text("run\njump\n")
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 1\nb.mp4 1\n")
    (tmp_path / "val.csv").write_text("a.mp4 0\nc.mp4 0\n")
    summary = inspect(tmp_path)
    assert list(summary.parts) == ["train", "val"]
    for expected in (
        "train: 1 videos are listed more than once",
        "val: no video of jump",
        "1 videos of val are in train too",
        "c.mp4 does not decode",
    ):
        assert any(expected in problem for problem in summary.problems), expected
    assert len(summary.problems) == 4


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="no videos found"):
        inspect(tmp_path)
