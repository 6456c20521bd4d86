"""What the quickstart reads from its runs: the numbers of every model, and the sections of its page."""

import platform
from dataclasses import replace
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.load import build_from_state, infer_encoder_config, init_encoder
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.engine.cpu import count_cores
from vidstill.engine.distributed import Runtime
from vidstill.figures import quickstart as figures
from vidstill.figures.charts import Log, read_log, sum_step_seconds
from vidstill.figures.page import render_image
from vidstill.figures.quickstart import MODELS, ModelResult, QuickstartResult
from vidstill.figures.reconstruction import describe_pixel_source, draw_reconstruction, reconstruct_clips
from vidstill.figures.similarity import compute_layer_similarity
from vidstill.models.vit import ViT
from vidstill.pipelines.labeled_data import open_labeled_splits
from vidstill.pipelines.quickstart.layout import LABELS, QuickstartClips, QuickstartLayout
from vidstill.pipelines.run_config import Workers
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.tasks.probes.linear import evaluate_linear_probe
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import get_package_version
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.output_dir import read_result

_VIDEO_BATCH = 64  # videos whose features are extracted together
_NUM_COMPARED_CLIPS = 64  # clips for the similarity of features
_NUM_RECONSTRUCTIONS = 3  # clips whose reconstruction is drawn

LabelledClips = tuple[Float[Tensor, "n 3 t h w"], Int[Tensor, "n"]]
"""One view of each of a split's videos in memory, with values in [0, 1], and the labels."""


def build_report(
    layout: QuickstartLayout, clips: QuickstartClips, runtime: Runtime, workers: Workers, command: str
) -> tuple[QuickstartResult, str]:
    """Return the results, and the report as HTML.

    Args:
        layout: Where the runs are.
        clips: What they were trained and tested on.
        runtime: Device and precision.
        workers: Decoding processes.
        command: What the user typed, for the page.
    """
    config = clips.labelled["many"]
    splits = open_labeled_splits(config.data, test_data=config.test_data, val_data=config.val_data)
    train, test = (_load_clips(manifest, runtime, workers) for manifest in (splits.train, splits.test))
    encoders = {key: _load_encoder(layout, key, runtime) for key in (*layout.finetuned, "teacher")}
    pretraining = {key: read_log(layout.get_pretrained(key)) for key in layout.pretrained}
    models = tuple(
        _summarize_model(
            layout, key, encoder, train, test, pretraining.get(key, ()), len(splits.train.classes), runtime
        )
        for key, encoder in encoders.items()
    )
    result = QuickstartResult(
        models=models,
        method=layout.method,
        num_classes=len(splits.train.classes),
        num_labelled=clips.num_labelled,
        num_pretrain_clips=clips.num_unlabelled,
        num_test_clips=len(test[1]),
        source=str(splits.train.source),
        image_teacher_seconds=sum_step_seconds(pretraining.get("image_teacher", ())),
    )
    teacher = encoders.pop("teacher")
    similarity = {
        key: compute_layer_similarity(encoder, teacher, test[0][:_NUM_COMPARED_CLIPS].split(_VIDEO_BATCH))
        for key, encoder in encoders.items()
    }
    steps = {f"steps, {MODELS[key].name}": str(len(log)) for key, log in pretraining.items()}
    pretraining.pop("image_teacher", None)
    finetuning = {key: read_log(layout.get_finetuned(key, "few")) for key in layout.finetuned}
    page = figures.render_quickstart_page(
        result,
        reconstruction=_draw_reconstructions(layout, test[0][:_NUM_RECONSTRUCTIONS], runtime),
        similarity_charts=figures.draw_similarity_charts(similarity, layout.method, pretraining[layout.method]),
        loss_charts=figures.draw_loss_charts(pretraining, finetuning),
        facts={"command": command, **_describe_run(splits.train, runtime), **steps},
    )
    return result, page


def _load_clips(manifest: Manifest, runtime: Runtime, workers: Workers) -> LabelledClips:
    cache, _ = open_frame_cache(manifest, workers=workers.num_workers)  # the fine-tunings have filled it
    dataset = ViewClips(manifest, recipes.finetune.views, cache=cache)
    options: Any = {"broken_videos": {}, "workers": workers.num_workers, "device": runtime.device}
    batches = list(iter_view_batches(dataset, videos_per_batch=_VIDEO_BATCH, **options))
    return torch.cat([batch.clip[:, 0] for batch in batches]), torch.cat([batch.label for batch in batches])


def _load_encoder(layout: QuickstartLayout, key: str, runtime: Runtime) -> ViT:
    """Return a model's encoder before fine-tuning; for "scratch", one of the student's size with random weights."""
    if key == "scratch":
        torch.manual_seed(0)
        return recipes.finetune.encoder.build().to(runtime.device).eval()
    weights = read_checkpoint(layout.get_weights(key))
    config = infer_encoder_config(weights, recipes.finetune.encoder)
    encoder = config.build()
    init_encoder(encoder, weights, config)
    return encoder.to(runtime.device).eval()


def _summarize_model(
    layout: QuickstartLayout,
    key: str,
    encoder: ViT,
    train: LabelledClips,
    test: LabelledClips,
    pretraining: Log,
    num_classes: int,
    runtime: Runtime,
) -> ModelResult:
    """Probe a model and read the tests of its fine-tunings."""
    views = recipes.finetune.views
    classifier = replace(recipes.finetune, encoder=encoder.config).build_classifier_config(num_classes)
    cost = compute_model_cost(classifier, num_frames=views.sampling.num_frames, size=views.size)
    train_features, test_features = (_extract_features(encoder, clips, runtime) for clips, _ in (train, test))
    probe = evaluate_linear_probe(train_features, train[1].cpu(), test_features, test[1].cpu(), num_classes)
    runs = {labels: layout.get_finetuned(key, labels) for labels in LABELS if key in layout.finetuned}
    return ModelResult(
        key=key,
        probe_top1=probe.top1,
        top1={labels: read_result(run)["top1"] for labels, run in runs.items()},
        num_params=cost.num_parameters,
        flops=cost.multiply_adds,
        pretraining_seconds=sum_step_seconds(pretraining),
        finetuning_seconds=sum(sum_step_seconds(read_log(run)) for run in runs.values()),
    )


def _extract_features(encoder: ViT, clips: Float[Tensor, "n 3 t h w"], runtime: Runtime) -> Float[Tensor, "n d"]:
    with torch.no_grad(), runtime.compute(encoder):
        tokens = (encoder(batch).tokens.float() for batch in clips.split(_VIDEO_BATCH))
        return torch.cat([reduce(each, "b n d -> b d", "mean").cpu() for each in tokens])


def _draw_reconstructions(layout: QuickstartLayout, clips: Float[Tensor, "b 3 t h w"], runtime: Runtime) -> str:
    """Draw test clips as the distilled student reconstructs them, or VideoMAE's where that one has no decoder."""
    config = getattr(recipes, layout.method).method
    has_pixels = hasattr(config, "target") and config.decoder is not None
    key = layout.method if has_pixels else "videomae"
    weights = read_checkpoint(layout.get_pretrained(key))
    config = from_dict(PretrainRecipe, weights.metadata["recipe"]).method
    method = build_from_state(config.build, config.encoder, weights.tensors, weights.source)
    method = method.to(runtime.device).eval()
    seeds = torch.arange(len(clips), device=clips.device)
    grid = method.encoder.grid(clips)
    visible = method.config.mask.draw(seeds, grid).visible.shape[1] / grid.num_tokens
    note = "" if has_pixels else f"{MODELS[layout.method].short_name} has no pixel decoder, this one has. "
    return render_image(
        draw_reconstruction(reconstruct_clips(method, clips, seeds)),
        "Test clips, the tokens visible to the student, and its reconstruction",
        f"{MODELS[key].name}; {visible:.0%} of each test clip are visible. {note}"
        f"{describe_pixel_source(method.config.target)}",
    )


def _describe_run(train: Manifest, runtime: Runtime) -> dict[str, str]:
    """Return what was run, and on what machine."""
    machine = torch.cuda.get_device_name() if runtime.device.type == "cuda" else platform.machine()
    views = recipes.finetune.views
    (rows, columns), num_frames = views.size, views.sampling.num_frames
    encoders = {"teacher": recipes.teacher.method.encoder, "student": recipes.finetune.encoder}
    sizes = {
        name: f"{each.depth} blocks of width {each.dim}, {each.heads} heads, "
        f"tubelets of {' × '.join(map(str, each.tubelet))}"
        for name, each in encoders.items()
    }
    return {
        "clips": f"{train.source}; a model’s clip has {num_frames} frames of {rows} × {columns} pixels",
        "classes": ", ".join(train.classes[:20]),
        **sizes,
        "machine": f"{machine}, {count_cores()} cores, {runtime.precision}",
        "versions": ", ".join(f"{name} {get_package_version(name)}" for name in ("vidstill", "torch", "av")),
    }
