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

from vidstill.checkpoints.io import read_weights
from vidstill.checkpoints.licences import notes, provenance
from vidstill.checkpoints.load import load_exactly
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.engine.distributed import Runtime
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import LARSConfig, Optim
from vidstill.pipelines.evaluate.classifier import check_views, score
from vidstill.pipelines.infer.encoder import Encoder, load
from vidstill.pipelines.probe.config import Ask, check_asked, labelled_sets
from vidstill.pipelines.probe.report import Probed, Report
from vidstill.pipelines.probe.vector_cache import weights_hash
from vidstill.pipelines.train.session import Training, train_clips
from vidstill.tasks.metrics.accuracy import measured
from vidstill.tasks.probes.linear import ProbeModel
from vidstill.utils.files import TEST_FILE, write_json
from vidstill.utils.types import InputError, Output, within


@dataclass(frozen=True, kw_only=True)
class LarsProbe:
    """MAE's settings (arXiv:2111.06377, appendix A.1)."""

    out: Path = Path("runs/probe")  # of --by lars: the folder of its run; the same command again resumes it
    epochs: int = 90  # of --by lars: how often each video is met
    warmup_epochs: int = 10  # of --by lars: those of them in which the rate rises
    base_lr: float = 0.1  # of --by lars: the highest rate, for a batch of 256
    batch: int = 16384  # of --by lars: clips in a step, over all devices; all videos, where there are fewer
    flip: float = 0.5  # of --by lars: share of the clips that are mirrored; 0 where left and right make a difference

    def __post_init__(self) -> None:
        within(1, math.inf, epochs=self.epochs, batch=self.batch)


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """What decides a probe's run, as its folder states it."""

    encoder: str  # of its file's hash, the start
    clips: ClipsConfig
    views: ViewsConfig
    optim: Optim
    schedule: CosineConfig
    batch: int
    seed: int


class ProbeTask(nn.Module):
    """Trains a probe's head by cross-entropy; the frozen encoder is in no saved state."""

    def __init__(self, model: ProbeModel):
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_without_encoder)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], label: Int[Tensor, "b"], seed: Int[Tensor, "b"]) -> Output:
        return Output(F.cross_entropy(self.model(clip).float(), label))


def train(source: str, ask: Ask, lars: LarsProbe, *, seed: int) -> Report:
    """Trains a probe to its end in its folder, from the newest saved state where there is one, and tests it.

    Raises:
        InputError: something that is given cannot be used; nothing was written then.
    """
    if len(ask.data) != 1:
        raise InputError(f"--by lars trains a run on one data set, and --data names {len(ask.data)}; name one")
    if ask.layers or ask.pool != "mean":
        raise InputError("--by lars probes the final class token, or the mean; leave out --layers and --pool")
    (data,) = labelled_sets(ask)
    runtime = Runtime(ask.precision)
    encoder = load(source, runtime=runtime)
    check_asked(encoder, ask, [data])
    launch = replace(ask.launch, data=data.name, out=lars.out)
    recipe = _recipe(encoder, ask, lars, len(data.train.rows), seed)
    training = Training("probe", recipe, train_clips(recipe, data.train, launch), launch, runtime)
    if training.plan.videos_per_chunk < 2:
        raise InputError("a probe's batch norm needs two clips at once or more; raise --device-batch")
    training.rehearse(lambda: ProbeTask(ProbeModel(encoder.model.config.build(), len(data.classes))))
    check_views(data.val, recipe.views, min(1, launch.decoders))
    if recipe.batch < lars.batch and runtime.is_main:
        print(
            f"probe: a batch of {lars.batch} clips is asked for and there are {len(data.train.rows)} videos: a step "
            f"takes {recipe.batch}, at a rate that is smaller by as much",
            file=sys.stderr,
        )
    torch.manual_seed(seed)
    model = ProbeModel(encoder.model, len(data.classes))
    head = nn.ModuleDict({"norm": model.norm, "head": model.head})
    sources = {"encoder": read_weights(source)}
    about = {
        "kind": "probe",
        "classes": list(data.classes),
        **provenance(sources),
    }
    training.run(ProbeTask(model), head, about, val=data.val, init=source, notes=notes(sources))
    load_exactly(head, read_weights(lars.out).tensors, str(lars.out))  # the batch norm's counts are each process's own
    tested = score(model, data.val, data.classes, recipe.views, launch, runtime)
    labels = torch.from_numpy(data.val.rows.labels[list(tested.places)]).long()
    setting = f"LARS, {lars.epochs} epochs of batches of {recipe.batch}"
    found = Probed(source, data.name, "final", "linear", setting, measured(tested.scores, labels))
    report = Report(
        (found,),
        {data.name: {"val": [tested.broken[place] for place in sorted(tested.broken)]}},
        {data.name: {"train": data.train.missing, "val": data.val.missing}},
    )
    if runtime.is_main:
        write_json(lars.out / TEST_FILE, report.plain())
    runtime.wait()
    return report


def _recipe(encoder: Encoder, ask: Ask, lars: LarsProbe, videos: int, seed: int) -> ProbeRecipe:
    views = ask.views_of(encoder)
    crop = RandomResizedCrop()
    if views.sampling.frames == 1:  # MAE's test of images: the short side is 8 / 7 of the crop's
        views = replace(views, short_side=min(views.size) * 8 // 7, interpolation="bicubic")
        crop = replace(crop, interpolation="bicubic")
    return ProbeRecipe(
        encoder=weights_hash(encoder.source)[:16],
        clips=ClipsConfig(dataset="any", sampling=views.sampling, size=views.size, crop=crop, flip=lars.flip),
        views=views,
        optim=LARSConfig(base_lr=lars.base_lr, min_lr=0.0),
        schedule=CosineConfig(epochs=lars.epochs, warmup_epochs=lars.warmup_epochs, rule="mae"),
        batch=min(lars.batch, videos // encoder.runtime.world * encoder.runtime.world),
        seed=seed,
    )


def _without_encoder(module: nn.Module, tensors: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith(f"{prefix}model.encoder.")]:
        del tensors[name]
