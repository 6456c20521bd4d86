"""The inference road: clips of videos → model → records; each rank does its share of the videos.

    records, broken = run_dataset(model, ViewClips(manifest, views), runtime, merge=mean_over_views)

`run_dataset` is the whole road for a test or a cache: every rank gets the records of all. What writes while it computes
(features, timelines, detections) calls the same two steps itself: `iter_dataset_clips` or `iter_window_clips` on this
rank's share, then `run`, and `gather` at the end.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vidstill.data.ava.samples import KeyframeView, KeyframeViewDataset
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig, iter_windows
from vidstill.data.decode.reader import VideoReader
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.run_config import Workers
from vidstill.utils.journal import Journal

K = TypeVar("K")
V = TypeVar("V")

Model = Callable[..., Mapping[str, Tensor | Sequence[Tensor]]]
"""`(clips)` or `(clips, boxes)`, on the device, in [0, 1] → `{name: one row per clip}`; rows may differ in length."""

MergeViews = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""Merges a clip's views: `{name: (views, …)}` → `{name: …}`."""

ProgressFn = Callable[[float, float], None]
"""Called with the number of videos that are done, broken ones included, and the number in this rank's share."""

_NO_WORKERS = Workers(workers=0)
_HALF = (torch.bfloat16, torch.float16)

_log = logging.getLogger("vidstill")


class Clip(NamedTuple):
    """One question to a model: a video's views, a window of it in all its crops, or a key frame with its boxes."""

    video: int  # index of the video, or of the key frame, in its dataset
    pixels: Num[Tensor, "v 3 t h w"]  # uint8, or floats in [0, 1]
    start: float | None = None  # of the window or key frame, in seconds; None: the clip stands for the whole video
    end: float | None = None
    boxes: Float[Tensor, "m 4"] | None = None  # x1, y1, x2, y2 in pixels of the clip


class Record(NamedTuple):
    """A model's answer to one clip, as float32 (or wider) arrays on the CPU."""

    video: int
    start: float | None
    end: float | None
    arrays: dict[str, np.ndarray]


def run(
    model: Model, clips: Iterable[Clip], runtime: Runtime, *, batch: int | None = None, merge: MergeViews | None = None
) -> Iterator[Record]:
    """Yield a record for each clip, in order.

    Consecutive clips of one shape go through the model together.

    Args:
        model: Called in inference mode; rows of half precision become float32.
        batch: Views that the device takes at once; None: those of one clip.
        merge: Merges a clip's views; None: a clip has one view.
    """
    for group in _group_clips(clips, batch):
        outputs = _forward(model, group, runtime, batch)
        for clip, views in zip(group, outputs, strict=True):
            result = merge(views) if merge else {name: each.squeeze(0) for name, each in views.items()}
            arrays = {name: each.cpu().numpy() for name, each in result.items()}
            yield Record(clip.video, clip.start, clip.end, arrays)


def run_dataset(
    model: Model,
    dataset: ViewClips | KeyframeViewDataset,
    runtime: Runtime,
    workers: Workers = _NO_WORKERS,
    *,
    merge: MergeViews | None = None,
    require_finite: bool = False,
    progress: ProgressFn = lambda done, total: None,
) -> tuple[dict[int, Record], dict[int, str]]:
    """Run a model over a dataset, each rank its share, and return the records of all ranks by their index.

    Args:
        workers: Decoding processes, and views that the device takes at once (None: those of one clip).
        merge: As for `run`.
        require_finite: Count a sample whose numbers are not all finite as broken.

    Returns:
        The records, and for each other sample the reason why there is none; both ascending by index.
    """
    records: dict[int, Record] = {}
    broken: dict[int, str] = {}
    total = len(range(runtime.rank, len(dataset), runtime.world_size))
    videos = max(1, (workers.device_batch or 1) // dataset.config.num_views) if isinstance(dataset, ViewClips) else 1
    clips = iter_dataset_clips(dataset, runtime, workers=workers.num_workers, broken=broken, videos_per_batch=videos)
    for record in run(model, clips, runtime, batch=workers.device_batch, merge=merge):
        if require_finite and not all(np.isfinite(each).all() for each in record.arrays.values()):
            broken[record.video] = f"{dataset.sample_name(record.video)} has scores that are not finite"
            _log.warning("%s; it is not counted", broken[record.video])
        else:
            records[record.video] = record
        progress(len(records) + len(broken), total)
    if records:
        progress(total, total)  # the last ones may be broken
    return gather(runtime, records), gather(runtime, broken)


def iter_dataset_clips(
    dataset: ViewClips | KeyframeViewDataset,
    runtime: Runtime,
    *,
    workers: int,
    broken: dict[int, str],
    videos_per_batch: int = 1,
) -> Iterator[Clip]:
    """Yield this rank's share of a dataset: all views of a video, or a key frame with its boxes.

    Args:
        workers: Processes that decode.
        broken: Receives the index of each sample that does not decode, and the reason.
        videos_per_batch: Videos that are loaded together; more of them take less time each. Key frames: 1.
    """
    batches: Iterator[Any] = iter_view_batches(
        dataset,
        videos_per_batch=videos_per_batch,
        broken_videos=broken,
        rank=runtime.rank,
        world_size=runtime.world_size,
        workers=workers,
        device=runtime.device,
    )
    for sample in batches:
        if isinstance(sample, KeyframeView):
            yield Clip(int(sample.keyframe_index), sample.clip, boxes=sample.boxes[0])
        else:
            yield from map(Clip, sample.video_index.tolist(), sample.clip)


def iter_window_clips(
    index: int,
    row: VideoRow,
    windows: WindowsConfig | Callable[[VideoReader], WindowsConfig],
    views: ViewsConfig,
    *,
    broken: dict[int, str],
) -> Iterator[Clip]:
    """Yield the windows of a video from start to end; memory does not grow with its length.

    Args:
        index: The video's.
        windows: Length and hop, or a function of the opened video that chooses them.
        broken: Receives the index, and the reason, if the video does not decode to its end.
    """
    window = None
    try:
        if row.error:
            raise BrokenVideo(row.source, row.error)
        with VideoReader(row.source) as video:
            config = windows if isinstance(windows, WindowsConfig) else windows(video)
            for window in iter_windows(video, config, views, default_frame_rate=row.frame_rate):
                yield Clip(index, window.clip, window.start, window.end)
        if window is None:
            raise BrokenVideo(row.source, "holds no frame that decodes")
    except BrokenVideo as error:
        broken[index] = str(BrokenVideo(row.source, error.reason))


def mean_over_views(views: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merge a clip's views to their mean."""
    return {name: each.mean(dim=0) for name, each in views.items()}


def gather(runtime: Runtime, share: Mapping[K, V]) -> dict[K, V]:
    """Return the union of all ranks' dictionaries, by ascending key."""
    union = {key: value for each in runtime.all_gather(dict(share)) for key, value in each.items()}
    return {key: union[key] for key in sorted(union)}  # type: ignore[type-var]  # keys are numbers or names


@contextmanager
def open_journal(journal: Journal, runtime: Runtime) -> Iterator[Journal]:
    """Open a journal on every rank, rank 0 first, and close it at the end."""
    try:
        runtime.run_on_main(journal.open)
        if not runtime.is_main:
            journal.open()
        yield journal
    finally:
        journal.close()


def _group_clips(clips: Iterable[Clip], batch: int | None) -> Iterator[list[Clip]]:
    """Consecutive clips of one shape, with as many views as the device takes at once, or one clip."""
    group: list[Clip] = []
    for clip in clips:
        if group:
            first = group[0]
            full = batch is None or sum(len(each.pixels) for each in (*group, clip)) > batch
            if full or clip.pixels.shape[1:] != first.pixels.shape[1:]:
                yield group
                group = []
        group.append(clip)
    if group:
        yield group


def _forward(model: Model, group: Sequence[Clip], runtime: Runtime, batch: int | None) -> list[dict[str, Tensor]]:
    """Return for each clip of a group its views' outputs by name; outputs for boxes without the padding."""
    clips = [clip.pixels.to(runtime.device) for clip in group]
    pixels = torch.cat(clips) if len(clips) > 1 else clips[0]
    inputs = [pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels]
    boxes = [clip.boxes for clip in group if clip.boxes is not None]
    if boxes:  # a key frame has one view
        inputs.append(pad_sequence(boxes, batch_first=True).to(runtime.device))
    with torch.inference_mode():
        parts = [model(*part) for part in zip(*(each.split(batch or len(each)) for each in inputs), strict=True)]
    rows = {name: [row for part in parts for row in part[name]] for name in parts[0]}
    outputs: list[dict[str, Tensor]] = []
    first = 0
    for number, clip in enumerate(group):
        views = {name: torch.stack(each[first : first + len(clip.pixels)]) for name, each in rows.items()}
        if boxes:
            views = {name: each[:, : len(boxes[number])] for name, each in views.items()}
        outputs.append({name: each.float() if each.dtype in _HALF else each for name, each in views.items()})
        first += len(clip.pixels)
    return outputs
