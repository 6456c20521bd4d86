"""Decides whether a dataset is held decoded in memory: where it fits a share of the memory that is free."""

import numpy as np
from jaxtyping import Int64

from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.engine.cpu import count_local_processes
from vidstill.engine.memory import count_available_memory
from vidstill.parallel.pool import map_in_workers
from vidstill.parallel.process import USE_FORK
from vidstill.utils.text import pluralize

MEMORY_SHARE = 0.25
"""What caches may take of the memory that is free or theirs already, divided by the processes on this machine."""

_MAX_VIDEO_BYTES = 2**27  # a longer video takes more time to decode whole than its clips take in many epochs
_NUM_SAMPLED_VIDEOS = 8  # opened where a list does not state the size of every video
_SLACK = 1.25  # other videos may be larger than those

_caches: dict[object, tuple[FrameCache, str]] = {}  # of this process, with their messages; the oldest first


def open_frame_cache(manifest: Manifest, *, workers: int) -> tuple[FrameCache | None, str]:
    """Open the cache of a dataset: that of an earlier run of this process on the same rows, or else a new one.

    It has to be opened before the workers are started. A cache whose memory is needed for another is dropped, unless a
    dataset uses it.

    Args:
        workers: Decoding processes; where they are not forked, there is a cache only without them.

    Returns:
        The cache, and a line for the log. None and no line where nobody would expect one: the files alone take more
        memory, or most videos are so long that it takes less time to decode parts of them.
    """
    if workers and not USE_FORK:
        return None, ""
    rows, key = manifest.rows, _make_key(manifest)
    if key not in _caches:
        used, budget = sum(cache.num_bytes for cache, _ in _caches.values() if cache.users), _compute_budget()
        remaining = max(0, budget - used)
        if rows.column("file_size").clip(0).sum() > remaining:
            return None, ""
        sizes = _estimate_sizes(manifest, workers)
        if not len(sizes) or np.median(sizes) > _MAX_VIDEO_BYTES:
            return None, ""
        slot = min(_MAX_VIDEO_BYTES, int(_SLACK * sizes.max()), remaining // len(rows))
        share, total = float((sizes <= slot).mean()), _format_bytes(int(sizes.mean() * len(rows)))
        videos = pluralize(len(rows), manifest.noun)
        if share < 0.5:
            reason = f"{videos} take about {total} decoded, and a cache may take {_format_bytes(remaining)} now"
            return None, f"cache: off, since {reason}"
        _drop_unused(budget - len(rows) * slot)
        held = videos if share == 1 else f"about {share:.0%} of {videos}"
        try:
            cache = FrameCache(rows, slot)
        except OSError as error:
            return None, f"cache: off, since the system gives no memory for it ({error.strerror})"
        _caches[key] = cache, f"cache: {held}, about {total} decoded, are held in memory"
    _caches[key] = _caches.pop(key)
    return _caches[key]


def _make_key(manifest: Manifest) -> object:
    """Return what the frames of every row depend on, except the files themselves, which the cache looks at."""
    rows = manifest.rows
    stated = (rows.column(name).tobytes() for name in ("frames", "offset"))
    return str(rows.root), rows.shards, manifest.fingerprint, *stated


def _compute_budget() -> int:
    held = sum(cache.count_bytes() for cache, _ in _caches.values())
    return int(MEMORY_SHARE * (count_available_memory() + held)) // count_local_processes()


def _drop_unused(num_bytes: int) -> None:
    """Drop the oldest caches that no dataset uses, until all take no more than these bytes."""
    for key, (cache, _) in list(_caches.items()):
        if sum(each.num_bytes for each, _ in _caches.values()) > num_bytes and not cache.users:
            del _caches[key]


def _estimate_sizes(manifest: Manifest, workers: int) -> Int64[np.ndarray, "n"]:
    """Return the decoded size in bytes of every video, where all are stated, or of some videos that decode."""
    rows = manifest.rows
    frames, width, height = (rows.column(name).astype(np.int64) for name in ("frames", "width", "height"))
    decodes = [index for index in range(len(rows)) if index not in rows.errors]
    if (sizes := 3 * (frames * width * height)[decodes]).all():
        return sizes
    sampled = [rows[index] for index in decodes[:: max(1, len(decodes) // _NUM_SAMPLED_VIDEOS)][:_NUM_SAMPLED_VIDEOS]]
    if workers:  # a process can be ended if the decoder hangs
        results = [result for _, result in map_in_workers(_measure_size, sampled, workers=1)]
    else:
        results = list(map(_measure_size, sampled))
    return np.array([size for size in results if isinstance(size, int) and size], np.int64)


def _measure_size(row: VideoRow) -> int:
    """Return the decoded size of a video in bytes; 0 if its first frame does not decode."""
    try:
        with VideoReader(row.source, num_frames=row.frames) as video:
            return video.num_frames * video.read_frames([0]).nbytes
    except BrokenVideo:
        return 0


def _format_bytes(num_bytes: int) -> str:
    value, unit = (num_bytes / 1e9, "GB") if num_bytes >= 1e9 else (num_bytes / 1e6, "MB")
    return f"{value:.{0 if value >= 10 else 1}f} {unit}"
