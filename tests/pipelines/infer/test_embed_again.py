"""Embedding resumes wherever it was stopped, computes nothing twice, and reports what is in its way."""

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
from vidstill.pipelines.infer.embed import embed_videos
from vidstill.pipelines.infer.embed_config import EmbedConfig
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.run_config import Workers
from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError

HERE = Workers(workers=0)
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
def clips_encoded(monkeypatch):
    """The clips that encoders were given."""
    clips = []

    def extract(self, batch, **options):
        clips.extend(batch)
        return original(self, batch, **options)

    original = VideoEncoder.extract_features
    monkeypatch.setattr(VideoEncoder, "extract_features", extract)
    return clips


def embed(encoder, videos, out, config=EmbedConfig(), workers=HERE):  # noqa: B008
    return embed_videos(encoder, videos, out, config, workers=workers)


def contents(out: Path) -> dict[str, bytes]:
    """All files beside the output, unfinished ones too."""
    return {str(path.relative_to(out.parent)): path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}


def stop_after(monkeypatch, videos: int) -> None:
    """Interrupt the next call after so many videos, and only that one."""
    appended: list = []
    original = Journal.append

    def append(self, *records):
        if len(appended) == videos:
            monkeypatch.setattr(Journal, "append", original)
            raise KeyboardInterrupt
        appended.append(records)
        original(self, *records)

    monkeypatch.setattr(Journal, "append", append)


def interrupt(monkeypatch, videos: int, *args, **options) -> None:
    stop_after(monkeypatch, videos)
    with pytest.raises(KeyboardInterrupt):
        embed(*args, **options)


# ---- Nothing twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_a_second_call_computes_and_writes_nothing(encoder, videos, out, clips_encoded, config):
    first = embed(encoder, [videos], out, config)
    assert (first.videos, first.new_videos, len(clips_encoded)) == (6, 6, 6 if config is not WINDOWS else 18)
    before, times = contents(out), [path.stat().st_mtime_ns for path in out.parent.rglob("*")]
    clips_encoded.clear()
    again = embed(encoder, [videos], out, config)
    assert (again.videos, again.new_videos, len(clips_encoded)) == (6, 0, 0)
    assert contents(out) == before
    assert [path.stat().st_mtime_ns for path in out.parent.rglob("*")] == times


def test_new_videos_are_added_and_changed_ones_computed_again(encoder, videos, out, clips_encoded):
    last = videos / "000005.mp4"
    away = last.rename(videos.parent / "away.mp4")
    embed(encoder, [videos], out, WINDOWS)
    away.rename(last)
    shutil.copy(last, videos / "000003a.mp4")  # in the middle
    os.utime(videos / "000001.mp4", ns=(0, 12345))
    clips_encoded.clear()
    result = embed(encoder, [videos], out, WINDOWS)
    assert (result.videos, result.new_videos, result.changed_videos, len(clips_encoded)) == (7, 3, 1, 9)
    fresh = out.parent.parent / "fresh" / out.name
    embed(encoder, [videos], fresh, WINDOWS)
    files, whole = contents(out), contents(fresh)
    if out.suffix:
        assert files == whole
    else:  # in the order in which they came
        part, all_at_once = ({name: each[name] for name in each if name.endswith("npy")} for each in (files, whole))
        assert part == all_at_once
        assert len(json.loads(files["features/features.json"])["videos"]) == 7


def test_changed_labels_are_written_without_the_encoder(encoder, videos, out, clips_encoded):
    names = videos.parent / "list.txt"
    for labels in ((0, 1, 1), (2, 1, 0)):
        names.write_text("".join(f"videos/00000{n}.mp4 {label}\n" for n, label in enumerate(labels)))
        embed(encoder, [names], out)
    assert len(clips_encoded) == 3
    if out.suffix == ".npz":
        assert np.load(out)["labels"].tolist() == [2, 1, 0]


def test_a_file_keeps_its_videos_and_a_folder_is_added_to(encoder, videos, out):
    embed(encoder, [videos / "000000.mp4", videos / "000001.mp4"], out)
    before = contents(out)
    if out.suffix:
        with pytest.raises(InputError, match=r"holds 1 videos that this command does not name, first 000000\.mp4"):
            embed(encoder, [videos / "000001.mp4", videos / "000002.mp4"], out)
        assert contents(out) == before
    else:
        embed(encoder, [videos / "000001.mp4", videos / "000002.mp4"], out)
        assert {"features/000000.npy", "features/000002.npy"} <= set(contents(out))


def test_a_deleted_file_of_a_folder_is_written_again(encoder, videos, tmp_path):
    out = tmp_path / "features"
    embed(encoder, [videos], out)
    before = contents(out)
    (out / "000002.npy").unlink()
    assert embed(encoder, [videos], out).new_videos == 1
    assert contents(out) == before


# ---- Other settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (EmbedConfig(pool="max"), "pool is mean, here it is max"),
        (EmbedConfig(layers=(2,)), r"layers is \['final'\], here it is \['block_2'\]"),
        (EmbedConfig(temporal_clips=3), r"views\.temporal_clips is 1, here it is 3"),
        (EmbedConfig(window=2.0), r"window is None, here it is 2\.0"),
    ],
)
def test_features_with_other_settings_are_not_mixed(encoder, videos, out, config, difference):
    embed(encoder, [videos], out)
    before = contents(out)
    message = rf"{out.name} holds features with other settings \({difference}\); choose another path"
    with pytest.raises(InputError, match=message):
        embed(encoder, [videos], out, config)
    assert contents(out) == before


def test_an_encoder_is_recognised_by_its_weights_and_not_by_its_path(encoder, house, videos, out, clips_encoded):
    embed(encoder, [videos], out)
    write_encoder(house / "other", seed=1)
    write_encoder(house / "deeper", replace(ENCODER, depth=3))
    for other in ("other", "deeper"):
        with pytest.raises(InputError, match=r"encoder differs, or has changed since; it was .*run"):
            embed(load_encoder(str(house / other), precision="fp32"), [videos], out)
    shutil.copytree(house / "run", house / "copy", dirs_exist_ok=True)
    assert embed(load_encoder(str(house / "copy"), precision="fp32"), [videos], out).new_videos == 0


def test_automatic_precision_continues_with_that_of_the_output(house, videos, out):
    embed(load_encoder(str(house / "run"), precision="bf16"), [videos], out)
    automatic = load_encoder(str(house / "run"))
    automatic.runtime.set_precision("fp32")
    assert embed(automatic, [videos], out).new_videos == 0
    with pytest.raises(InputError, match="precision is bf16, here it is fp32"):
        embed(load_encoder(str(house / "run"), precision="fp32"), [videos], out)


# ---- Interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_an_interrupted_call_resumes_and_ends_with_the_same_bytes(
    encoder, videos, out, monkeypatch, clips_encoded, config
):
    whole = out.parent.parent / "whole" / out.name
    embed(encoder, [videos], whole, config)
    clips = len(clips_encoded)
    interrupt(monkeypatch, 4, encoder, [videos], out, config, Workers(workers=0, device_batch=1))
    assert not out.is_file()
    with pytest.raises(InputError, match=r"\.journal holds unfinished work with other settings \(pool is mean"):
        embed(encoder, [videos], out, replace(config, pool="max"))
    clips_encoded.clear()
    result = embed(encoder, [videos], out, config)
    assert (result.new_videos, len(clips_encoded)) == (2, clips // 3)
    assert contents(out) == contents(whole)


@pytest.mark.survival("SIGKILL of an embedding, its last records torn", "2→1", "same bits")
def test_what_a_kill_left_unfinished_is_computed_again_by_any_number_of_processes(
    encoder, videos, tmp_path, monkeypatch
):
    embed(encoder, [videos], tmp_path / "whole/features.npz", WINDOWS)
    out = tmp_path / "out/features.npz"
    interrupt(monkeypatch, 3, encoder, [videos], out, WINDOWS)
    journal = out.with_name("features.npz.journal")
    records = (journal / "records-0.jsonl").rename(journal / "records-1.jsonl")  # of a second process
    with records.open("ab") as file:
        file.write(b'{"key": ["", "000004.mp4"], "stamp": [1')
    max(journal.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns).write_bytes(b"\x01" * 500)
    assert embed(encoder, [videos], out, WINDOWS).new_videos == 3
    assert contents(out) == contents(tmp_path / "whole/features.npz")


SLOWLY = """
import sys, time
from vidstill.cli.main import main
from vidstill.utils.journal import Journal
original = Journal.append
def append(*records):
    original(*records)
    print("appended", flush=True)
    time.sleep(0.2)
Journal.append = append
main(sys.argv[1:])
"""


@pytest.mark.parametrize("out", ["features.npz", pytest.param("features", marks=pytest.mark.slow)])
@pytest.mark.survival("SIGKILL of an embedding", "1→1", "same bits")
def test_a_killed_command_resumes_and_ends_with_the_same_bytes(encoder, house, tmp_path, out):
    embed(encoder, [house / "videos"], tmp_path / "whole" / out, WINDOWS)
    target = tmp_path / "out" / out
    args = ["embed", house / "run", house / "videos", "--out", target, "--window", 0.5, "--hop", 0.25]
    command = [sys.executable, "-c", SLOWLY, *map(str, args), "--precision", "fp32"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "appended\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert embed(encoder, [house / "videos"], target, WINDOWS).new_videos in (2, 3)
    assert contents(target) == contents(tmp_path / "whole" / out)


def test_a_journal_that_a_kill_has_left_is_deleted_by_the_next_call(encoder, videos, out, monkeypatch):
    monkeypatch.setattr(Journal, "remove", lambda self: None)
    embed(encoder, [videos], out)
    assert out.with_name(f"{out.name}.journal").is_dir()
    monkeypatch.undo()
    assert embed(encoder, [videos], out).new_videos == 0
    assert [path.name for path in out.parent.iterdir()] == [out.name]


# ---- Broken videos, full disks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
def test_a_video_that_does_not_decode_is_named_and_tried_again(encoder, videos, out, config):
    whole = (videos / "000003.mp4").read_bytes()
    (videos / "000002.mp4").write_bytes(b"no frame in here")
    (videos / "000003.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    for _ in range(2):
        result = embed(encoder, [videos], out, config, Workers(workers=1))
        assert result.videos == 4
        assert [sentence.split(" ")[0] for sentence in result.broken] == [str(videos / f"00000{n}.mp4") for n in (2, 3)]
    (videos / "000003.mp4").write_bytes(whole)
    result = embed(encoder, [videos], out, config)
    assert (result.videos, result.new_videos, len(result.broken)) == (5, 1, 1)


def test_the_exit_code_is_1_if_a_video_is_broken_and_all_others_are_written(house, videos, tmp_path, capsys):
    (videos / "000002.mp4").write_bytes(b"no frame in here")
    args = ["embed", str(house / "run"), str(videos), "--out", str(tmp_path / "f.npz"), "--workers", "0"]
    assert main(args) == 1
    printed = capsys.readouterr().out
    assert "5 videos embedded; 5 rows of final 24\nskipped: 1 video\n" in printed
    assert f"  {videos / '000002.mp4'} does not decode: " in printed
    assert main([*args, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["videos"], result["new_videos"], len(result["broken"])) == (5, 0, 1)
    assert len(np.load(tmp_path / "f.npz")["final"]) == 5
    assert len(json.loads(str(np.load(tmp_path / "f.npz")["metadata"]))["broken"]) == 1


@pytest.mark.parametrize("window", [None, 0.5])
def test_if_nothing_decodes_nothing_is_written(encoder, tmp_path, window):
    (tmp_path / "videos").mkdir()
    for number in range(2):
        (tmp_path / f"videos/{number}.mp4").write_bytes(b"no frame in here")
    with pytest.raises(InputError, match=r"none of 2 videos could be embedded; .*videos/0\.mp4 does not decode"):
        embed(encoder, [tmp_path / "videos"], tmp_path / "features.npz", EmbedConfig(window=window))
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_video_that_a_scan_calls_broken_is_not_opened(encoder, videos, tmp_path):
    lines = '{"path": "videos/000000.mp4"}\n{"path": "videos/000001.mp4", "error": "ends early"}\n'
    (tmp_path / "list.jsonl").write_text(lines)
    for config in (EmbedConfig(), WINDOWS):
        result = embed(encoder, [tmp_path / "list.jsonl"], tmp_path / f"{config.window}.npz", config)
        assert (result.videos, len(result.broken)) == (1, 1)
        assert result.broken[0].endswith("000001.mp4 ends early")


@pytest.mark.parametrize("config", [EmbedConfig(), WINDOWS], ids=["views", "windows"])
@pytest.mark.survival("full disk during an embedding", "1→1", "same bits")
def test_a_full_disk_is_reported_and_with_space_the_same_call_resumes(encoder, videos, out, config):
    embed(encoder, [videos], out.parent.parent / "whole" / out.name, config)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600 if config is not WINDOWS else 1500, limits[1]))
    try:
        message = r"cannot be written \(File too large\); free disk space.*the same command"
        with pytest.raises(InputError, match=message):
            embed(encoder, [videos], out, config)
        assert not out.is_file()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    embed(encoder, [videos], out, config)
    assert contents(out) == contents(out.parent.parent / "whole" / out.name)


@pytest.mark.nightly
def test_a_video_that_is_eight_times_as_long_takes_no_more_memory():
    script = SCRIPTS / "embed_memory.py"
    command = [sys.executable, str(script), "--minutes", "1", "8", "--hop", "2", "--batch", "4"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    short, long = map(json.loads, lines)
    assert (short["windows"], long["windows"]) == (30, 240)
    assert long["peak_mb"] < short["peak_mb"] + 40  # all frames of the seven minutes more would be 390 MB
