"""What a clip is to be: which frames, from how much of a video, at which size."""

from dataclasses import dataclass, replace

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import infer_encoder_config
from vidstill.data.datasets.lookup import FrameSampling
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.recipes.auto.dataset_stats import DatasetStats
from vidstill.recipes.auto.defaults import AutoRules
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class ClipChoice:
    """How much of a video is seen at once, and the rows and columns of a clip, or from scratch the most of them."""

    sampling: FrameSampling
    size: tuple[int, int]
    summary: str
    reason: str
    why_size: str = ""


def choose_clip(stats: DatasetStats, checkpoint: Checkpoint | None, rules: AutoRules) -> ClipChoice:
    if checkpoint is not None:
        return _choose_clip_of_checkpoint(checkpoint, stats)
    side = max(
        (side for side in rules.tubelets if side <= rules.max_upscale * stats.median_short_side),
        default=min(rules.tubelets),
    )
    if stats.is_images:
        sampling: FrameSampling = SegmentSampling(num_frames=1)
        return ClipChoice(
            sampling=sampling, size=(side, side), summary="clips of one frame", reason="the data are pictures"
        )
    frames = rules.frames
    while frames > 4 and frames > stats.median_frames:  # tubelets of 4 frames are the longest
        frames //= 2
    lasts = (
        f"{stats.median_frames} frames"
        + (f" or {stats.median_seconds:.1f} s" if stats.median_seconds else "")
        + " in the middle"
    )
    if stats.median_frames < 2 * frames or (stats.median_seconds or 0) <= rules.whole_video_seconds:
        sampling, said = SegmentSampling(num_frames=frames, rule="amd"), f"{frames} frames from all of a video"
    else:
        rate = stats.frame_rate or 25.0
        stride = max(1, min(round(rules.clip_seconds * rate / frames), stats.median_frames // frames))
        sampling, said = DenseSampling(num_frames=frames, stride=stride), f"{frames} frames, every {stride}."
    return ClipChoice(sampling=sampling, size=(side, side), summary=said, reason=f"a video has {lasts}")


def _choose_clip_of_checkpoint(checkpoint: Checkpoint, stats: DatasetStats) -> ClipChoice:
    """What the start was trained to see; of clips that are longer than the videos, at a smaller stride."""
    about = checkpoint.metadata
    if about.get("kind") == "classifier" and "views" in about:
        views = from_dict(ViewsConfig, about["views"])
        sampling, size = views.sampling, views.size
    elif isinstance(about.get("recipe"), dict) and "clips" in about["recipe"]:
        clips = from_dict(ClipsConfig, about["recipe"]["clips"])
        sampling, size = clips.sampling, clips.size
    else:
        of_images = infer_encoder_config(checkpoint).tubelet[0] == 1
        sampling, size = DenseSampling(num_frames=1 if of_images else 16, stride=4), (224, 224)
    if stats.is_images:
        if infer_encoder_config(checkpoint).tubelet[0] > 1:
            raise InputError(
                f"{checkpoint.source} is an encoder of clips, and the data are pictures; start from one of images, or from "
                "scratch without --init"
            )
        sampling = SegmentSampling(num_frames=1)
    elif sampling.num_frames == 1:  # of images, which becomes one of clips
        sampling = DenseSampling(num_frames=16, stride=4)
    if isinstance(sampling, SpanSampling):
        sampling = DenseSampling(num_frames=sampling.num_frames, stride=sampling.stride)
    if isinstance(sampling, DenseSampling) and sampling.num_frames > 1:
        sampling = replace(sampling, stride=max(1, min(sampling.stride, stats.median_frames // sampling.num_frames)))
    said = f"{sampling.num_frames} frames" + (
        f", every {sampling.stride}." if isinstance(sampling, DenseSampling) else ""
    )
    return ClipChoice(
        sampling=sampling,
        size=size,
        summary="clips of one frame" if stats.is_images else said,
        reason=f"{checkpoint.source} has seen such clips, and a video has {stats.median_frames} frames in the middle",
        why_size=f"{checkpoint.source} has seen such clips",
    )
