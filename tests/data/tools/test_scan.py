"""A scan decodes every file once, says what is wrong, and leaves a list that is a data set, whenever it is stopped."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import fsspec
import pytest
from deadly import hang, kill
from paths import DATA
from PIL import Image
from tiny_videos import cut_short, numbered, write_images, write_video
from vicious_videos import VICIOUS

from vidstill.cli.main import main
from vidstill.data.decode.reader import count_frames
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import ShardMember, StorageUnreachable
from vidstill.data.tools import scan as scanning
from vidstill.data.tools.pack import pack_dataset
from vidstill.data.tools.probe import SCAN_FIELDS, scan_video
from vidstill.data.tools.scan import get_manifest_path, scan_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.synthetic.drawing import draw_clip
from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError

pytestmark = pytest.mark.usefixtures("memory_addresses")

CLASSES = ("jump", "run")
FRAMES = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Four videos to train on and two to test on, in a folder for each class."""
    folder = tmp_path_factory.mktemp("kept") / "videos"
    for split, numbers in {"train": range(4), "val": range(4, 6)}.items():
        for v in numbers:
            write_video(folder / split / CLASSES[v % 2] / f"{v}.mp4", numbers=[20 * v + 3 * n for n in range(FRAMES)])
    return folder


@pytest.fixture
def videos(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "videos"))


def entries(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


@pytest.fixture
def take_decoded(monkeypatch, tmp_path):
    """Return the names of the videos that were decoded since the last call, whichever process decoded them."""
    path = tmp_path / "decoded"

    def scan_and_note(source):
        with path.open("a") as file:
            file.write(f"{source}\n")
        return scan_video(source)

    def take() -> list[str]:
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(Path(line).name for line in lines)

    monkeypatch.setattr(scanning, "scan_video", scan_and_note)
    return take


def assert_same_rows(data: Path | str, manifest: Path) -> list[VideoRow]:
    """Compare the sources and labels of a data set with those of its scan's list, and return the list's rows."""
    rows = []
    for split in ("train", "val"):
        expected, actual = open_manifest(data, split=split), open_manifest(manifest, split=split)
        assert actual.classes == expected.classes == CLASSES
        assert [(row.source, row.label) for row in actual.rows] == [(row.source, row.label) for row in expected.rows]
        rows += actual.rows
    return rows


# ---- The list --------------------------------------------------------------------------------------------------------


def test_the_list_is_the_data_set_with_every_true_length(videos):
    report = scan_dataset(videos)
    assert report.manifest_path == videos.parent / "videos.scan.jsonl"
    assert list_splits(report.manifest_path) == list_splits(videos) == ("train", "val")
    for row in assert_same_rows(videos, report.manifest_path):
        assert (row.frames, row.frame_rate, row.error, os.path.isabs(row.name)) == (FRAMES, 25.0, "", False)
    assert report.is_clean
    assert report.num_videos == {"train": 4, "val": 2}
    assert (report.num_files, report.num_decoded) == (6, 6)
    assert (report.num_frames, report.seconds) == (6 * FRAMES, 6 * FRAMES / 25)
    assert (report.resolution_counts, report.codec_counts) == ({"64x32": 6}, {"h264": 6})
    assert report.frame_rate_counts == {"25": 6}
    assert set(scan_video(videos / "train/jump/0.mp4")) <= set(SCAN_FIELDS)
    assert report.num_bytes == sum(path.stat().st_size for path in videos.rglob("*.mp4"))


@pytest.mark.survival("moved directory of videos with their list", "1→1", "same bits")
def test_moved_with_its_videos_the_list_still_names_them(videos, tmp_path):
    scan_dataset(videos / "train", out=videos / "lists" / "train.jsonl")  # the videos do not lie below its folder
    assert all(os.path.isabs(entry["path"]) for entry in entries(videos / "lists" / "train.jsonl"))
    scan_dataset(videos, out=videos / "all.jsonl")
    moved = videos.rename(tmp_path / "moved")
    for row in open_manifest(moved / "all.jsonl", split="val").rows:
        assert count_frames(row.source) == FRAMES


@pytest.mark.parametrize(
    "data", ["videos", "videos/", "videos/train/jump/0.mp4", "videos/train.csv", "videos/all.jsonl"]
)
def test_the_list_is_written_beside_the_data(tmp_path, monkeypatch, data):
    write_video(tmp_path / "videos/train/jump/0.mp4", 2)
    monkeypatch.chdir(tmp_path)
    expected = tmp_path / f"{data.strip('/').rpartition('.')[0] or 'videos'}.scan.jsonl"
    assert get_manifest_path(Path(data)) == expected
    if expected.parent == tmp_path:
        assert get_manifest_path(expected) == expected  # a scan of a scan's list brings that up to date
        monkeypatch.chdir(tmp_path / "videos")
        assert get_manifest_path(Path()) == expected
    with pytest.raises(InputError, match="--out"):
        get_manifest_path("s3://bucket/videos")


def test_any_name_that_a_file_may_have_comes_back(tmp_path):
    names = ["new\nline.mp4", "Zürich 跑.mp4", os.fsdecode(b"not \xff unicode.mp4")]
    names += [' "quoted", 1.mp4', "back\\slash.mp4"]
    for number, name in enumerate(names):
        write_video(tmp_path / "videos" / "new.mp4", numbers=[number]).rename(tmp_path / "videos" / name)
    report = scan_dataset(tmp_path / "videos")
    assert {row.name for row in open_manifest(report.manifest_path).rows} == {f"videos/{name}" for name in names}
    assert all(count_frames(row.source) == 1 for row in open_manifest(report.manifest_path).rows)


def test_pictures_and_folders_of_pictures_have_rows_too(tmp_path):
    for number in range(5):
        folder = tmp_path / "videos" / "frames"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbered(number)).save(folder / f"img_{number:05}.png")
    (tmp_path / "list.csv").write_text("path,frames,label\nvideos/frames,9,0\n")
    assert scan_dataset(tmp_path / "list.csv").num_frames == 5
    (row,) = open_manifest(tmp_path / "list.scan.jsonl").rows
    assert (row.frames, row.label, row.source) == (5, 0, tmp_path / "videos" / "frames")
    assert scan_dataset(tmp_path / "list.csv").num_decoded == 0
    pictures = scan_dataset(tmp_path / "videos")
    assert (pictures.num_files, pictures.num_frames, pictures.short_videos, pictures.is_clean) == (5, 5, {}, True)


@pytest.mark.parametrize("address", [False, True])
def test_packs_are_scanned_where_they_are(videos, tmp_path, address):
    pack_dataset(videos, tmp_path / "packs", TranscodeConfig(short_side=16), clips_per_shard=3)
    data = tmp_path / "packs"
    if address:
        data = f"memory://{tmp_path.name}/packs"
        fsspec.filesystem("memory").put(str(tmp_path / "packs"), f"/{tmp_path.name}/packs", recursive=True)
    report = scan_dataset(data, out=tmp_path / "packs.scan.jsonl")
    assert (report.num_files, report.num_frames, report.is_clean) == (6, 6 * FRAMES, True)
    rows = assert_same_rows(data, report.manifest_path)
    assert all(isinstance(row.source, ShardMember) and row.frames == FRAMES for row in rows)
    assert scan_dataset(data, out=tmp_path / "packs.scan.jsonl").num_decoded == (6 if address else 0)


# ---- What is wrong ---------------------------------------------------------------------------------------------------


def test_what_is_broken_stays_in_the_list_and_says_how_far_it_goes(videos):
    train = videos / "train" / "jump"
    (train / "empty.mp4").write_bytes(b"")
    (train / "text.mp4").write_text("no frame in here")
    cut_short(write_video(train / "cut.mp4", 60, index_first=True), 0.9)
    VICIOUS["size_changes.ts"](train / "grows.ts")
    report = scan_dataset(videos, min_frames=4)
    assert not report.is_clean
    wrong = {Path(path).name: why for path, why in report.errors.items()}
    assert sorted(wrong) == ["cut.mp4", "empty.mp4", "grows.ts", "text.mp4"]
    rows = {Path(row.name).name: row for row in open_manifest(report.manifest_path, split="train").rows}
    assert {name: row.error for name, row in rows.items() if row.error} == wrong
    frames = {Path(entry["path"]).name: entry["frames"] for entry in entries(report.manifest_path)}
    assert frames["empty.mp4"] == frames["text.mp4"] == 0
    assert 0 < frames["cut.mp4"] == count_frames(train / "cut.mp4") < 60
    assert f"after {frames['cut.mp4']} frames" in wrong["cut.mp4"]
    assert wrong["grows.ts"] == "changes its size to 96x48 at frame 20"
    assert frames["grows.ts"] == 20
    assert report.short_videos == {}  # of what is broken nothing else is said


def test_a_decoder_that_dies_or_is_stuck_costs_one_row(videos, monkeypatch):
    def deadly(source):
        if source.name == "1.mp4":
            kill(signal.SIGSEGV)
        if source.name == "2.mp4":
            hang()
        return scan_video(source)

    monkeypatch.setattr(scanning, "scan_video", deadly)
    monkeypatch.setattr(scanning, "WORKER_TIMEOUT_SECONDS", 2.0)
    report = scan_dataset(videos, workers=2)
    wrong = {Path(path).name: why for path, why in report.errors.items()}
    assert wrong == {"1.mp4": "ended its process (signal 11)", "2.mp4": "took longer than 2 s and was killed"}
    assert sum(entry["frames"] == FRAMES for entry in entries(report.manifest_path)) == 4
    monkeypatch.setattr(scanning, "scan_video", scan_video)  # it may have been the machine's fault
    again = scan_dataset(videos)
    assert (again.num_decoded, again.is_clean) == (2, True)


def test_short_videos_and_wrong_headers_are_reported_and_are_no_faults(tmp_path):
    for frames in (15, 16, 17):
        path = write_video(tmp_path / "videos" / f"{frames}.avi", frames, codec="mpeg4")
        data = bytearray(path.read_bytes())
        length = slice(data.index(b"vids") + 32, data.index(b"vids") + 36)  # dwLength of Microsoft's AVISTREAMHEADER
        assert int.from_bytes(data[length], "little") == frames
        data[length] = (16).to_bytes(4, "little")
        path.write_bytes(data)
    report = scan_dataset(tmp_path / "videos")
    assert report.short_videos == {"videos/15.avi": 15}
    assert report.header_mismatches == {"videos/15.avi": (16, 15), "videos/17.avi": (16, 17)}
    assert report.errors == {}
    assert [row.frames for row in open_manifest(report.manifest_path).rows] == [15, 16, 17]


def test_a_file_of_the_same_bytes_or_the_same_frames_is_reported_in_the_other_split(tmp_path):
    videos = tmp_path / "videos"
    for split in ("train", "val"):
        (videos / split).mkdir(parents=True)
    for number in range(6):
        clip = draw_clip("circling", number, 20, (64, 96))
        write_images(videos / ("train" if number < 4 else "val") / f"{number}.mp4", clip, options={"crf": "20"})
        if number == 1:
            write_images(videos / "val" / "coarse.mp4", clip, options={"crf": "33"})
            write_images(videos / "train" / "coarser.mp4", clip, options={"crf": "36"})
    shutil.copy(videos / "train" / "0.mp4", videos / "train" / "same.mp4")
    shutil.copy(videos / "val" / "4.mp4", videos / "train" / "leaked.mp4")
    report = scan_dataset(videos)
    assert not report.is_clean
    assert report.errors == {}
    assert report.exact_duplicates == (
        {"train": ("videos/train/leaked.mp4",), "val": ("videos/val/4.mp4",)},  # what is between splits comes first
        {"train": ("videos/train/0.mp4", "videos/train/same.mp4")},
    )
    assert report.near_duplicates == (
        {"train": ("videos/train/1.mp4", "videos/train/coarser.mp4"), "val": ("videos/val/coarse.mp4",)},
    )


def test_one_file_in_two_splits_is_decoded_once_and_reported(videos, take_decoded):
    (videos / "train.csv").write_text("train/jump/0.mp4 0\ntrain/jump/0.mp4 0\ntrain/run/1.mp4 1\n")
    (videos / "val.csv").write_text("train/jump/0.mp4 0\nval/run/5.mp4 1\n")
    report = scan_dataset(videos)
    assert take_decoded() == ["0.mp4", "1.mp4", "5.mp4"]
    assert (report.num_files, report.num_videos, len(entries(report.manifest_path))) == (3, {"train": 3, "val": 2}, 5)
    assert report.exact_duplicates == ({"train": ("videos/train/jump/0.mp4",), "val": ("videos/train/jump/0.mp4",)},)


# ---- Stopped, and again ----------------------------------------------------------------------------------------------


def test_a_second_scan_decodes_what_has_changed_alone(videos, take_decoded):
    first = scan_dataset(videos).manifest_path.read_bytes()
    assert len(take_decoded()) == 6
    again = scan_dataset(videos)
    assert (again.num_decoded, take_decoded()) == (0, [])
    assert again.manifest_path.read_bytes() == first
    write_video(videos / "train/jump/0.mp4", numbers=range(100, 109))
    os.utime(videos / "train/run/1.mp4", ns=(0, 0))
    write_video(videos / "val/run/new.mp4", numbers=range(200, 203))
    (videos / "val/jump/4.mp4").unlink()
    changed = scan_dataset(videos)
    assert take_decoded() == ["0.mp4", "1.mp4", "new.mp4"]
    frames = {Path(entry["path"]).stem: entry["frames"] for entry in entries(changed.manifest_path)}
    assert frames == {"0": 9, "1": FRAMES, "2": FRAMES, "3": FRAMES, "5": FRAMES, "new": 3}


@pytest.mark.survival("SIGKILL of a scan", "1→1", "same bits")
def test_a_killed_scan_ends_with_the_same_list_and_decodes_nothing_twice(videos, tmp_path, monkeypatch, take_decoded):
    whole = scan_dataset(videos, out=tmp_path / "whole.jsonl").manifest_path.read_bytes()
    scan_and_note = scanning.scan_video
    monkeypatch.setattr(scanning, "scan_video", lambda source: (time.sleep(0.1), scan_and_note(source))[1])
    out, part = tmp_path / "killed.jsonl", tmp_path / "killed.jsonl.journal" / "records-0.jsonl"
    for lines in (1, 3):
        process = multiprocessing.get_context("fork").Process(target=scan_dataset, args=(videos,), kwargs={"out": out})
        process.start()
        while not part.exists() or part.read_bytes().count(b'"path"') < lines:
            assert process.is_alive()
            time.sleep(0.001)
        process.kill()
        process.join()
        assert not out.exists()
    finished = [json.loads(line)["path"] for line in part.read_text().splitlines() if line]
    take_decoded()
    assert scan_dataset(videos, out=out).manifest_path.read_bytes() == whole
    assert sorted([*take_decoded(), *(Path(path).name for path in finished)]) == [f"{v}.mp4" for v in range(6)]
    assert sorted(path.name for path in tmp_path.glob("killed*")) == ["killed.jsonl"]


@pytest.mark.parametrize("cut", [1, 30, -2, -1])
def test_a_line_that_was_cut_is_decoded_again(videos, tmp_path, cut):
    whole = scan_dataset(videos).manifest_path.read_bytes()
    first, second, *_ = whole.splitlines(keepends=True)
    out = tmp_path / "other" / "list.jsonl"
    out.parent.mkdir()
    (out.parent / "videos").symlink_to(videos)
    with Journal(out, scanning._JOURNAL_SETTINGS) as journal:
        pass
    (journal.directory / "records-0.jsonl").write_bytes(first + second[:cut])
    progress: list[tuple[int, int]] = []
    again = scan_dataset(out.parent / "videos", out=out, progress=lambda *counts: progress.append(counts))
    assert again.manifest_path.read_bytes() == whole
    assert again.num_decoded == (4 if cut == -1 else 5)  # all but the end of the line is there
    assert progress == [(done, 6) for done in range(6 - again.num_decoded, 7)]


def test_a_place_that_does_not_answer_stops_a_scan_that_goes_on_later(videos, monkeypatch):
    def unreachable(source):
        if source.name == "3.mp4":
            raise StorageUnreachable("nobody answers")
        return scan_video(source)

    monkeypatch.setattr(scanning, "scan_video", unreachable)
    with pytest.raises(StorageUnreachable, match="nobody answers"):
        scan_dataset(videos)
    monkeypatch.setattr(scanning, "scan_video", scan_video)
    report = scan_dataset(videos)
    assert 0 < report.num_decoded < 6
    assert report.is_clean


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
@pytest.mark.parametrize("full", ["videos.scan.jsonl.journal/records-0.jsonl", "videos.scan.jsonl.part"])
@pytest.mark.survival("full disk during a scan", "1→1", "same bits")
def test_a_full_disk_is_said_and_with_room_the_same_command_goes_on(videos, capsys, full):
    (videos.parent / full).parent.mkdir(exist_ok=True)
    (videos.parent / full).symlink_to("/dev/full")
    assert main(["data", "scan", str(videos), "--workers", "1"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not get_manifest_path(videos).exists()
    (videos.parent / full).unlink(missing_ok=True)
    assert main(["data", "scan", str(videos), "--workers", "1"]) == 0
    assert len(entries(get_manifest_path(videos))) == 6
    assert sorted(path.name for path in videos.parent.iterdir()) == ["videos", "videos.scan.jsonl"]


@pytest.mark.parametrize(
    "text", ["", "videos/a.mp4 0\n", '{"path": "videos/a.mp4", "frames": 6, "bytes": 9}\n', "{}\n"]
)
def test_what_is_no_scans_list_is_not_written_over(videos, text):
    other = videos.parent / "mine.jsonl"
    other.write_text(text)
    with pytest.raises(InputError, match="is not the list of a scan"):
        scan_dataset(videos, out=other)
    assert other.read_text() == text
    with pytest.raises(InputError, match="is a directory"):
        scan_dataset(videos, out=videos)


# ---- The command -----------------------------------------------------------------------------------------------------


def test_the_exit_code_tells_and_json_holds_all(videos, capsys):
    assert main(["data", "scan", str(videos), "--min-frames", "10"]) == 0
    output = capsys.readouterr().out
    assert "6 files, 6 of them decoded in this scan: 4 videos in train, 2 videos in val" in output
    assert "6 files shorter than 10 frames" in output
    shutil.copy(videos / "train/jump/0.mp4", videos / "val/jump/0.mp4")
    assert main(["data", "scan", str(videos)]) == 1
    assert "1 group of the same bytes, 2 files; 1 of them in more than one split" in capsys.readouterr().out
    (videos / "val/jump/0.mp4").write_bytes(b"")
    assert main(["data", "scan", str(videos), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == {"videos/val/jump/0.mp4": "does not decode: Invalid data found when processing input"}
    assert (report["is_clean"], report["exact_duplicates"]) == (False, [])
    assert (report["num_files"], report["num_decoded"]) == (7, 1)
    assert main(["data", "scan", str(videos / "nowhere")]) == 2
    assert main(["data", "scan", str(videos), "--min-frames", "0"]) == 2


def clips() -> list:
    """Every real file that some `clips.json` describes."""
    params = [
        pytest.param(path.parent / clip["file"], clip, id=clip["file"])
        for path in sorted(DATA.rglob("clips.json"))
        for clip in json.loads(path.read_text())
    ]
    absent = pytest.param(None, {}, marks=pytest.mark.skip(f"no clips.json is under {DATA}; set VIDSTILL_DATA"))
    return params or [absent]


@pytest.mark.files
@pytest.mark.parametrize(("path", "clip"), clips())
def test_a_real_file_is_what_its_description_says(path, clip):
    report = scan_video(path)
    assert (report["bytes"], report["sha256"]) == (clip["size_bytes"], clip["sha256"])
    assert report["frames"] == clip["decoded_frames"]
    assert ("error" in report) == (clip["kind"] == "broken")
    if report["frames"]:
        lying = clip.get("display_rotation_deg", 0) % 180 == 90
        size = (clip["height"], clip["width"]) if lying else (clip["width"], clip["height"])
        assert (report["width"], report["height"]) == size
        assert (report["codec"], report["pixels"]) == (clip["codec"], clip["pix_fmt"])
        if "error" not in report:
            assert report.get("header_frames", report["frames"]) == (clip["header_frames"] or report["frames"])
