"""Embedding goes on wherever it was stopped, does nothing twice, and says what stands in its way."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import SCRIPTS
from tiny_encoders import make_videos, write_encoder
from tiny_models import ENCODER

from vidstill.cli.main import main
from vidstill.pipelines.infer import embed as work
from vidstill.pipelines.infer.embed_config import EmbedConfig, FeatureKey, FileStamp
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.infer.journal import ColumnSpool, Journal, JournalLog
from vidstill.pipelines.infer.writers.npy_folder import NpyFolderStore
from vidstill.utils.types import InputError

OUTS = ["features.npz", "features.safetensors", "features.parquet", "features"]
WINDOWS = EmbedConfig(window=0.5, hop=0.25)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with an encoder's `run`, and six `videos`."""
    folder = tmp_path_factory.mktemp("again")
    write_encoder(folder / "run")
    make_videos(folder / "made", train=6, val=0)
    shutil.move(folder / "made/train", folder / "videos")
    return folder


@pytest.fixture(scope="module")
def encoder(house):
    return load_encoder(str(house / "run"), precision="fp32")


@pytest.fixture
def videos(house, tmp_path):
    """The videos, to be changed; a copy's times are those of what it is of."""
    return shutil.copytree(house / "videos", tmp_path / "videos")


@pytest.fixture(params=OUTS)
def out(request, tmp_path):
    if request.param.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'vidstill[parquet]'")
    return tmp_path / "out" / request.param


@pytest.fixture
def asked(monkeypatch):
    """How many clips an encoder was asked about."""
    clips = []

    def features(self, given, **more):
        clips.extend(given)
        return kept(self, given, **more)

    kept = VideoEncoder.extract_features
    monkeypatch.setattr(VideoEncoder, "features", features)
    return clips


def contents(out: Path) -> dict[str, bytes]:
    """All that lies there, beside it what is unfinished."""
    return {str(path.relative_to(out.parent)): path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}


# ---- Nothing twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_a_second_time_nothing_is_computed_and_nothing_written(encoder, videos, out, asked, config):
    first = work.embed(encoder, [videos], out, config)
    assert (first.videos, first.new_videos, len(asked)) == (6, 6, 6 if config is not WINDOWS else 18)
    before, times = contents(out), [path.stat().st_mtime_ns for path in out.parent.rglob("*")]
    asked.clear()
    again = work.embed(encoder, [videos], out, config)
    assert (again.videos, again.new_videos, len(asked)) == (6, 0, 0)
    assert contents(out) == before
    assert [path.stat().st_mtime_ns for path in out.parent.rglob("*")] == times


def test_what_is_new_is_added_and_what_has_changed_is_made_anew(encoder, videos, out, asked):
    last = videos / "000005.mp4"
    away = last.rename(videos.parent / "away.mp4")
    work.embed(encoder, [videos], out, WINDOWS)
    away.rename(last)
    shutil.copy(last, videos / "000003a.mp4")  # in the middle
    os.utime(videos / "000001.mp4", ns=(0, 12345))
    asked.clear()
    found = work.embed(encoder, [videos], out, WINDOWS)
    assert (found.videos, found.new_videos, found.changed_videos, len(asked)) == (7, 3, 1, 9)
    fresh = out.parent.parent / "fresh" / out.name
    work.embed(encoder, [videos], fresh, WINDOWS)
    found, whole = contents(out), contents(fresh)
    if out.suffix:
        assert found == whole
    else:  # in the order in which they came
        assert {name: text for name, text in found.items() if name.endswith("npy")} == {
            name: text for name, text in whole.items() if name.endswith("npy")
        }
        assert len(json.loads(found["features/features.json"])["videos"]) == 7


def test_labels_that_have_changed_are_written_without_asking_the_encoder(encoder, videos, out, asked):
    names = videos.parent / "list.txt"
    for labels in ((0, 1, 1), (2, 1, 0)):
        names.write_text("".join(f"videos/00000{n}.mp4 {label}\n" for n, label in enumerate(labels)))
        work.embed(encoder, [names], out)
    assert len(asked) == 3
    if out.suffix == ".npz":
        assert np.load(out)["labels"].tolist() == [2, 1, 0]


def test_a_file_keeps_its_videos_and_a_folder_is_added_to(encoder, videos, out):
    work.embed(encoder, [videos / "000000.mp4", videos / "000001.mp4"], out)
    before = contents(out)
    if out.suffix:
        with pytest.raises(InputError, match=r"holds 1 videos that are not asked for, first 000000\.mp4"):
            work.embed(encoder, [videos / "000001.mp4", videos / "000002.mp4"], out)
        assert contents(out) == before
    else:
        work.embed(encoder, [videos / "000001.mp4", videos / "000002.mp4"], out)
        assert {"features/000000.npy", "features/000002.npy"} <= set(contents(out))


def test_a_file_of_a_folder_that_was_taken_away_is_made_again(encoder, videos, tmp_path):
    out = tmp_path / "features"
    work.embed(encoder, [videos], out)
    before = contents(out)
    (out / "000002.npy").unlink()
    assert work.embed(encoder, [videos], out).new_videos == 1
    assert contents(out) == before


# ---- Other settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (EmbedConfig(pool="max"), "with pool mean, not max"),
        (EmbedConfig(layers=(2,)), "with layers final, not block_2"),
        (EmbedConfig(temporal_clips=3), "with views 1, not 3"),
        (EmbedConfig(window=2.0), r"with window None, not 2\.0"),
    ],
)
def test_features_with_other_settings_are_not_mixed(encoder, videos, out, config, said):
    work.embed(encoder, [videos], out)
    before = contents(out)
    with pytest.raises(InputError, match=rf"{out.name} holds features {said}; choose another place with --out"):
        work.embed(encoder, [videos], out, config)
    assert contents(out) == before


def test_features_of_another_encoder_are_not_mixed_and_those_of_the_same_one_elsewhere_are(
    encoder, house, videos, out, asked
):
    work.embed(encoder, [videos], out)
    write_encoder(house / "other", seed=1)
    write_encoder(house / "deeper", replace(ENCODER, depth=3))
    for other in ("other", "deeper"):
        with pytest.raises(InputError, match="holds features of another encoder"):
            work.embed(load_encoder(str(house / other), precision="fp32"), [videos], out)
    shutil.copytree(house / "run", house / "copy", dirs_exist_ok=True)
    assert work.embed(load_encoder(str(house / "copy"), precision="fp32"), [videos], out).new_videos == 0


def test_the_precision_of_what_is_there_goes_on_where_none_is_asked_for(house, videos, out):
    work.embed(load_encoder(str(house / "run"), precision="bf16"), [videos], out)
    automatic = load_encoder(str(house / "run"))
    automatic.runtime.set_precision("fp32")
    assert work.embed(automatic, [videos], out).new_videos == 0
    with pytest.raises(InputError, match="with precision bf16, not fp32"):
        work.embed(load_encoder(str(house / "run"), precision="fp32"), [videos], out)


def test_the_beginning_of_other_features_is_not_gone_on_with(encoder, videos, out, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        work.embed(encoder, [videos], out)
    with pytest.raises(InputError, match=r"\.part holds the beginning of features with pool mean, not max; delete it"):
        work.embed(encoder, [videos], out, EmbedConfig(pool="max"))


def test_what_is_in_the_way_is_said(encoder, videos, out):
    out.parent.mkdir()
    part = out.with_name(f"{out.name}.part")
    part.mkdir()
    (part / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="is in the way and no beginning of features"):
        work.embed(encoder, [videos], out)
    assert [path.name for path in out.parent.rglob("*")] == [part.name, "mine.txt"]


# ---- Stopped --------------------------------------------------------------------------------------------------------


def stop_after(monkeypatch, videos: int) -> None:
    """The next call is interrupted after so many videos, and only that."""

    def note(self, key, entry):
        if len(noted) == videos:
            monkeypatch.setattr(JournalLog, "note", kept)
            raise KeyboardInterrupt
        noted.append(key)
        kept(self, key, entry)

    noted: list = []
    kept = JournalLog.append
    monkeypatch.setattr(JournalLog, "note", note)


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_what_was_interrupted_goes_on_and_ends_with_the_same_bytes(encoder, videos, out, monkeypatch, asked, config):
    whole = out.parent.parent / "whole" / out.name
    work.embed(encoder, [videos], whole, config)
    clips = len(asked)
    stop_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        work.embed(encoder, [videos], out, config, batch=1)
    assert not out.is_file()
    asked.clear()
    found = work.embed(encoder, [videos], out, config)
    assert (found.new_videos, len(asked)) == (2, clips // 3)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("rest", [b"\x01", b"\x01" * 96, b"\x01" * 500])
def test_rows_that_a_kill_has_left_are_cut_off(encoder, videos, tmp_path, monkeypatch, rest):
    work.embed(encoder, [videos], tmp_path / "whole/features.npz", WINDOWS)
    out = tmp_path / "out/features.npz"
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        work.embed(encoder, [videos], out, WINDOWS)
    part = out.with_name("features.npz.part")
    with (part / "final-0").open("ab") as file:
        file.write(rest)
    with (part / "done-0.jsonl").open("ab") as file:
        file.write(b'{"key": ["", "000004.mp4"], "stamp": [1')
    assert work.embed(encoder, [videos], out, WINDOWS).new_videos == 3
    assert contents(out) == contents(tmp_path / "whole/features.npz")


SLOWLY = """
import sys, time
from vidstill.embedding.parts import Done
from vidstill.cli import main
kept = Done.note
def note(*given):
    kept(*given)
    print("noted", flush=True)
    time.sleep(0.2)
Done.note = note
main(sys.argv[1:])
"""


@pytest.mark.parametrize("out", ["features.npz", pytest.param("features", marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(encoder, house, tmp_path, out):
    work.embed(encoder, [house / "videos"], tmp_path / "whole" / out, WINDOWS)
    target = tmp_path / "out" / out
    words = ["embed", house / "run", house / "videos", "--out", target, "--window", 0.5, "--hop", 0.25]
    command = [sys.executable, "-c", SLOWLY, *map(str, words), "--precision", "fp32"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "noted\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert work.embed(encoder, [house / "videos"], target, WINDOWS).new_videos in (2, 3)
    assert contents(target) == contents(tmp_path / "whole" / out)


def test_killed_before_it_has_tidied_up_it_does_so_the_next_time(encoder, videos, out, monkeypatch):
    monkeypatch.setattr(Journal, "remove", lambda self: None)
    work.embed(encoder, [videos], out)
    assert out.with_name(f"{out.name}.part").is_dir()
    monkeypatch.undo()
    assert work.embed(encoder, [videos], out).new_videos == 0
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_more_or_fewer_processes_go_on_with_what_others_have_begun(encoder, videos, tmp_path, monkeypatch):
    """What a second process had begun before is another piece."""
    work.embed(encoder, [videos], tmp_path / "whole/features.npz", WINDOWS)
    out = tmp_path / "out/features.npz"
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        work.embed(encoder, [videos], out, WINDOWS)
    part = out.with_name("features.npz.part")
    for path in list(part.iterdir()):
        if path.name != "about.json":
            path.rename(part / path.name.replace("-0", "-1"))
    done = part / "done-1.jsonl"
    done.write_text(done.read_text().replace('"piece": "0"', '"piece": "1"'))
    assert work.embed(encoder, [videos], out, WINDOWS).new_videos == 4
    assert contents(out) == contents(tmp_path / "whole/features.npz")


def test_two_cannot_write_the_same_features(encoder, videos, tmp_path, monkeypatch):
    out = tmp_path / "out/features.npz"
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        work.embed(encoder, [videos], out)
    other = JournalLog(Journal.for_output(out), "0")
    with pytest.raises(InputError, match="is being written by another process; wait for its end"):
        work.embed(encoder, [videos], out)
    other.close()
    assert work.embed(encoder, [videos], out).new_videos == 4


# ---- Broken videos, full disks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_what_does_not_decode_is_left_out_named_and_tried_again(encoder, videos, out, asked, config):
    whole = (videos / "000003.mp4").read_bytes()
    (videos / "000002.mp4").write_bytes(b"no frame in here")
    (videos / "000003.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    for _ in range(2):
        found = work.embed(encoder, [videos], out, config, workers=1)
        assert found.videos == 4
        assert [sentence.split(" ")[0] for sentence in found.broken] == [
            str(videos / "000002.mp4"),
            str(videos / "000003.mp4"),
        ]
    (videos / "000003.mp4").write_bytes(whole)
    found = work.embed(encoder, [videos], out, config)
    assert (found.videos, found.new_videos, len(found.broken)) == (5, 1, 1)


def test_broken_ones_end_the_command_with_1_and_all_else_is_written(house, videos, tmp_path, capsys):
    (videos / "000002.mp4").write_bytes(b"no frame in here")
    words = ["embed", str(house / "run"), str(videos), "--out", str(tmp_path / "f.npz"), "--workers", "0"]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "5 videos embedded; 5 rows of final 24\nleft out: 1 video\n" in said
    assert f"  {videos / '000002.mp4'} does not decode: " in said
    assert main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["videos"], found["embedded"], len(found["broken"])) == (5, 0, 1)
    assert len(np.load(tmp_path / "f.npz")["final"]) == 5
    assert len(json.loads(str(np.load(tmp_path / "f.npz")["about"]))["broken"]) == 1


@pytest.mark.parametrize("window", [None, 0.5])
def test_where_nothing_decodes_nothing_is_written(encoder, tmp_path, window):
    (tmp_path / "videos").mkdir()
    for number in range(2):
        (tmp_path / f"videos/{number}.mp4").write_bytes(b"no frame in here")
    with pytest.raises(InputError, match=r"none of 2 videos could be embedded; .*videos/0\.mp4 does not decode"):
        work.embed(encoder, [tmp_path / "videos"], tmp_path / "features.npz", EmbedConfig(window=window))
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_what_a_scan_found_wrong_is_not_opened(encoder, videos, tmp_path):
    (tmp_path / "list.jsonl").write_text(
        '{"path": "videos/000000.mp4"}\n{"path": "videos/000001.mp4", "wrong": "ends early"}\n'
    )
    for config in (EmbedConfig(), WINDOWS):
        found = work.embed(encoder, [tmp_path / "list.jsonl"], tmp_path / f"{config.window}.npz", config)
        assert (found.videos, len(found.broken)) == (1, 1)
        assert found.broken[0].endswith("000001.mp4 ends early")


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_a_full_disk_is_said_and_with_room_the_same_call_goes_on(encoder, videos, out, config):
    work.embed(encoder, [videos], out.parent.parent / "whole" / out.name, config)
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept_signal = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600 if config is not WINDOWS else 1500, kept[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written \(File too large\); make room.*the same command"):
            work.embed(encoder, [videos], out, config)
        assert not out.is_file()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, kept_signal)
    work.embed(encoder, [videos], out, config)
    assert contents(out) == contents(out.parent.parent / "whole" / out.name)


def test_a_place_that_cannot_be_written_is_said(encoder, videos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in ("file/features.npz", "file/features"):
        with pytest.raises(InputError, match=r"cannot be written \(.*\)"):
            work.embed(encoder, [videos], tmp_path / out)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "videos"}


def test_the_folder_of_npy_needs_one_layer(encoder, tmp_path):
    with pytest.raises(InputError, match="holds one layer, not 2; take one, or another format"):
        NpyFolderStore(tmp_path, {"block_1": (24,), "block_2": (24,)})


def test_rows_of_a_video_that_breaks_are_cut_off(tmp_path):
    parts = Journal(tmp_path)
    piece = ColumnSpool(parts, "0", {"final": ("<f4", (2,))})
    piece.append({"final": np.ones((3, 2))})
    piece.discard_video()
    piece.append({"final": np.zeros((2, 2))})
    assert (entry := piece.finish_video(FeatureKey("", "a.mp4"), FileStamp(1, 2))).num_rows == 2
    assert entry.first_row == 0
    assert np.fromfile(tmp_path / "final-0", "<f4").tolist() == [0] * 4


@pytest.mark.nightly
def test_a_video_that_is_eight_times_as_long_takes_no_more_memory():
    script = SCRIPTS / "embed_memory.py"
    command = [sys.executable, str(script), "--minutes", "1", "8", "--hop", "2", "--batch", "4"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    short, long = map(json.loads, lines)
    assert (short["windows"], long["windows"]) == (30, 240)
    assert long["peak_mb"] < short["peak_mb"] + 40  # all frames of the seven minutes more would be 390 MB
