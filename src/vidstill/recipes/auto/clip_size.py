"""What a clip is to be: which frames, from how much of a video, at which size."""

from dataclasses import dataclass, replace

from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.load import encoder_config
from vidstill.data.datasets.lookup import Sampling
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.recipes.auto.dataset_stats import DataFacts
from vidstill.recipes.auto.defaults import Rules
from vidstill.utils.config_io import from_plain
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class Look:
    """How much of a video is seen at once, and the rows and columns of a clip, or from scratch the most of them."""

    sampling: Sampling
    size: tuple[int, int]
    said: str
    why: str
    why_size: str = ""


def looked(facts: DataFacts, start: Weights | None, rules: Rules) -> Look:
    if start is not None:
        return _look_of(start, facts)
    side = max(
        (side for side in rules.tubelets if side <= rules.enlarged * facts.short_side), default=min(rules.tubelets)
    )
    if facts.pictures:
        sampling: Sampling = SegmentSampling(frames=1)
        return Look(sampling=sampling, size=(side, side), said="clips of one frame", why="the data are pictures")
    frames = rules.frames
    while frames > 4 and frames > facts.frames:  # tubelets of 4 frames are the longest
        frames //= 2
    lasts = f"{facts.frames} frames" + (f" or {facts.seconds:.1f} s" if facts.seconds else "") + " in the middle"
    if facts.frames < 2 * frames or (facts.seconds or 0) <= rules.whole_seconds:
        sampling, said = SegmentSampling(frames=frames, rule="amd"), f"{frames} frames from all of a video"
    else:
        rate = facts.rate or 25.0
        stride = max(1, min(round(rules.span_seconds * rate / frames), facts.frames // frames))
        sampling, said = DenseSampling(frames=frames, stride=stride), f"{frames} frames, every {stride}."
    return Look(sampling=sampling, size=(side, side), said=said, why=f"a video has {lasts}")


def _look_of(start: Weights, facts: DataFacts) -> Look:
    """What the start was trained to see; of clips that are longer than the videos, at a smaller stride."""
    about = start.about
    if about.get("kind") == "classifier" and "views" in about:
        views = from_plain(ViewsConfig, about["views"])
        sampling, size = views.sampling, views.size
    elif isinstance(about.get("recipe"), dict) and "clips" in about["recipe"]:
        clips = from_plain(ClipsConfig, about["recipe"]["clips"])
        sampling, size = clips.sampling, clips.size
    else:
        of_images = encoder_config(start).tubelet[0] == 1
        sampling, size = DenseSampling(frames=1 if of_images else 16, stride=4), (224, 224)
    if facts.pictures:
        if encoder_config(start).tubelet[0] > 1:
            raise InputError(
                f"{start.source} is an encoder of clips, and the data are pictures; start from one of images, or from "
                "scratch without --init"
            )
        sampling = SegmentSampling(frames=1)
    elif sampling.frames == 1:  # of images, which becomes one of clips
        sampling = DenseSampling(frames=16, stride=4)
    if isinstance(sampling, SpanSampling):
        sampling = DenseSampling(frames=sampling.frames, stride=sampling.stride)
    if isinstance(sampling, DenseSampling) and sampling.frames > 1:
        sampling = replace(sampling, stride=max(1, min(sampling.stride, facts.frames // sampling.frames)))
    said = f"{sampling.frames} frames" + (f", every {sampling.stride}." if isinstance(sampling, DenseSampling) else "")
    return Look(
        sampling=sampling,
        size=size,
        said="clips of one frame" if facts.pictures else said,
        why=f"{start.source} has seen such clips, and a video has {facts.frames} frames in the middle",
        why_size=f"{start.source} has seen such clips",
    )
