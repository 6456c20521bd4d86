"""The papers' linear probe: a head trained by LARS on augmented clips, which the frozen encoder sees anew."""

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
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AnyOptimConfig, LARSConfig
from vidstill.pipelines.evaluate.classifier import check_views, score_classifier
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.probe.config import ProbeRunConfig, check_probe_encoder, open_probe_datasets
from vidstill.pipelines.probe.report import ProbeReport, ProbeResult
from vidstill.pipelines.probe.vector_cache import hash_checkpoint
from vidstill.pipelines.session import TrainingSession
from vidstill.pipelines.workers import BaseRunConfig
from vidstill.tasks.metrics.accuracy import compute_accuracy
from vidstill.tasks.probes.linear import LinearProbeModel
from vidstill.utils.files import TEST_FILE, write_json
from vidstill.utils.types import InputError, Output, check_range


@dataclass(frozen=True, kw_only=True)
class LarsProbeConfig:
    """MAE's settings (arXiv:2111.06377, appendix A.1)."""

    out: Path = Path("runs/probe")  # of --by lars: the folder of its run; the same command again resumes it
    epochs: int = 90  # of --by lars: how often each video is met
    warmup_epochs: int = 10  # of --by lars: those of them in which the rate rises
    base_lr: float = 0.1  # of --by lars: the highest rate, for a batch of 256
    batch: int = 16384  # of --by lars: clips in a step, over all devices; all videos, where there are fewer
    flip: float = 0.5  # of --by lars: share of the clips that are mirrored; 0 where left and right make a difference

    def __post_init__(self) -> None:
        check_range(1, math.inf, epochs=self.epochs, batch=self.batch)


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """What decides a probe's run, as its folder states it."""

    encoder: str  # of its file's hash, the start
    clips: ClipsConfig
    views: ViewsConfig
    optim: AnyOptimConfig
    schedule: CosineConfig
    batch: int
    seed: int


class ProbeTask(nn.Module):
    """Trains a probe's head by cross-entropy; the frozen encoder is in no saved state."""

    def __init__(self, model: LinearProbeModel):
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_drop_encoder_tensors)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], label: Int[Tensor, "b"], seed: Int[Tensor, "b"]) -> Output:
        return Output(F.cross_entropy(self.model(clip).float(), label))


def train_lars_probe(source: str, run_config: ProbeRunConfig, config: LarsProbeConfig, *, seed: int) -> ProbeReport:
    """Trains a probe to its end in its folder, from the newest saved state where there is one, and tests it.

    Raises:
        InputError: something that is given cannot be used; nothing was written then.
    """
    if len(run_config.data) != 1:
        raise InputError(f"--by lars trains a run on one data set, and --data names {len(run_config.data)}; name one")
    if run_config.layers or run_config.pool != "mean":
        raise InputError("--by lars probes the final class token, or the mean; leave out --layers and --pool")
    (data,) = open_probe_datasets(run_config)
    runtime = Runtime(run_config.precision)
    encoder = load_encoder(source, runtime=runtime)
    check_probe_encoder(encoder, run_config, [data])
    launch = BaseRunConfig(
        data=data.name,
        out=config.out,
        workers=run_config.workers,
        device_batch=run_config.device_batch,
        precision=run_config.precision,
    )
    recipe = _build_recipe(encoder, run_config, config, len(data.train.rows), seed)
    training = TrainingSession("probe", recipe, TrainClips(data.train, recipe.clips, seed=recipe.seed), launch, runtime)
    if training.plan.videos_per_microbatch < 2:
        raise InputError("a probe's batch norm needs two clips at once or more; raise --device-batch")
    training.dry_run(lambda: ProbeTask(LinearProbeModel(encoder.model.config.build(), len(data.classes))))
    check_views(data.test, recipe.views, min(1, launch.num_workers))
    if recipe.batch < config.batch and runtime.is_main:
        print(
            f"probe: a batch of {config.batch} clips is asked for and there are {len(data.train.rows)} videos: a step "
            f"takes {recipe.batch}, at a rate that is smaller by as much",
            file=sys.stderr,
        )
    torch.manual_seed(seed)
    model = LinearProbeModel(encoder.model, len(data.classes))
    head = nn.ModuleDict({"norm": model.norm, "head": model.head})
    sources = {"encoder": read_checkpoint(source)}
    about = {
        "kind": "probe",
        "classes": list(data.classes),
    }
    training.run(
        ProbeTask(model),
        head,
        about,
        sources=sources,
        test_set=data.test,
        init=source,
    )
    load_state_dict_strict(
        head, read_checkpoint(config.out).tensors, str(config.out)
    )  # the batch norm's counts are each process's own
    tested = score_classifier(model, data.test, data.classes, recipe.views, launch, runtime)
    labels = torch.from_numpy(data.test.rows.labels[list(tested.indices)]).long()
    setting = f"LARS, {config.epochs} epochs of batches of {recipe.batch}"
    found = ProbeResult(source, data.name, "final", "linear", setting, compute_accuracy(tested.scores, labels))
    report = ProbeReport(
        (found,),
        {data.name: {"val": [tested.broken_videos[place] for place in sorted(tested.broken_videos)]}},
        {data.name: {"train": data.train.num_missing, "val": data.test.num_missing}},
    )
    if runtime.is_main:
        write_json(config.out / TEST_FILE, report.to_dict())
    runtime.barrier()
    return report


def _build_recipe(
    encoder: VideoEncoder, run_config: ProbeRunConfig, config: LarsProbeConfig, num_videos: int, seed: int
) -> ProbeRecipe:
    views = run_config.build_views(encoder)
    crop = RandomResizedCrop()
    if views.sampling.num_frames == 1:  # MAE's test of images: the short side is 8 / 7 of the crop's
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


def _drop_encoder_tensors(module: nn.Module, tensors: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith(f"{prefix}model.encoder.")]:
        del tensors[name]
