"""The cache of decoded videos: the same samples to the bit, one opening of each video, whatever happens to workers."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from damaged_videos import DAMAGED
from deadly import kill, once
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from recorded_calls import record_calls
from tiny_videos import numbered, write_video

from vidstill.data.datasets import open_cache
from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.decode.reader import VideoReader
from vidstill.data.loader.loader import iter_train_batches, iter_view_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.pack import pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling

pytestmark = pytest.mark.usefixtures("memory_addresses")

EPOCHS = 3
SLOT = 40 * 32 * 64 * 3  # what 40 frames take
CLIPS = ClipsConfig(dataset="any", sampling=SpanSampling(num_frames=4, stride=2), size=(16, 16), repeats=2)
TIMED = replace(CLIPS, sampling=TimedSampling(num_frames=4, stride=3.0, frame_rate=30.0), repeat_sampling="own")
VIEWS = ViewsConfig(
    sampling=DenseSampling(num_frames=4, stride=2), temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16)
)


@pytest.fixture(autouse=True)
def _forget_caches(monkeypatch):
    """Each test is a process of its own to the caches."""
    monkeypatch.setattr(open_cache, "_caches", {})


def write_folder(folder: Path, count: int = 6) -> Path:
    for n in range(count):
        write_video(folder / f"{n}.mp4", 20 + n)
    return folder


def make_files(folder: Path) -> Path:
    write_video(folder / "mpeg4.avi", 25, codec="mpeg4")
    write_video(folder / "short.mp4", 3)
    return write_folder(folder)


def make_images(folder: Path) -> Path:
    for video, frames in enumerate((9, 12)):
        (folder / f"v{video}").mkdir(parents=True)
        for n in range(frames):
            Image.fromarray(numbered(n)).save(folder / f"v{video}" / f"img_{n:05d}.png")
    (folder / "list.txt").write_text("v0 9 0\nv1 10 1\n")
    return folder / "list.txt"


def make_packs(folder: Path) -> Path:
    pack_dataset(write_folder(folder / "videos"), folder / "packs", TranscodeConfig(short_side=16), clips_per_shard=4)
    return folder / "packs"


def make_addresses(folder: Path) -> str:
    for path in write_folder(folder / "videos").iterdir():
        fsspec.filesystem("memory").pipe(f"/{folder.name}/{path.name}", path.read_bytes())
    return f"memory://{folder.name}"


def make_wrong_list(folder: Path) -> Path:
    """Too few frames, none, and more than there are, so that clips at the end are broken."""
    write_folder(folder)
    frames = ["", ', "frames": 9', ', "frames": 60', ', "frames": 22, "rate": 50']
    lines = [f'{{"path": "{n}.mp4", "bytes": 1000{each}}}\n' for n, each in enumerate(frames)]
    (folder / "list.jsonl").write_text("".join(lines))
    return folder / "list.jsonl"


def make_damaged(folder: Path) -> Path:
    for name in ("cut.x264_b3.mkv", "flip_bits_key.x264_b3.mp4", "shorten_others.mpeg4.mp4", "states_more.avi"):
        folder.mkdir(exist_ok=True)
        DAMAGED[name](folder / name)
    (folder / "empty.mp4").write_bytes(b"")
    write_video(folder / "sound.mp4", 20)
    return folder


SOURCES = [make_files, make_images, make_packs, make_addresses, make_wrong_list, make_damaged]


@pytest.fixture(params=SOURCES, ids=lambda make: make.__name__.removeprefix("make_"))
def manifest(request, tmp_path) -> Manifest:
    return open_manifest(request.param(tmp_path / "data"))


@pytest.fixture
def count_openings(tmp_path, monkeypatch) -> Callable[[], int]:
    """Counts readers of videos and requests for bytes, in this process and in workers, since the last call."""
    log = tmp_path / "calls"
    log.touch()

    def count() -> int:
        calls = Counter(log.read_text().split())
        log.write_text("")
        assert calls["cat_file"] in (0, calls["__init__"])
        return calls["__init__"]

    record_calls(VideoReader, "__init__", log, monkeypatch)
    record_calls(MemoryFileSystem, "cat_file", log, monkeypatch)
    return count


def train(dataset: TrainClips, epochs: range = range(EPOCHS), workers: int = 0) -> Iterator[torch.Tensor]:
    """The batches of some epochs, in which every video is shown."""
    steps = len(dataset) // 2
    return iter_train_batches(
        dataset,
        videos_per_step=2,
        steps_per_epoch=steps,
        start_step=epochs.start * steps,
        total_steps=epochs.stop * steps,
        workers=workers,
        device=torch.device("cpu"),
        max_broken_fraction=0.9,
    )


def load(dataset: TrainClips | ViewClips) -> list:
    """Every sample of three epochs, or the sentence that says what is wrong with it."""
    samples = []
    for epoch, index in product(range(EPOCHS), range(len(dataset))):
        key = (index,) if isinstance(dataset, ViewClips) else (epoch, index, 0, index)
        try:
            arrays = dataset.load_arrays(*key)
            samples.append([(array.shape, array.tobytes()) for array in arrays])
        except BrokenVideo as error:
            samples.append((str(error), error.source, error.reason))
    return samples


@pytest.mark.parametrize("config", [CLIPS, TIMED], ids=["span", "timed"])
def test_training_samples_are_the_same_to_the_bit(manifest, config):
    cache = FrameCache(manifest.rows, SLOT)
    assert load(TrainClips(manifest, config, seed=1, cache=cache)) == load(TrainClips(manifest, config, seed=1))
    assert cache.count_videos() > 0


def test_views_are_the_same_to_the_bit(manifest):
    cache = FrameCache(manifest.rows, SLOT)
    assert load(ViewClips(manifest, VIEWS, cache=cache)) == load(ViewClips(manifest, VIEWS))
    assert cache.count_videos() > 0


def test_batches_of_workers_and_what_replaces_broken_videos_are_the_same(manifest, caplog):
    def list_batches(cache: FrameCache | None) -> tuple[list, list[str]]:
        caplog.clear()
        batches = train(TrainClips(manifest, TIMED, seed=3, cache=cache), workers=2)
        return [[column.numpy().tobytes() for column in batch] for batch in batches], caplog.messages

    assert list_batches(FrameCache(manifest.rows, SLOT)) == list_batches(None)


def test_images_are_clips_of_one_frame(tmp_path):
    for n in range(4):
        Image.fromarray(numbered(n)).save(tmp_path / f"{n}.png")
    manifest, config = open_manifest(tmp_path), replace(CLIPS, sampling=SegmentSampling(num_frames=1))
    cache = FrameCache(manifest.rows, SLOT)
    assert load(TrainClips(manifest, config, seed=1, cache=cache)) == load(TrainClips(manifest, config, seed=1))
    assert cache.count_videos() == 4


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("make", [make_files, make_images, make_packs, make_addresses])
def test_a_video_is_opened_once_in_all_epochs(make, tmp_path, count_openings, workers):
    manifest = open_manifest(make(tmp_path / "data"))
    cached = TrainClips(manifest, TIMED, seed=1, cache=FrameCache(manifest.rows, SLOT))
    count_openings()
    list(train(cached, range(1), workers))  # two workers may be at the same video where one epoch ends
    assert count_openings() == len(manifest)
    list(train(cached, range(1, EPOCHS), workers))
    assert count_openings() == 0
    list(train(TrainClips(manifest, TIMED, seed=1), range(EPOCHS), workers))
    assert count_openings() == EPOCHS * len(manifest)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_run_of_the_process_opens_nothing(tmp_path, count_openings, workers):
    folder, messages = write_folder(tmp_path / "data", 20), []
    for seed in range(2):
        manifest = open_manifest(folder)
        cache, message = open_frame_cache(manifest, workers=workers)
        list(train(TrainClips(manifest, CLIPS, seed=seed, cache=cache), range(2), workers))
        views = iter_view_batches(
            ViewClips(manifest, VIEWS, cache=cache),
            videos_per_batch=2,
            broken_videos={},
            workers=workers,
            device=torch.device("cpu"),
        )
        assert len(list(views)) == 10
        messages.append(message)
        # some are opened before, which tells whether all will fit
        assert count_openings() == (20 + open_cache._NUM_SAMPLED_VIDEOS if seed == 0 else 0)
    assert messages == ["cache: 20 videos, about 3.6 MB decoded, are held in memory"] * 2


def test_a_list_that_states_all_sizes_costs_no_opening(tmp_path, count_openings):
    write_folder(tmp_path, 2)
    line = '{{"path": "{}.mp4", "bytes": 1000, "frames": 20, "width": 64, "height": {}}}\n'
    (tmp_path / "list.jsonl").write_text(line.format(0, 32) + line.format(1, 3200))
    cache, message = open_frame_cache(open_manifest(tmp_path / "list.jsonl"), workers=1)
    assert message == "cache: 2 videos, about 12 MB decoded, are held in memory"
    assert cache is not None
    assert count_openings() == 0


@pytest.fixture
def memory(monkeypatch) -> Callable[[int], None]:
    """Sets the memory that is free, for each of the processes on this machine."""

    def set_free(num_bytes: int, processes: int = 1) -> None:
        monkeypatch.setattr(open_cache, "count_available_memory", lambda: num_bytes)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))

    return set_free


def test_a_data_set_is_held_where_it_fits_a_quarter_of_the_free_memory(tmp_path, memory):
    manifest, video = open_manifest(write_folder(tmp_path)), 20 * 32 * 64 * 3  # the smallest of six

    def open_with(free: int, processes: int = 1) -> tuple[bool, str]:
        open_cache._caches.clear()
        memory(free, processes)
        cache, message = open_frame_cache(manifest, workers=0)
        return cache is not None, message

    assert open_with(4 * 6 * 2 * video) == (True, "cache: 6 videos, about 0.8 MB decoded, are held in memory")
    assert open_with(2 * 4 * 6 * 2 * video, 2)[0]
    held = (False, "cache: off, since 6 videos take about 0.8 MB decoded, and a cache may take 0.4 MB now")
    assert open_with(4 * 6 * video // 2) == open_with(4 * 6 * video, 2) == held
    assert open_with(4000) == (False, "")  # the files alone are larger


def test_videos_that_do_not_fit_are_read_as_before(tmp_path, monkeypatch, count_openings):
    attempts, read_all_frames = [], VideoReader.read_all_frames
    monkeypatch.setattr(VideoReader, "read_all_frames", lambda *args: (attempts.append(1), read_all_frames(*args))[1])
    manifest = open_manifest(write_folder(tmp_path / "data"))
    cache = FrameCache(manifest.rows, 22 * 32 * 64 * 3)
    dataset = TrainClips(manifest, CLIPS, seed=1, cache=cache)
    count_openings()
    assert load(dataset) == load(TrainClips(manifest, CLIPS, seed=1))
    assert cache.count_videos() == 3  # of 20, 21 and 22 frames
    assert count_openings() == 3 + 3 * EPOCHS + 6 * EPOCHS
    assert len(attempts) == 6  # each is tried once


def test_the_oldest_cache_that_no_data_set_uses_is_dropped(tmp_path, memory):
    manifests = [open_manifest(write_folder(tmp_path / name)) for name in "abc"]
    memory(4 * 2 * 6 * 40 * 32 * 64 * 3)  # for two of them
    first, second = (open_frame_cache(manifest, workers=0)[0] for manifest in manifests[:2])
    dataset = TrainClips(manifests[0], CLIPS, seed=0, cache=first)
    third, _ = open_frame_cache(manifests[2], workers=0)
    assert third is not None
    assert open_frame_cache(manifests[0], workers=0)[0] is first is dataset._cache
    assert open_frame_cache(manifests[1], workers=0)[0] is not second


def test_without_forked_workers_only_the_process_itself_has_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(open_cache, "USE_FORK", False)
    manifest = open_manifest(write_folder(tmp_path))
    assert open_frame_cache(manifest, workers=2) == (None, "")
    assert open_frame_cache(manifest, workers=0)[0] is not None


def test_a_file_that_is_changed_in_place_is_read_anew(tmp_path):
    write_folder(tmp_path / "data", 2)
    manifest = open_manifest(tmp_path / "data")
    dataset = TrainClips(manifest, CLIPS, seed=1, cache=FrameCache(manifest.rows, SLOT))
    before = load(dataset)
    write_video(tmp_path / "data/1.mp4", numbers=range(100, 121))
    os.utime(tmp_path / "data/1.mp4", ns=(1, 1))
    after = load(dataset)
    assert after == load(TrainClips(manifest, CLIPS, seed=1))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False] * EPOCHS


def test_an_image_that_is_changed_in_its_folder_is_read_anew(tmp_path):
    manifest = open_manifest(make_images(tmp_path / "data"))
    dataset = TrainClips(manifest, CLIPS, seed=1, cache=FrameCache(manifest.rows, SLOT))
    before = load(dataset)
    for path in (tmp_path / "data/v1").iterdir():
        path.write_bytes(path.with_name("img_00000.png").read_bytes())
        os.utime(path, ns=(1, 1))
    after = load(dataset)
    assert after == load(TrainClips(manifest, CLIPS, seed=1))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False] * EPOCHS


def test_a_worker_that_is_killed_while_it_fills_an_entry_leaves_none(tmp_path, monkeypatch):
    manifest = open_manifest(write_folder(tmp_path / "data"))
    expected = [batch.clip.numpy().tobytes() for batch in train(TrainClips(manifest, CLIPS, seed=1))]
    read_all_frames = VideoReader.read_all_frames

    def fill_and_die(self: VideoReader, buffer: np.ndarray) -> np.ndarray | None:
        if once(tmp_path / "died"):
            buffer[:] = 77
            kill(signal.SIGKILL)
        return read_all_frames(self, buffer)

    monkeypatch.setattr(VideoReader, "read_all_frames", fill_and_die)
    cache = FrameCache(manifest.rows, SLOT)
    batches = train(TrainClips(manifest, CLIPS, seed=1, cache=cache), workers=2)
    assert [batch.clip.numpy().tobytes() for batch in batches] == expected
    assert (tmp_path / "died").exists()
    assert cache.count_videos() == len(manifest)


def test_the_log_says_why_a_cache_is_off_where_the_system_gives_no_memory(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(open_cache, "FrameCache", refuse)
    cache, message = open_frame_cache(open_manifest(write_folder(tmp_path)), workers=0)
    assert (cache, message) == (None, "cache: off, since the system gives no memory for it (Cannot allocate memory)")
