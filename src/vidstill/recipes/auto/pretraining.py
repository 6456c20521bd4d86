"""Pre-training on the user's clips without labels, for the encoder of the automatic recipe: VideoMAE, laptop-size."""

from dataclasses import replace

from vidstill.data.transforms.frame_sampling import DenseSampling, SpanSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.methods.common.masking import RandomMask
from vidstill.recipes import laptop
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.flops import compute_model_cost


def choose_pretraining(recipe: FinetuneRecipe, stats: DatasetStats, hardware: Hardware) -> PretrainRecipe:
    """Choose the pre-training of a fine-tuning's encoder, with clips as in the fine-tuning.

    Args:
        recipe: Of the fine-tuning.
        stats: Of the videos without labels.
        hardware: Cores or GPUs.

    Raises:
        InputError: The clips do not divide into whole tubelets.
    """
    base, sampling, kind = laptop.videomae, recipe.clips.sampling, hardware.device_kind
    frames, stride = sampling.num_frames, 2
    if isinstance(sampling, SpanSampling | DenseSampling):
        stride = sampling.stride
    stride = max(1, min(stride, stats.median_frames // frames))
    gflops = compute_model_cost(recipe.encoder, num_frames=frames, size=recipe.clips.size).gflops
    per_second = defaults.GMACS_PER_SECOND[kind] * hardware.count
    # the encoder sees a quarter of the tokens, the small decoder all: about half the cost of all tokens
    affordable = 60 * defaults.TRAINING_MINUTES[kind] * per_second / (1.5 * gflops)
    fewest, most = defaults.PRETRAINING_EPOCHS
    num_clips = min(defaults.PRETRAINING_CLIPS, affordable)
    epochs = min(max(int(num_clips / (stats.num_clips * base.clips.repeats)), fewest), most)
    even = base.clips.repeats * hardware.processes
    batch = min(base.batch, stats.num_clips * base.clips.repeats) // even * even
    return replace(
        base,
        method=replace(
            base.method,
            encoder=replace(recipe.encoder, drop_path=0.0),
            mask=RandomMask(ratio=0.75),  # small clips have few tokens: docs/log.md
        ),
        clips=replace(
            base.clips,
            dataset="own",
            sampling=SpanSampling(num_frames=frames, stride=stride),
            size=recipe.clips.size,
            flip_probability=recipe.clips.flip_probability,
        ),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=epochs / 10),
        batch=max(batch, even),
        seed=recipe.seed,
    )
