"""A sample costs one opening of its video, and one fetch where that is remote, with any number of workers."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from recorded_calls import record_calls
from tiny_videos import write_video

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.decode.reader import VideoReader
from vidstill.data.loader.loader import iter_train_batches, iter_view_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.transforms.frame_sampling import DenseSampling, TimedSampling

pytestmark = pytest.mark.usefixtures("memory_addresses")

VIDEOS = 6
SAMPLING = TimedSampling(num_frames=4, stride=2.0)  # it needs the number of frames and the frame rate
CLIPS = ClipsConfig(dataset="any", sampling=SAMPLING, size=(16, 16), repeats=2, repeat_sampling="own")
VIEWS = ViewsConfig(
    sampling=DenseSampling(num_frames=4, stride=2), temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16)
)


@pytest.fixture(params=["local", "remote"])
def manifest(request, tmp_path) -> Manifest:
    for n in range(VIDEOS):
        write_video(tmp_path / "videos" / f"{n}.mp4", 20 + n)
    root: PathOrUrl = tmp_path / "videos"
    if request.param == "remote":
        files = fsspec.filesystem("memory")
        root = f"memory://{tmp_path.name}"
        for n in range(VIDEOS):
            files.pipe(f"/{tmp_path.name}/{n}.mp4", (tmp_path / f"videos/{n}.mp4").read_bytes())
    return open_manifest(root)


@pytest.fixture
def count_calls(tmp_path, monkeypatch) -> Callable[[], Counter[str]]:
    """Counts openings of videos and requests for bytes, in this process and in workers."""
    log = tmp_path / "calls"
    log.touch()

    record_calls(av, "open", log, monkeypatch)
    record_calls(MemoryFileSystem, "cat_file", log, monkeypatch)
    return lambda: Counter(log.read_text().split())


def expected_calls(manifest: Manifest, samples: int) -> Counter[str]:
    return Counter({"open": samples} | ({} if isinstance(manifest.source, Path) else {"cat_file": samples}))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_training_sample_opens_its_video_once(manifest, count_calls, workers):
    batches = iter_train_batches(
        TrainClips(manifest, CLIPS, seed=0),
        videos_per_step=2,
        steps_per_epoch=3,
        total_steps=6,
        workers=workers,
        device=torch.device("cpu"),
    )
    assert sum(len(batch.clip) for batch in batches) == 2 * 12
    assert count_calls() == expected_calls(manifest, 12)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_evaluation_sample_opens_its_video_once(manifest, count_calls, workers):
    batches = iter_view_batches(
        ViewClips(manifest, VIEWS), videos_per_batch=2, broken_videos={}, workers=workers, device=torch.device("cpu")
    )
    assert sum(len(batch.clip) for batch in batches) == VIDEOS
    assert count_calls() == expected_calls(manifest, VIDEOS)


def test_metadata_and_several_reads_come_from_one_opening(manifest, count_calls):
    with VideoReader(manifest.rows[0].source) as reader:
        assert reader.num_frames == 20
        assert reader.frame_rate == reader.metadata.frame_rate == 25
        assert len(reader.read_frames([3, 19])) == len(reader.read_frames([0, 7])) == 2
    assert count_calls() == expected_calls(manifest, 1)
