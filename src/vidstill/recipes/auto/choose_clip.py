"""The clips of the automatic recipe: how many frames, at which stride, of which size."""

from dataclasses import dataclass, replace

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import infer_encoder_config
from vidstill.data.datasets.base import FrameSampling
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.dataset_stats import DatasetStats
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError


@dataclass(frozen=True)
class ClipChoice:
    """The frames of a clip, and its rows and columns: an upper bound if the training starts from scratch."""

    sampling: FrameSampling
    size: tuple[int, int]
    reason: str


def choose_clip(stats: DatasetStats, checkpoint: Checkpoint | None) -> ClipChoice:
    """Choose clips by the length and size of the videos, or as the checkpoint was trained."""
    if checkpoint is not None:
        return _choose_clip_of_checkpoint(checkpoint, stats)
    sides = [side for side in defaults.TUBELETS if side <= defaults.MAX_UPSCALE * stats.median_short_side]
    side = max(sides, default=min(defaults.TUBELETS))
    if stats.is_images:
        return ClipChoice(SegmentSampling(num_frames=1), (side, side), "single frames: the data are images")
    frames = defaults.NUM_FRAMES
    while frames > 4 and frames > stats.median_frames:  # the longest tubelets have 4 frames
        frames //= 2
    sampling: FrameSampling = SegmentSampling(num_frames=frames, rule="amd")
    extent = "over the whole video"
    if stats.median_frames >= 2 * frames and (stats.median_seconds or 0) > defaults.WHOLE_VIDEO_SECONDS:
        stride = round(defaults.CLIP_SECONDS * (stats.frame_rate or 25.0) / frames)
        stride = max(1, min(stride, stats.median_frames // frames))
        sampling, extent = DenseSampling(num_frames=frames, stride=stride), f"at stride {stride}"
    seconds = f" or {stats.median_seconds:.1f} s" if stats.median_seconds else ""
    reason = f"{frames} frames {extent}: median video length {stats.median_frames} frames{seconds}"
    return ClipChoice(sampling, (side, side), reason)


def _choose_clip_of_checkpoint(checkpoint: Checkpoint, stats: DatasetStats) -> ClipChoice:
    """Choose the clips that the checkpoint was trained on; at a smaller stride if the videos are shorter."""
    encodes_images = infer_encoder_config(checkpoint).tubelet[0] == 1
    trained_on = read_trained_clips(checkpoint)
    size = trained_on.size if trained_on else (224, 224)
    sampling = trained_on.sampling if trained_on else DenseSampling(num_frames=1 if encodes_images else 16, stride=4)
    if stats.is_images:
        if not encodes_images:
            raise InputError(
                f"{name_source(checkpoint)} is an encoder of clips, and the data are images; start from an encoder of "
                "images, or from scratch without --init"
            )
        sampling = SegmentSampling(num_frames=1)
    elif sampling.num_frames == 1:  # an encoder of images becomes one of clips
        sampling = DenseSampling(num_frames=16, stride=4)
    if isinstance(sampling, SpanSampling):
        sampling = DenseSampling(num_frames=sampling.num_frames, stride=sampling.stride)
    if isinstance(sampling, DenseSampling) and sampling.num_frames > 1:
        sampling = replace(sampling, stride=max(1, min(sampling.stride, stats.median_frames // sampling.num_frames)))
    stride = f" at stride {sampling.stride}" if isinstance(sampling, DenseSampling) else ""
    lengths = f"{name_source(checkpoint)} was trained so; median video length {stats.median_frames} frames"
    reason = (
        "single frames: the data are images" if stats.is_images else f"{sampling.num_frames} frames{stride}: {lengths}"
    )
    return ClipChoice(sampling, size, reason)


def read_trained_clips(checkpoint: Checkpoint) -> ViewsConfig | ClipsConfig | None:
    """Return the clips that a checkpoint states to have been trained on; None: it states none."""
    metadata = checkpoint.metadata
    if metadata.get("kind") == "classifier" and "views" in metadata:
        return from_dict(ViewsConfig, metadata["views"])
    if isinstance(metadata.get("recipe"), dict) and "clips" in metadata["recipe"]:
        return from_dict(ClipsConfig, metadata["recipe"]["clips"])
    return None


def name_source(checkpoint: Checkpoint) -> str:
    """Return what messages call a checkpoint: the address that it was fetched from, or its file."""
    return str(checkpoint.foreign_metadata.get("address", checkpoint.source))
