"""Packs on a real S3 server on this machine: read as from a folder; what happens when it freezes, dies, comes back."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer
from tiny_videos import write_video

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.loader.protocols import TrainBatch
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage import fetch as sources
from vidstill.data.storage.fetch import BrokenVideo, ShardMember, StorageUnreachable, fetch_source
from vidstill.data.tools.pack import pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.crop import MultiScaleCrop
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.utils.types import InputError

VIDEOS = 8
PACKS = "s3://bucket/packs"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATADISABLED": "true",  # else a lack of keys is looked up over the network
}
CLIPS = ClipsConfig(dataset="any", sampling=SpanSampling(num_frames=4, stride=2), size=(16, 16), crop=MultiScaleCrop())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Packs in a folder."""
    videos = tmp_path_factory.mktemp("videos")
    for v in range(VIDEOS):
        write_video(videos / f"{v}.mp4", numbers=range(10 * v, 10 * v + 20))
    out = tmp_path_factory.mktemp("packed") / "packs"
    pack_dataset(videos, out, TranscodeConfig(), clips_per_shard=3)
    return out


class Server:
    """An S3 server that holds a folder, in a process of its own: it can be halted, and killed."""

    def __init__(self, folder: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Begins with what the folder holds."""
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        self._process = context.Process(target=serve, args=(self._folder, self.port, ready))
        self._process.start()
        while not ready.wait(0.1):
            assert self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again, whatever was done to it."""
        if self._process.is_alive():
            os.kill(self._process.pid, signal.SIGCONT)
        else:
            self.start()


def serve(folder: Path, port: int, ready: Event) -> None:
    """Fills a server through one port before it answers at the other: what it holds is this process's."""
    hidden = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    hidden.start()
    os.environ |= KEYS
    files = fsspec.filesystem("s3", endpoint_url=f"http://127.0.0.1:{hidden.get_host_and_port()[1]}")
    files.mkdir("bucket")
    for path in folder.iterdir():
        files.pipe_file(f"bucket/packs/{path.name}", path.read_bytes())
    ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False).start()
    ready.set()
    signal.pause()


@pytest.fixture(scope="module")
def running(folder) -> Iterator[Server]:
    server = Server(folder)
    yield server
    server.kill()


@pytest.fixture
def server(running, monkeypatch) -> Server:
    """A server that holds the packs, and which fsspec finds."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{running.port}"}.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    running.thaw()
    return running


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sources, "REQUEST_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(sources, "RETRY_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(sources, "_BACKOFF_SECONDS", (0.1, 0.5))


def first_piece(root: Path | str) -> ShardMember:
    return open_manifest(root).rows[0].source


def batches(root: Path | str, workers: int) -> Iterator[TrainBatch]:
    clips = TrainClips(open_manifest(root), CLIPS, seed=0)
    return iter_train_batches(
        clips, videos_per_step=2, steps_per_epoch=4, total_steps=12, workers=workers, device=torch.device("cpu")
    )


def same(actual: list[TrainBatch], expected: list[TrainBatch]) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(actual, expected, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_same_clips_from_a_server_as_from_a_folder(server, folder, workers):
    assert open_manifest(PACKS).fingerprint == open_manifest(folder).fingerprint
    assert same(list(batches(PACKS, workers)), list(batches(folder, 0)))


def test_a_server_that_dies_in_mid_epoch_and_comes_back_changes_nothing(server, folder, monkeypatch):
    remaining = batches(PACKS, 2)
    received = [next(remaining)]
    server.kill()
    back = threading.Timer(1.0, server.start)
    back.start()
    received += remaining
    back.join()
    assert same(received, list(batches(folder, 0)))


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("kill", r"\d\.mp4 in s3://bucket/packs/all-.* cannot be reached: .* to continue"),
        ("freeze", r"cannot be reached: no answer within 1 s \(\d tries in \d s\); once it can"),
    ],
)
def test_a_server_that_stops_for_good_stops_the_run_and_no_video_is_to_blame(server, impatient, action, reason):
    remaining = batches(PACKS, 2)
    next(remaining)
    getattr(server, action)()
    with pytest.raises(InputError, match=reason) as caught:
        list(remaining)
    assert not isinstance(caught.value, BrokenVideo)


def test_a_server_that_thaws_is_read_again(server, monkeypatch):
    member = first_piece(PACKS)
    expected = fetch_source(member)
    monkeypatch.setattr(sources, "REQUEST_TIMEOUT_SECONDS", 1.0)
    server.freeze()
    thawing = threading.Timer(2.0, server.thaw)
    thawing.start()
    assert fetch_source(member) == expected
    thawing.join()


def test_a_frozen_server_does_not_keep_a_process_from_ending(server):
    program = """
import fsspec, sys, time
from vidstill.data.storage import fetch
fetch.REQUEST_TIMEOUT_SECONDS, fetch.RETRY_TIMEOUT_SECONDS, fetch._BACKOFF_SECONDS = 0.5, 1.0, (0.1, 0.1)
try:
    fetch.fetch_source(fetch.ShardMember("s3://bucket/packs/a.tar", 0, 10, "one.mp4"))
except fetch.StorageUnreachable as error:
    print(error)
    print("over at", time.time())
"""
    server.freeze()
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=True)
    ended, output = time.time(), ran.stdout
    assert "one.mp4 in s3://bucket/packs/a.tar cannot be reached: no answer within 0.5 s" in output
    assert ended - float(output.split()[-1]) < 20


def test_packing_from_a_server_that_dies_stops_and_resumes(server, folder, tmp_path, impatient):
    small = TranscodeConfig(short_side=16)
    pack_dataset(folder, tmp_path / "from a folder", small, clips_per_shard=1)
    out = tmp_path / "from a server"
    with pytest.raises(StorageUnreachable, match="once it can, run the same command again"):
        pack_dataset(PACKS, out, small, clips_per_shard=1, progress=lambda done, of: done == 1 and server.kill())
    assert (out / "all-000000.tar").is_file()
    assert not (out / "index.jsonl").exists()
    server.start()
    output = pack_dataset(PACKS, out, small, clips_per_shard=1)
    assert (output.num_videos, output.skipped) == (VIDEOS, ())
    for path in (tmp_path / "from a folder").iterdir():
        if path.name not in ("pack.json", "SHA256SUMS"):  # which say where the videos came from
            assert (out / path.name).read_bytes() == path.read_bytes()


def test_an_object_that_is_missing_or_cut_is_the_files_fault(server):
    member = first_piece(PACKS)
    files = fsspec.filesystem("s3")
    files.pipe_file("bucket/packs/all-000000.tar", b"\0" * (member.offset + 100))
    cut = rf"0\.mp4 in .* is cut off: it has {member.size} bytes from byte 512 on"
    with pytest.raises(BrokenVideo, match=f"{cut}, of which the shard holds 100"):
        fetch_source(member)
    files.pipe_file("bucket/packs/all-000000.tar", b"\0" * 100)
    with pytest.raises(BrokenVideo, match=f"{cut}, of which the shard holds 0"):
        fetch_source(member)
    files.rm_file("bucket/packs/all-000000.tar")
    with pytest.raises(BrokenVideo, match=r"0\.mp4 in s3://bucket/packs/all-000000\.tar does not exist"):
        fetch_source(member)
    server.kill()  # with what was done to it


def test_missing_credentials_are_reported(server, monkeypatch):
    member = first_piece(PACKS)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageUnreachable, match="cannot be read: Unable to locate credentials; check the credentials"):
        fetch_source(member)
