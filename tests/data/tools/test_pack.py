"""Packs: tar shards and an index, whole or absent, that are the data set they were made of."""

import errno
import io
import json
import multiprocessing
import os
import pickle
import signal
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from tiny_videos import cut_short, number_of, numbered, write_video

from vidstill.cli.main import main
from vidstill.data.decode.reader import count_frames, read_frames
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.tools import pack as packs
from vidstill.data.tools.pack import PACK_FILE, SKIPPED_FILE, pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig, transcode_video
from vidstill.utils.types import InputError

FRAMES = 6
CONFIG = TranscodeConfig(short_side=16)
CLASSES = ("jump", "run.fast")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Seven videos to train on and three to test on; video v shows the numbers 10 v + n."""
    folder = tmp_path_factory.mktemp("videos")
    for split, numbers in {"train": range(7), "val": range(7, 10)}.items():
        names = {v: f"{'some.where' if v % 2 else 'elsewhere'}/{v}.v.mp4" for v in numbers}
        for v, name in names.items():
            write_video(folder / name, numbers=[10 * v + n for n in range(FRAMES)])
        (folder / f"{split}.csv").write_text("".join(f"{name} {v % 2}\n" for v, name in names.items()))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return folder


@pytest.fixture(scope="module")
def packed(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "packs"
    pack_dataset(videos, out, CONFIG, clips_per_shard=3)
    return out


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_folder_is_the_data_set_that_it_was_made_of(videos, packed):
    assert list_splits(packed) == ("train", "val")
    for split in ("train", "val"):
        expected, actual = open_manifest(videos, split=split), open_manifest(packed, split=split)
        assert actual.classes == expected.classes == CLASSES
        assert [row.name for row in actual.rows] == [row.name for row in expected.rows]
        assert [row.label for row in actual.rows] == [row.label for row in expected.rows]
        assert all((row.frames, row.frame_rate) == (FRAMES, 25.0) for row in actual.rows)
        for row, source in zip(actual.rows, expected.rows, strict=True):
            frames = [number_of(frame) for frame in read_frames(row.source, [4, 0, 5])]
            assert frames == [number_of(frame) for frame in read_frames(source.source, [4, 0, 5])]


def test_a_row_gives_the_bytes_of_its_file_in_the_shard(packed):
    for row in open_manifest(packed, split="train").rows:
        with tarfile.open(row.source.shard) as shard:
            (member,) = (member for member in shard if member.offset_data == row.source.offset)
            data = shard.extractfile(member).read()
        assert member.name.endswith(".mp4")
        assert member.size == row.source.size
        np.testing.assert_array_equal(read_frames(row.source, range(FRAMES)), read_frames(data, range(FRAMES)))


def test_shards_hold_the_stated_number_of_clips_in_order_and_no_name_that_leads_out_of_a_folder(packed):
    shards = [line["shard"] for line in lines_of(packed / "index.jsonl")]
    assert shards == [f"train-00000{n // 3}.tar" for n in range(7)] + ["val-000000.tar"] * 3
    assert sorted(path.name for path in packed.glob("*.tar")) == sorted(set(shards))
    for path in packed.glob("*.tar"):
        with tarfile.open(path) as shard:
            for member in shard:
                assert member.isreg()
                assert member.name.partition(".")[0].isdecimal()  # a key without dots, then the kind of the file
                assert "/" not in member.name
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


def test_webdataset_reads_the_same_samples(videos, packed):
    shards = [str(path) for path in sorted(packed.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    rows = open_manifest(packed, split="train").rows
    assert [sample["json"]["path"] for sample in samples] == [row.name for row in rows]
    assert [sample["cls"] for sample in samples] == [row.label for row in rows]
    assert [sample["json"]["class"] for sample in samples] == [CLASSES[row.label] for row in rows]
    for sample, row in zip(webdataset.WebDataset(shards, shardshuffle=False), rows, strict=True):
        np.testing.assert_array_equal(read_frames(sample["mp4"], [2]), read_frames(row.source, [2]))


def test_the_number_of_workers_changes_no_byte(videos, packed, tmp_path):
    pack_dataset(videos, tmp_path / "packs", CONFIG, clips_per_shard=3, workers=3)
    assert bytes_of(tmp_path / "packs") == bytes_of(packed)


def test_the_same_call_again_changes_nothing_and_says_the_same(videos, packed):
    before, times = bytes_of(packed), {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    output = pack_dataset(videos, packed, CONFIG, clips_per_shard=3)
    assert (output.num_videos, output.skipped) == (10, ())
    assert output.bytes_after == sum(row["bytes"] for row in lines_of(packed / "index.jsonl"))
    assert output.bytes_before == sum(path.stat().st_size for path in videos.rglob("*.mp4"))
    assert bytes_of(packed) == before
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == times


@pytest.mark.parametrize("shards", [0, 1, 3])
@pytest.mark.survival("SIGKILL of a pack", "1→1", "same bits")
def test_a_killed_pack_goes_on_and_ends_with_the_same_bytes(videos, packed, tmp_path, shards):
    out = tmp_path / "packs"
    context = multiprocessing.get_context("fork")
    process = context.Process(target=slow_pack, args=(videos, out))
    process.start()
    while not (out / PACK_FILE).is_file() or len(list(out.glob("*.tar"))) < shards:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "index.jsonl").exists()
    existing = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert shards <= len(existing) < 4
    with pytest.raises(InputError):  # what is half there is no data set
        open_manifest(out)
    pack_dataset(videos, out, CONFIG, clips_per_shard=3)
    assert bytes_of(out) == bytes_of(packed)
    unchanged = [path for path, written in existing.items() if path.stat().st_mtime_ns == written]
    assert len(unchanged) >= len(existing) - 1  # a shard whose line was not written yet is written again


def slow_pack(videos: Path, out: Path) -> None:
    def slowly(*arguments):
        time.sleep(0.05)
        return transcode_video(*arguments)

    packs.transcode_video = slowly
    pack_dataset(videos, out, CONFIG, clips_per_shard=3)


def test_no_process_holds_a_packed_video_in_memory(videos, packed, tmp_path, monkeypatch):
    results, map_in_workers = [], packs.map_in_workers

    def record(*arguments, **options):
        for each in map_in_workers(*arguments, **options):
            results.append(len(pickle.dumps(each)))
            yield each

    def write_much(source, file, config, frame_rate=None):
        assert isinstance(file, io.BufferedRandom)  # not in memory
        video = transcode_video(source, file, config, frame_rate)
        file.seek(0, os.SEEK_END)
        file.write(bytes(2**22))
        return video

    monkeypatch.setattr(packs, "map_in_workers", record)
    monkeypatch.setattr(packs, "transcode_video", write_much)
    tracemalloc.start()
    pack_dataset(videos, tmp_path / "packs", CONFIG, clips_per_shard=3, workers=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(results) < 1000
    assert peak < 2**22
    assert sum(path.stat().st_size for path in (tmp_path / "packs").glob("*.tar")) > 2**22 * len(results) / 2
    assert not (tmp_path / "packs" / "index.jsonl.journal").exists()


def test_a_full_disk_stops_packing_and_breaks_no_video(videos, tmp_path, monkeypatch):
    def fill_disk(source, file, config, frame_rate=None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packs, "transcode_video", fill_disk)
    with pytest.raises(InputError, match=r"cannot be written .No space left on device.; free disk space"):
        pack_dataset(videos, tmp_path / "packs", CONFIG)
    monkeypatch.undo()
    assert not pack_dataset(videos, tmp_path / "packs", CONFIG).skipped


def test_a_shard_that_was_deleted_meanwhile_is_written_again(videos, packed, tmp_path):
    out = tmp_path / "packs"
    stop_after(videos, out, 8)
    assert sorted(path.name for path in out.glob("*.tar*")) == [f"train-00000{n}.tar" for n in range(3)]
    (out / "train-000001.tar").unlink()
    pack_dataset(videos, out, CONFIG, clips_per_shard=3)
    assert bytes_of(out) == bytes_of(packed)


def test_a_shard_with_a_video_that_was_changed_in_place_meanwhile_is_written_again(videos, packed, tmp_path):
    out, (first, *_) = tmp_path / "packs", open_manifest(videos, split="train").rows
    stop_after(videos, out, 8)
    written = {path: path.stat().st_mtime_ns for path in out.glob("train-*.tar")}
    os.utime(first.source, ns=(0, 12345))  # the size is the same
    pack_dataset(videos, out, CONFIG, clips_per_shard=3)
    assert bytes_of(out) == bytes_of(packed)
    again = [path.name for path, time in written.items() if path.stat().st_mtime_ns != time]
    assert again == ["train-000000.tar"]


def test_a_video_that_was_changed_in_place_after_it_was_packed_is_named(partly_broken, tmp_path, caplog):
    for _ in range(2):
        pack_dataset(partly_broken, tmp_path / "packs", CONFIG)
    assert not caplog.messages
    later = (tmp_path / "packs" / "index.jsonl").stat().st_mtime_ns + 1
    os.utime(partly_broken / "2.mp4", ns=(later, later))
    pack_dataset(partly_broken, tmp_path / "packs", CONFIG)
    assert caplog.messages == [
        f"1 of 4 videos were modified after {tmp_path / 'packs'} was complete, first 2.mp4; if their content is "
        "another, pack them into another directory"
    ]


def stop_after(videos: Path, out: Path, clips: int) -> None:
    def stop(done: int, of: int) -> None:
        if done == clips:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(videos, out, CONFIG, clips_per_shard=3, progress=stop)


def test_other_settings_or_other_data_in_the_same_folder_are_refused(videos, packed, tmp_path):
    before = bytes_of(packed)
    with pytest.raises(
        InputError, match=r"with other settings \(settings.short_side is 16, here it is 32\); choose another"
    ):
        pack_dataset(videos, packed, TranscodeConfig(short_side=32), clips_per_shard=3)
    with pytest.raises(InputError, match="with other settings"):
        pack_dataset(videos, packed, CONFIG, clips_per_shard=4)
    with pytest.raises(InputError, match="splits is"):
        pack_dataset(videos / "train.csv", packed, CONFIG, clips_per_shard=3)
    assert bytes_of(packed) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than packed videos"):
        pack_dataset(videos, tmp_path / "mine", CONFIG)
    assert bytes_of(tmp_path / "mine") == {"thesis.txt": b"years of work"}


@pytest.fixture
def partly_broken(tmp_path):
    folder = tmp_path / "videos"
    for v in range(4):
        write_video(folder / f"{v}.mp4", 40, index_first=True)
    for v in (1, 3):
        cut_short(folder / f"{v}.mp4")
    (folder / "train.csv").write_text("0.mp4 0\n1.mp4 1\n")
    (folder / "val.csv").write_text("2.mp4 0\n3.mp4 1\n")
    return folder


def test_a_video_that_does_not_decode_is_skipped_and_reported(partly_broken, tmp_path, capsys):
    out = tmp_path / "packs"
    assert main(["data", "pack", str(partly_broken), "--out", str(out), "--workers", "1"]) == 1
    output = capsys.readouterr().out
    for expected in ("2 videos, ", "skipped: 2 videos", "1.mp4 breaks after ", "3.mp4 breaks after "):
        assert expected in output
    assert [line["path"] for line in lines_of(out / SKIPPED_FILE)] == ["1.mp4", "3.mp4"]
    assert [row.name for row in open_manifest(out, split="train").rows] == ["0.mp4"]
    rows = open_manifest(out, split="val").rows  # an evaluation still reports them
    assert [(row.name, row.label, row.error[:12]) for row in rows] == [("2.mp4", 0, ""), ("3.mp4", 1, "breaks after")]
    with tarfile.open(out / "train-000000.tar") as shard:
        assert [member.name for member in shard] == ["000000000.mp4", "000000000.json", "000000000.cls"]
    pack_dataset(partly_broken, tmp_path / "single", CONFIG, clips_per_shard=1)  # no shard is empty
    assert sorted(path.name for path in tmp_path.glob("single/*.tar")) == ["train-000000.tar", "val-000000.tar"]


def test_rows_that_a_scan_reports_broken_are_not_opened(videos, tmp_path):
    scanned = [
        {"path": "elsewhere/0.v.mp4", "label": 0, "bytes": 1000, "rate": 12.5},
        {"path": "nowhere.mp4", "label": 1, "bytes": 1000, "error": "does not decode: cosmic rays"},
    ]
    manifest = videos / "scan.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in scanned))
    output = pack_dataset(manifest, tmp_path / "packs", CONFIG)
    manifest.unlink()
    assert (output.num_videos, output.skipped) == (1, ("nowhere.mp4 does not decode: cosmic rays",))
    assert open_manifest(tmp_path / "packs").rows[0].frame_rate == 12.5


def test_packs_of_packs_are_packs(videos, packed, tmp_path):
    pack_dataset(packed, tmp_path / "smaller", TranscodeConfig(short_side=8))
    actual, expected = (open_manifest(at, split="train").rows for at in (tmp_path / "smaller", videos))
    assert [row.name for row in actual] == [row.name for row in expected]
    assert read_frames(actual[2].source, [1]).shape == (1, 8, 16, 3)


def test_videos_without_labels_have_none_and_images_are_packed_unchanged(tmp_path):
    for n in range(2):
        write_video(tmp_path / "videos" / f"{n}.mp4", FRAMES)
        (tmp_path / "images" / f"c{n}").mkdir(parents=True)
        Image.fromarray(numbered(n)).save(tmp_path / "images" / f"c{n}" / f"{n}.png")
    pack_dataset(tmp_path / "videos", tmp_path / "packs", CONFIG)
    manifest = open_manifest(tmp_path / "packs")
    assert (manifest.classes, [row.label for row in manifest.rows]) == ((), [None, None])
    with tarfile.open(tmp_path / "packs/all-000000.tar") as shard:
        assert {Path(member.name).suffix for member in shard} == {".mp4", ".json"}
    pack_dataset(tmp_path / "images", tmp_path / "packed images", TranscodeConfig())
    for n, row in enumerate(open_manifest(tmp_path / "packed images").rows):
        assert count_frames(row.source) == 1
        np.testing.assert_array_equal(read_frames(row.source, [0])[0], numbered(n))


def test_where_nothing_decodes_there_are_no_packs(tmp_path):
    cut_short(write_video(tmp_path / "videos" / "0.mp4"))
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of 1 video.* decodes, first 0\.mp4 does not decode"):
            pack_dataset(tmp_path / "videos", tmp_path / "packs", CONFIG)
    assert not (tmp_path / "packs" / "index.jsonl").exists()
