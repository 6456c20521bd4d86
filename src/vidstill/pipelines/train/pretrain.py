"""Pre-training: a method learns by a recipe, from its teachers if it has any. A run is a directory that resumes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vidstill.checkpoints.inflate import needs_inflation
from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_checkpoint
from vidstill.data.datasets.train_clips import TrainClips
from vidstill.data.manifest.open import open_manifest
from vidstill.engine.distributed import Runtime
from vidstill.methods.common.masking import Mask
from vidstill.methods.common.teacher import TeacherConfig, list_teacher_configs, list_teachers, replace_teacher_configs
from vidstill.models.decoder import Decoder
from vidstill.models.external.base import ExternalEncoder
from vidstill.models.external.registry import is_external_encoder, load_external_encoder, parse_weights_file
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.run_config import RunConfig
from vidstill.pipelines.run_dir import WeightsSource
from vidstill.pipelines.session import TrainingSession
from vidstill.recipes.change import check_changes
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError


def run_pretraining(
    recipe: PretrainRecipe,
    run_config: RunConfig,
    *,
    init: str | None = None,
    runtime: Runtime | None = None,
    changes: Mapping[str, Any] = {},
) -> Path:
    """Pre-train to the recipe's end, from the last checkpoint if there is one.

    Args:
        recipe: The settings; a teacher's sizes are taken from its checkpoint.
        run_config: Data and run directory.
        init: Run directory or weights file that the encoder starts from (MVD, table 12), a teacher's for example: of
            the recipe's sizes, or of images; fixed position embeddings are the recipe's. None: random weights.
        runtime: Device and processes; None: made from `run_config`.
        changes: The settings that the user gave, of those in `recipe`: values by field, parts as dicts.

    Returns:
        The run directory.

    Raises:
        InputError: Something that the user gave cannot be used; nothing has been written.
    """
    manifest = open_manifest(run_config.data, split="train", fold=run_config.fold)
    runtime = runtime or Runtime(run_config.precision)
    teachers = {name: _load_teacher(name, teacher) for name, teacher in list_teacher_configs(recipe.method).items()}
    start = load_checkpoint(init, recipe.method.encoder) if init else None
    configs = {name: config for name, (config, _, _) in teachers.items()}
    for name, teacher in list_teacher_configs(recipe.method).items():
        model = f"method.{name}.model"
        check_changes(changes, model, teacher.model, configs[name].model, str(teacher.checkpoint))
    recipe = replace(recipe, method=replace_teacher_configs(recipe.method, configs))
    if start is not None:
        _check_init_encoder(start, recipe.method.encoder)
    cache, cache_note = run_config.open_cache(manifest)
    clips = TrainClips(manifest, recipe.clips, seed=recipe.seed, cache=cache)
    group_clips = getattr(recipe.method, "group_clips", 1)
    session = TrainingSession(
        "pretrain", recipe, clips, run_config, runtime, group_clips, "--method.output.relation-clips", changes
    )
    recipe = session.recipe
    mask = _draw_mask(recipe)
    dry_run = session.dry_run(recipe.method.build)
    _check_decoder(mask, dry_run.task)
    torch.manual_seed(recipe.seed)
    method = recipe.method.build()
    for name, module in list_teachers(method).items():
        config, checkpoint, external = teachers[name]
        if external is not None:
            module.set_model(external)
        else:
            init_encoder(module.model, checkpoint, cast(ViTConfig, config.model))
    if start is not None:
        init_encoder(method.encoder, start, recipe.method.encoder)
    metadata = {"kind": "pretraining", "encoder": to_dict(recipe.method.encoder), "recipe": to_dict(recipe)}
    sources = {"init": WeightsSource(init, start)} if init and start else {}
    for name, (config, checkpoint, external) in teachers.items():
        sources[_name_role(name)] = WeightsSource(config.checkpoint, checkpoint, external)
    flops = dry_run.flops_per_clip
    session.run(method, method, metadata, sources=sources, flops_per_clip=flops, notes=[cache_note])
    return run_config.out


def _name_role(name: str) -> str:
    """Return what a checkpoint's provenance calls a teacher: teacher, image_teacher, extra_1_teacher."""
    return name if name == "teacher" else f"{name}_teacher"


def _load_teacher(name: str, teacher: TeacherConfig) -> tuple[TeacherConfig, Checkpoint, ExternalEncoder | None]:
    """Return a teacher's config as its source states it, its checkpoint, and the model of an external library."""
    option, source = f"--method.{name}", teacher.checkpoint
    if not source:
        raise InputError(
            f"the {_name_role(name).replace('_', ' ')} has no checkpoint; give {option}.checkpoint a run directory or "
            "a weights file"
        )
    if is_external_encoder(source):
        file = parse_weights_file(source)
        weights = read_checkpoint(file) if file else Checkpoint({}, source=source)
        tensors = weights.tensors if file else None
        model = load_external_encoder(source, tensors, input_resolution=teacher.input_resolution)
        return replace(teacher, model=model.config), replace(weights, tensors={}, metadata=model.metadata), model
    if teacher.input_resolution == "native":
        raise InputError(
            f"{source} has no input size of its own; {option}.input-resolution native is for transformers: and timm: "
            "only"
        )
    hint = None if name.startswith("extra") or not isinstance(teacher.model, ViTConfig) else teacher.model
    weights = load_checkpoint(source, hint)
    return replace(teacher, model=infer_encoder_config(weights, hint)), weights, None


def _check_init_encoder(checkpoint: Checkpoint, expected: ViTConfig) -> None:
    """Raise an InputError unless the file's encoder is the recipe's; other heads have weights of the same shapes."""
    encoder = infer_encoder_config(checkpoint, expected)
    names = ["dim", "depth", "heads", "mlp_ratio"]
    if not needs_inflation(encoder, expected):
        names = ["tubelet", *names, "class_token", "attention_bias"]
    for name in names:
        if getattr(encoder, name) != getattr(expected, name):
            raise InputError(
                f"{checkpoint.source} holds an encoder whose {name} is {getattr(encoder, name)}, and the recipe's is "
                f"{getattr(expected, name)}; set --method.encoder.{name.replace('_', '-')}, or start from another file"
            )


def _draw_mask(recipe: PretrainRecipe) -> Mask:
    """Draw the mask of one clip; raise an InputError if a mask of the user's own draws something else."""
    clip = torch.empty(1, 3, recipe.clips.sampling.num_frames, *recipe.clips.size, device="meta")
    grid = Grid.from_clip(clip, recipe.method.encoder.tubelet)
    mask, name = recipe.method.mask.draw(torch.zeros(1, dtype=torch.long), grid), type(recipe.method.mask).__name__
    if not isinstance(mask, Mask):
        raise InputError(f"{name}.draw returns a {type(mask).__name__}; it must return a Mask, as build_mask makes it")
    tokens = torch.cat([mask.visible, mask.masked], dim=1)
    if not set(tokens.flatten().tolist()) <= set(range(grid.num_tokens)) or len(tokens.unique()) < tokens.numel():
        raise InputError(
            f"{name} draws tokens that are visible and masked, or that are none of a clip's {grid.num_tokens}; return "
            "build_mask of an order of all of them"
        )
    return mask


def _check_decoder(mask: Mask, task: nn.Module) -> None:
    """Raise an InputError if the mask leaves a decoder no token to reconstruct.

    AMD may do without pixels (table 7): it then predicts its teacher's features only.
    """
    has_decoder = any(isinstance(part, Decoder) for part in task.modules())
    if has_decoder and mask.teacher_only is None and not mask.masked.numel():
        raise InputError(
            f"the mask hides none of the {mask.visible.shape[1]} tokens of a clip, so there is nothing to reconstruct; "
            "raise the mask ratio, or use smaller tubelets"
        )
