"""What is said of a data set before anything is trained on it."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_videos import cut_short, write_video

from vidstill.cli.main import main
from vidstill.data.manifest.open import open_split_manifests
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.tools.inspect import DatasetSummary, ValueStats, format_dataset_summary, summarize_dataset
from vidstill.utils.types import InputError

pytestmark = pytest.mark.usefixtures("memory_addresses")

WORDS = st.text(st.characters(exclude_categories=[]), max_size=30)  # halves of surrogate pairs among them


def spread(least: float, median: float, most: float) -> ValueStats:
    return ValueStats(min=float(least), median=float(median), max=float(most))


def summary_of(data: PathOrUrl, *, files: int = 32, fold: int = 1, root: Path | None = None) -> DatasetSummary:
    return summarize_dataset(
        data, open_split_manifests(data, root=root, fold=fold), max_files=files, progress=lambda done, of: None
    )


def write_manifest(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scanned(path: str, **others: object) -> dict[str, object]:
    """A line as a scan writes it."""
    facts = {"frames": 100, "rate": 25.0, "bytes": 9000, "width": 340, "height": 256, "codec": "h264"}
    return {"path": path, **facts, **others}


def test_images_are_called_images(tmp_path):
    for name in ("train/run/a", "train/run/b", "val/jump/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    text = format_dataset_summary(summary_of(tmp_path))
    assert "train: 2 images in 2 classes" in text
    assert "val: 1 image in 2 classes" in text
    assert "no image of jump" in text
    assert "video" not in text


def test_a_summary_counts_videos_classes_lengths_rates_sizes_codecs_and_bytes(tmp_path):
    for name, frames in (("run/a", 25), ("run/b", 50), ("jump/c", 100)):
        write_video(tmp_path / f"{name}.mp4", frames)
    sizes = sorted(path.stat().st_size for path in tmp_path.rglob("*.mp4"))
    summary = summary_of(tmp_path)
    assert list(summary.splits) == ["all"]
    assert summary.splits["all"].num_videos == summary.num_probed == 3
    assert summary.splits["all"].class_counts == {"jump": 1, "run": 2}
    assert summary.splits["all"].majority_share == pytest.approx(2 / 3)
    assert summary.num_from_manifest == 0
    assert summary.frames == spread(25.0, 50.0, 100.0)
    assert summary.seconds == spread(1.0, 2.0, 4.0)  # 25 frames a second
    assert summary.file_sizes == spread(sizes[0], sizes[1], sizes[2])
    assert summary.frame_rate_counts == {"25": 3}
    assert summary.resolution_counts == {"64x32": 3}
    assert summary.codec_counts == {"h264": 3}
    assert summary.problems == ()


@pytest.mark.parametrize(("files", "opened"), [(0, 0), (1, 1), (3, 3), (99, 6)])
def test_only_so_many_files_are_opened_and_from_every_split_as_many(tmp_path, files, opened):
    for n in range(3):
        write_video(tmp_path / "train" / f"{n}.mp4", 4)
        write_video(tmp_path / "val" / f"{n}.mp4", 8)
    summary = summary_of(tmp_path, files=files)
    assert summary.num_probed == opened
    assert summary.problems == ()  # files of one name in two folders are two videos
    if files == 3:
        assert summary.frames == spread(4, 8, 8)
    with pytest.raises(InputError, match="max_files is -1"):
        summary_of(tmp_path, files=-1)


def test_what_is_wrong_is_said(tmp_path):
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4")
    cut_short(tmp_path / "c.mp4")
    (tmp_path / "classes.txt").write_text("run\njump\n")
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 1\nb.mp4 1\n")
    (tmp_path / "val.csv").write_text("a.mp4 0\nc.mp4 0\n")
    summary = summary_of(tmp_path)
    assert list(summary.splits) == ["train", "val"]
    for expected in (
        f"train: 1 video listed more than once, first {tmp_path}/b.mp4",
        "val: no video of jump",
        f"val: 1 video also in train, first {tmp_path}/a.mp4",
        "c.mp4 does not decode",
    ):
        assert any(expected in problem for problem in summary.problems), expected
    assert len(summary.problems) == 4


def test_of_many_classes_without_videos_some_are_named(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "classes.txt").write_text("".join(f"c{n}\n" for n in range(1500)))
    (tmp_path / "train.csv").write_text("a.mp4 0\n")
    assert summary_of(tmp_path).problems == ("train: no video of c1, c2, c3, c4, c5 and 1,494 more classes",)


def test_videos_that_an_official_list_names_and_that_are_missing_are_counted(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    listings = {name: replace(each, num_missing=1200) for name, each in open_split_manifests(tmp_path).items()}
    problems = summarize_dataset(tmp_path, listings, progress=lambda done, of: None).problems
    assert problems == ("all: 1,200 of the 1,201 videos that the official list names are missing",)


def test_the_requested_official_fold_is_summarized(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Run\n2 Jump\n")
    for n in (1, 2, 3):
        (lists / f"trainlist0{n}.txt").write_text(f"Run/v_Run_g0{n}_c01.avi 1\nJump/v_Jump_g0{n}_c01.avi 2\n")
        (lists / f"testlist0{n}.txt").write_text(f"Run/v_Run_g0{n}_c02.avi\n")
    for name in ("Run/v_Run_g02_c01", "Jump/v_Jump_g02_c01", "Run/v_Run_g02_c02"):
        write_video(tmp_path / "UCF-101" / f"{name}.avi", 4, codec="mpeg4")
    summary = summary_of(tmp_path, fold=2)
    assert summary.splits["train"].class_counts == {"Run": 1, "Jump": 1}
    assert summary.splits["val"].class_counts == {"Run": 1, "Jump": 0}
    assert "UCF101" in summary.splits["val"].description
    assert summary.codec_counts == {"mpeg4": 3}


def test_what_a_scan_states_is_said_of_all_rows_and_no_file_is_opened(tmp_path):
    rows = [scanned(f"{n}.mp4", split="val" if n else "train", label=0) for n in range(40)]  # not one is there
    rows[1] |= {"frames": 250, "codec": "av1", "width": 640}
    rows[2] = {"path": "2.mp4", "split": "val", "label": 0, "bytes": 7, "error": "does not decode: it is cut"}
    summary = summary_of(write_manifest(tmp_path / "videos.jsonl", rows), files=5)
    assert (summary.num_from_manifest, summary.num_probed) == (39, 0)
    assert summary.frames == spread(100, 100, 250)
    assert summary.seconds == spread(4, 4, 10)
    assert summary.file_sizes == spread(9000, 9000, 9000)
    assert summary.frame_rate_counts == {"25": 39}
    assert summary.resolution_counts == {"340x256": 38, "640x256": 1}
    assert summary.codec_counts == {"h264": 38, "av1": 1}
    assert summary.problems == ("val: 1 video stated to be broken, first 2.mp4, which does not decode: it is cut",)


@pytest.mark.parametrize("silent", ["frames", "bytes"])
def test_where_json_lines_are_silent_on_one_video_files_are_opened(tmp_path, silent):
    rows = [scanned(f"{n}.mp4") for n in range(3)]
    for n in range(3):
        write_video(tmp_path / f"{n}.mp4", 4)
    del rows[2][silent]
    summary = summary_of(write_manifest(tmp_path / "videos.jsonl", rows))
    assert (summary.num_from_manifest, summary.num_probed) == (0, 3)
    assert summary.resolution_counts == {"64x32": 3}


def test_what_json_lines_hold_besides_may_be_anything(tmp_path):
    rows = [scanned("a.mp4", width="wide", codec=7, height=None, rate=29.97)]
    summary = summary_of(write_manifest(tmp_path / "videos.jsonl", rows))
    assert (summary.num_from_manifest, summary.frame_rate_counts) == (1, {"29.97": 1})
    assert summary.resolution_counts == summary.codec_counts == {}


def test_rows_that_a_scan_reports_broken_are_not_opened(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    rows = [{"path": "a.mp4"}, {"path": "b.mp4", "bytes": 5, "error": "does not decode"}]
    summary = summary_of(write_manifest(tmp_path / "videos.jsonl", rows))
    assert summary.num_probed == 1
    assert summary.problems == ("all: 1 video stated to be broken, first b.mp4, which does not decode",)


@pytest.mark.parametrize("has_facts", [True, False])
def test_packs_are_summarized_here_and_behind_a_url(tmp_path, has_facts):
    video = write_video(tmp_path / "a.mp4", 12).read_bytes()
    url = f"memory://inspected-{has_facts}"
    packed = {"path": "run/a.mp4", "label": 0, "class": "run", "shard": "0.tar", "offset": 3, "bytes": len(video)}
    if has_facts:
        packed |= {"frames": 12, "rate": 25.0, "width": 64, "height": 32, "codec": "h264"}
    files = fsspec.filesystem("memory")
    for name, content in (("0.tar", b"xyz" + video), ("index.jsonl", json.dumps(packed).encode())):
        (tmp_path / "packs").mkdir(exist_ok=True)
        (tmp_path / "packs" / name).write_bytes(content)
        files.pipe(f"/inspected-{has_facts}/{name}", content)
    for data in (tmp_path / "packs", url):
        summary = summary_of(data)
        assert (summary.num_from_manifest, summary.num_probed) == ((1, 0) if has_facts else (0, 1))
        assert summary.splits["all"].class_counts == {"run": 1}
        assert summary.frames == spread(12, 12, 12)
        assert summary.file_sizes == spread(len(video), len(video), len(video))
        assert (summary.resolution_counts, summary.codec_counts) == ({"64x32": 1}, {"h264": 1})


def test_a_broken_video_in_a_pack_is_called_by_its_name(tmp_path):
    with pytest.raises(InputError, match="no videos found"):
        summary_of(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"no video")
    write_manifest(tmp_path / "index.jsonl", [{"path": "run/a.mp4", "shard": "0.tar", "offset": 0, "bytes": 8}])
    (problem,) = summary_of(tmp_path).problems
    assert problem.startswith(f"run/a.mp4 in {tmp_path}/0.tar does not decode")


def test_of_many_classes_the_five_largest_and_the_five_smallest_are_printed(tmp_path):
    (tmp_path / "classes.txt").write_text("".join(f"class {n}\n" for n in range(50)))
    rows = [scanned(f"{n}-{video}.mp4", label=n) for n in range(50) for video in range(n)]
    lines = format_dataset_summary(summary_of(write_manifest(tmp_path / "videos.jsonl", rows))).splitlines()
    counts = [line.split()[0] for line in lines if "  class " in line]
    assert counts == ["49", "48", "47", "46", "45", "4", "3", "2", "1", "0"]
    assert any("40 more classes" in line for line in lines)
    assert "1,225 videos in 50 classes, 0 to 49 each" in lines[2]


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("summary")
    return summary_of(write_manifest(folder / "videos.jsonl", [scanned("a.mp4", label=0)]))


@given(st.dictionaries(WORDS, st.integers(1, 9), min_size=1), WORDS)
def test_no_name_breaks_the_lines_that_are_printed(summary, classes, name):
    def format_summary(counts: dict[str, int], source: str, problem: str) -> str:
        split = replace(summary.splits["all"], class_counts=counts)
        return format_dataset_summary(replace(summary, splits={"all": split}, source=source, problems=(problem,)))

    printed = format_summary(classes, f"s3://{name}", name)
    plain = format_summary({str(n): count for n, count in enumerate(classes.values())}, "s3://", "")
    assert printed.replace("\n", "").isprintable()
    printed.encode()
    assert printed.count("\n") == plain.count("\n")


@given(st.lists(st.integers(1, 10**9), min_size=1))
def test_a_spread_holds_every_value(values):
    spread = ValueStats.from_values(np.array(values))
    assert all(one <= other for one, other in pairwise((spread.min, spread.median, spread.max)))
    assert (spread.min, spread.max) == (min(values), max(values))


def test_the_command_prints_lines_or_json(tmp_path, capsys):
    write_video(tmp_path / "videos/a.mp4", 5)
    (tmp_path / "list.csv").write_text("path,class\na.mp4,run\n")
    command = ["data", "inspect", str(tmp_path / "list.csv"), "--root", str(tmp_path / "videos")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for expected in ("all: 1 video in 1 class, 1 each", "1  run", "1 file opened", "h264 (1)", "no problems found"):
        assert expected in printed
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["splits"]["all"]["class_counts"] == {"run": 1}
    assert summary["frames"] == {"min": 5.0, "median": 5.0, "max": 5.0}
