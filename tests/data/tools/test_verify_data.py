"""Datasets are compared with the checksums of their packs or of their scan."""

import json
import subprocess
from pathlib import Path

import pytest
from tiny_videos import write_video

from vidstill.cli.main import main


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos with labels, scanned and packed."""
    for number in range(3):
        write_video(tmp_path / f"videos/{number}.mp4", numbers=[number, number + 1])
    (tmp_path / "videos/list.csv").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in range(3)))
    assert main(["data", "scan", str(tmp_path / "videos/list.csv"), "--workers", "1", "--min-frames", "1"]) == 0
    pack = ["data", "pack", str(tmp_path / "videos/list.csv"), "--out", str(tmp_path / "packs"), "--workers", "1"]
    assert main([*pack, "--videos-per-shard", "2"]) == 0
    return tmp_path / "videos"


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def verify(path: Path, capsys, *, code: int) -> dict:
    capsys.readouterr()
    assert main(["data", "verify", str(path), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_files_are_compared_with_the_list_of_the_scan(videos, capsys):
    for path in (videos / "list.csv", videos / "list.scan.jsonl"):
        report = verify(path, capsys, code=0)
        assert (report["num_files"], report["problems"]) == (3, [])
        assert report["num_bytes"] == sum(each.stat().st_size for each in videos.glob("*.mp4"))
    flip_bit(videos / "1.mp4")
    (videos / "2.mp4").unlink()
    changed, missing = verify(videos / "list.csv", capsys, code=1)["problems"]
    assert "1.mp4 has changed since the scan" in changed
    assert "2.mp4" in missing


def test_every_file_of_packs_has_a_checksum_and_a_flipped_bit_is_noticed(videos, capsys):
    packs = videos.with_name("packs")
    assert subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=packs, capture_output=True).returncode == 0
    report = verify(packs, capsys, code=0)
    assert report["num_files"] == len(list(packs.iterdir())) - 1
    assert report["unverified"] == []
    for path in sorted(packs.iterdir()):
        flip_bit(path)
        assert verify(packs, capsys, code=1)["problems"], path
        flip_bit(path)


def test_data_without_checksums_say_how_to_make_them(videos, capsys):
    (videos / "list.scan.jsonl").unlink()
    assert main(["data", "verify", str(videos / "list.csv")]) == 2
    assert f"has no checksums; make them: vidstill data scan {videos / 'list.csv'}" in capsys.readouterr().err
