"""The inference road: every clip has its record, whatever goes through the model together and whatever is broken."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_videos import write_video
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer.run import Clip, iter_window_clips, mean_over_views, run, run_dataset
from vidstill.pipelines.run_config import Workers

VIEWS = ViewsConfig(
    sampling=SegmentSampling(num_frames=4), temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16)
)


class Brightness:
    """A model that says how bright each clip is, and how many clips it was given at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, clip: Tensor, boxes: Tensor | None = None) -> dict[str, Tensor]:
        self.batches.append(len(clip))
        mean = clip.mean(dim=(1, 2, 3, 4))
        return {"mean": mean} if boxes is None else {"box": boxes.sum(dim=2) + mean[:, None]}


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("fp32")


@pytest.fixture
def manifest(tmp_path):
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4")
    return open_manifest(tmp_path / "videos")


def clips(*shapes: tuple[int, ...], boxes: int | None = None) -> Iterator[Clip]:
    for index, shape in enumerate(shapes):
        pixels = torch.full(shape, 51 * (index % 6), dtype=torch.uint8)
        own = None if boxes is None else torch.arange(4.0 * (index + boxes)).reshape(-1, 4)
        yield Clip(index, pixels, boxes=own)


@pytest.mark.parametrize(("batch", "batches"), [(None, [6, 6]), (4, [4, 2, 4, 2]), (12, [12]), (100, [12])])
def test_the_batch_of_the_device_changes_no_record(runtime, batch, batches):
    model = Brightness()
    records = list(run(model, clips((6, 3, 2, 4, 4), (6, 3, 2, 4, 4)), runtime, batch=batch, merge=mean_over_views))
    assert model.batches == batches
    assert [(each.video, each.start) for each in records] == [(0, None), (1, None)]
    assert [float(each.arrays["mean"]) for each in records] == pytest.approx([0, 0.2])


def test_clips_of_different_shapes_never_share_a_batch(runtime):
    model = Brightness()
    records = list(run(model, clips((1, 3, 1, 4, 4), (1, 3, 1, 4, 4), (1, 3, 1, 4, 6)), runtime, batch=8))
    assert model.batches == [2, 1]
    assert [each.arrays["mean"].shape for each in records] == [(), (), ()]


def test_each_key_frame_has_a_row_for_each_of_its_own_boxes(runtime):
    shape = (1, 3, 1, 4, 4)
    records = list(run(Brightness(), clips(shape, shape, shape, boxes=1), runtime, batch=3))
    for number, record in enumerate(records):
        expected = np.arange(4.0 * (number + 1)).reshape(-1, 4).sum(axis=1) + 0.2 * number
        np.testing.assert_allclose(record.arrays["box"], expected, rtol=1e-6)


def test_rows_of_a_model_may_differ_in_length_and_wide_numbers_stay_wide(runtime):
    def detect(clip: Tensor) -> dict[str, list[Tensor]]:
        return {"boxes": [torch.zeros(number, 4, dtype=torch.float64) for number in range(len(clip))]}

    records = list(run(detect, clips(*[(1, 3, 1, 4, 4)] * 3), runtime, batch=3))
    assert [each.arrays["boxes"].shape for each in records] == [(0, 4), (1, 4), (2, 4)]
    assert records[0].arrays["boxes"].dtype == np.float64


def test_half_precision_becomes_float32(runtime):
    records = run(lambda clip: {"mean": clip.mean(dim=(1, 2, 3, 4)).bfloat16()}, clips((1, 3, 1, 4, 4)), runtime)
    assert next(records).arrays["mean"].dtype == np.float32


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_video_is_named_and_never_replaced(runtime, manifest, workers):
    (manifest.source / manifest.rows.get_name(1)).write_bytes(b"no frame in here")
    progress: list[tuple[float, float]] = []
    records, broken = run_dataset(
        Brightness(),
        ViewClips(manifest, VIEWS),
        runtime,
        Workers(workers=workers),
        merge=mean_over_views,
        progress=lambda done, of: progress.append((done, of)),
    )
    assert [*records, *broken] == [*(n for n in range(len(manifest.rows)) if n != 1), 1]
    assert manifest.rows.get_name(1) in broken[1]
    assert progress[-1] == (len(manifest.rows), len(manifest.rows))


def test_numbers_that_are_not_finite_count_as_broken_if_required(runtime, manifest):
    def model(clip: Tensor) -> dict[str, Tensor]:
        return {"mean": clip.mean(dim=(1, 2, 3, 4)) / 0}

    dataset = ViewClips(manifest, VIEWS)
    records, broken = run_dataset(model, dataset, runtime, merge=mean_over_views, require_finite=True)
    assert (len(records), len(broken)) == (0, len(dataset))
    assert broken[0].endswith("has scores that are not finite")
    assert not run_dataset(model, dataset, runtime, merge=mean_over_views)[1]


def test_windows_before_the_one_that_breaks_are_still_answered(runtime, tmp_path):
    path = write_video(tmp_path / "video.avi", 60, codec="mjpeg")
    windows = WindowsConfig(window_seconds=0.1, hop_seconds=0.1)

    def start_seconds() -> tuple[list[float | None], dict[int, str]]:
        broken: dict[int, str] = {}
        clips = iter_window_clips(7, VideoRow(path, None), windows, VIEWS, broken=broken)
        return [each.start for each in run(Brightness(), clips, runtime, batch=4, merge=mean_over_views)], broken

    whole, broken = start_seconds()
    assert (len(whole), broken) == (24, {})
    data = path.read_bytes()
    middle = data.index(b"\xff\xd8\xff", len(data) // 2)  # where a frame begins
    path.write_bytes(data[:middle] + bytes(900) + data[middle + 900 :])
    part, broken = start_seconds()
    assert list(broken) == [7]
    assert 0 < len(part) < len(whole)
    assert part == whole[: len(part)]
