"""MAE's linear probe: a head trained by LARS on augmented clips, which a frozen encoder embeds anew in every epoch."""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AnyOptimConfig, LARSConfig
from vidstill.models.vit import ViT
from vidstill.pipelines.evaluate.classifier import check_decodes, score_classifier
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe.config import ProbeRunConfig, open_probe_datasets
from vidstill.pipelines.probe.feature_cache import hash_checkpoint
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.pipelines.probe.run import check_probe_encoder
from vidstill.pipelines.run_config import ClipRunConfig
from vidstill.pipelines.run_dir import WeightsSource
from vidstill.pipelines.session import TrainingSession
from vidstill.tasks.probes.linear import LinearProbeModel
from vidstill.tasks.results import SingleLabelResult
from vidstill.utils.output_dir import write_result_dir
from vidstill.utils.types import InputError, Output, check_range


@dataclass(frozen=True, kw_only=True)
class LarsProbeConfig:
    """MAE's settings (arXiv:2111.06377, appendix A.1)."""

    out: Path = Path("runs/probe")  # with --solver lars: run directory; the same command again resumes the run in it
    epochs: int = 90  # with --solver lars: epochs
    warmup_epochs: int = 10  # with --solver lars: epochs of linear learning rate warm-up
    base_lr: float = 0.1  # with --solver lars: peak learning rate for a batch of 256 clips
    batch: int = 16384  # with --solver lars: global batch size in clips; all videos if there are fewer
    flip: float = 0.5  # with --solver lars: probability of a horizontal flip; 0 if left and right differ

    def __post_init__(self) -> None:
        check_range(1, math.inf, epochs=self.epochs, batch=self.batch)


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """What decides a probe's run, as its run directory states it."""

    encoder: str  # first digits of its checkpoint's SHA-256
    clips: ClipsConfig
    views: ViewsConfig
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int
    seed: int
    global_pool: bool = False  # the final norm comes after the mean of the tokens


class ProbeTask(nn.Module):
    """Train a probe's head by cross-entropy; the frozen encoder is left out of checkpoints."""

    def __init__(self, model: LinearProbeModel):
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_drop_encoder_tensors)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], label: Int[Tensor, "b"], seed: Int[Tensor, "b"]) -> Output:
        return Output(F.cross_entropy(self.model(clip).float(), label))


def train_lars_probe(source: str, run_config: ProbeRunConfig, config: LarsProbeConfig, *, seed: int) -> ProbeReport:
    """Train a probe to its end, from the newest checkpoint if there is one, and test it.

    Args:
        source: Run directory or weights file of the encoder.
        run_config: The dataset; the features are fixed.
        config: The training.
        seed: Of the initial weights, the order and the crops.

    Raises:
        InputError: An input cannot be used; nothing was written then.
    """
    if len(run_config.data) != 1:
        raise InputError(f"--solver lars trains on one dataset, and --data has {len(run_config.data)}; give one")
    if run_config.layers or run_config.pool == "max":
        raise InputError("--solver lars probes the final class token or mean; leave out --layers and --pool max")
    (data,) = open_probe_datasets(run_config)
    runtime = Runtime(run_config.precision)
    encoder = load_encoder(source, runtime=runtime)
    check_probe_encoder(encoder, run_config, [data])
    base_config = ClipRunConfig(
        data=data.name,
        out=config.out,
        workers=run_config.workers,
        device_batch=run_config.device_batch,
        precision=run_config.precision,
        compile="off",  # a frozen encoder, and a head
    )
    global_pool = run_config.pool == "mean" or (run_config.pool is None and _has_fc_norm(encoder))
    recipe = _build_recipe(encoder, run_config, config, len(data.train.rows), seed)
    recipe = replace(recipe, global_pool=global_pool)
    cache, cache_note = base_config.open_cache(data.train)
    clips = TrainClips(data.train, recipe.clips, seed=seed, cache=cache)
    training = TrainingSession("probe", recipe, clips, base_config, runtime)
    if training.plan.videos_per_microbatch < 2:
        raise InputError("a probe's batch norm needs two clips at once or more; raise --device-batch")
    num_classes = len(data.classes)
    dry_run = training.dry_run(
        lambda: ProbeTask(LinearProbeModel(encoder.model.config.build(), num_classes, global_pool=global_pool))
    )
    check_decodes(ViewClips(data.test, recipe.views), f"{data.test.noun}s", run_config)
    if recipe.batch < config.batch and runtime.is_main:
        print(
            f"probe: {data.name} has {len(data.train.rows)} {data.train.noun}s: the batch size is {recipe.batch} "
            f"instead of {config.batch}, and the learning rate smaller in proportion",
            file=sys.stderr,
        )
    torch.manual_seed(seed)
    model = LinearProbeModel(_prepare_encoder(encoder, global_pool), num_classes, global_pool=global_pool)
    head = nn.ModuleDict({"norm": model.norm, "head": model.head})
    sources = {"encoder": WeightsSource(source, read_checkpoint(source))}
    metadata = {"kind": "probe", "classes": list(data.classes), "global_pool": global_pool}
    with training.lock():
        training.run(
            ProbeTask(model),
            head,
            metadata,
            sources=sources,
            flops_per_clip=dry_run.flops_per_clip,
            test_set=data.test,
            notes=[cache_note],
        )
        trained = read_checkpoint(config.out).tensors  # the batch norm's statistics differ between processes
        load_state_dict_strict(head, trained, str(config.out))
        result = score_classifier(model, data.test, data.classes, recipe.views, run_config, runtime)
        assert isinstance(result, SingleLabelResult)
        setting = f"LARS, {config.epochs} epochs of batches of {recipe.batch}{', global pooling' * global_pool}"
        report = ProbeReport(
            (ProbeResult(source, data.name, "final", "linear", setting, result.accuracy),),
            {data.name: {"test": list(result.broken_videos.values())}},
            {data.name: {split: manifest.num_missing for split, manifest in data.splits.items()}},
        )
        runtime.run_on_main(lambda: write_result_dir(config.out, {}, report.to_dict()))
    return report


def _build_recipe(
    encoder: VideoEncoder, run_config: ProbeRunConfig, config: LarsProbeConfig, num_videos: int, seed: int
) -> ProbeRecipe:
    views = run_config.build_embed_config("mean").build_views(encoder.views)[0]
    crop = RandomResizedCrop()
    if views.sampling.num_frames == 1:  # MAE tests images with a short side of 8 / 7 of the crop's
        views = replace(views, short_side=min(views.size) * 8 // 7, interpolation="bicubic")
        crop = replace(crop, interpolation="bicubic")
    return ProbeRecipe(
        encoder=hash_checkpoint(encoder.source)[:16],
        clips=ClipsConfig(
            dataset="any", sampling=views.sampling, size=views.size, crop=crop, flip_probability=config.flip
        ),
        views=views,
        optim=LARSConfig(base_lr=config.base_lr, min_lr=0.0),
        schedule=CosineConfig(epochs=config.epochs, warmup_epochs=config.warmup_epochs, warmup_rule="mae"),
        batch=min(config.batch, num_videos // encoder.runtime.world_size * encoder.runtime.world_size),
        seed=seed,
    )


def _has_fc_norm(encoder: VideoEncoder) -> bool:
    """Whether a fine-tuning or a probe trained the encoder's last norm on the mean of the tokens."""
    classifier = encoder.classifier
    return encoder.global_pool if classifier is None else classifier.config.pooling != "first"


def _prepare_encoder(encoder: VideoEncoder, global_pool: bool) -> ViT:
    """Return the encoder with a fine-tuned model's own norm, or with a new one for the mean of the tokens, as MAE's."""
    if encoder.classifier is not None and _has_fc_norm(encoder):
        encoder.model.norm = encoder.classifier.norm
    elif global_pool and not _has_fc_norm(encoder):
        encoder.model.norm = nn.LayerNorm(encoder.dim, encoder.model.config.norm_eps, device=encoder.runtime.device)
    return encoder.model


def _drop_encoder_tensors(module: nn.Module, tensors: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith(f"{prefix}model.encoder.")]:
        del tensors[name]
