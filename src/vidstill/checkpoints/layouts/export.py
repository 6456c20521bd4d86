"""Write our checkpoints as files of a foreign layout, where its code has the same model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidstill.checkpoints.io import Checkpoint, write_safetensors
from vidstill.checkpoints.layouts.infer_positions import FIXED_POSITION_KINDS
from vidstill.checkpoints.layouts.layout import ForeignFormat
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.rename import rename_to_foreign
from vidstill.models.layers import NORM_EPS
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import atomic_write
from vidstill.utils.types import Grid, InputError

_MODULE_PREFIX = "Align_"  # MaskAgain's trainer saves its projections beside the model, module by module


def export_state_dict(checkpoint: Checkpoint, layout: str) -> dict[str, Tensor]:
    """Rename and reshape a checkpoint's tensors as a layout has them; their types stay.

    What the foreign files hold and ours do not is added: fixed position tables (MAE, DMAE, mmaction2, MVD's
    pre-trainings) and the norms behind AMD's generators, which nothing uses. ST-MAE's two layouts get a layer each for
    queries, keys and values, as in the published files, unless the checkpoint was imported from fused ones.

    Args:
        checkpoint: Ours, or an imported one.
        layout: A key of LAYOUTS whose layout has a format.

    Raises:
        InputError: The layout's code has no such model.
    """
    form, metadata = _get_format(layout), checkpoint.metadata
    if (kind := metadata.get("kind")) not in form.checkpoint_kinds:
        description = f"is a {kind}" if kind else "does not say what it is"
        raise InputError(
            f"{checkpoint.source} {description}; files of {form.project} are of kind {', '.join(form.checkpoint_kinds)}"
        )
    if "encoder" not in metadata:
        raise InputError(f"{checkpoint.source} holds a {kind} without encoder, which files of {form.project} have")
    config = from_dict(ViTConfig, metadata["encoder"])
    error_prefix = f"{checkpoint.source} cannot be written for {form.project}"
    if difference := next(form.find_differences(config, metadata), None):
        raise InputError(f"{error_prefix}: {difference}")
    build_rules = form.build_classifier_rules if kind == "classifier" else form.build_rules
    foreign = rename_to_foreign(checkpoint.tensors, build_rules(config, checkpoint), error_prefix)
    foreign |= form.build_extra_tensors(foreign)
    if kind in form.kinds_with_position_table:
        foreign |= _build_fixed_position_tables(checkpoint, config, form, foreign)
    return foreign


def describe_omissions(checkpoint: Checkpoint, layout: str) -> list[str]:
    """Return what a file of this layout does not say, in sentences."""
    form, metadata = _get_format(layout), checkpoint.metadata
    config = from_dict(ViTConfig, metadata["encoder"])
    sentences = []
    if config.dim != 64 * config.heads:
        sentences.append(f"it does not say that there are {config.heads} heads; tell {form.project}'s code")
    if config.norm_eps != NORM_EPS:
        sentences.append(f"its norm eps is {config.norm_eps:g}, and {form.project}'s code uses {NORM_EPS:g}")
    if classes := metadata.get("classes"):
        sentences.append(f"the names of its {len(classes)} classes are left out")
    if licence := metadata.get("licence"):
        sentences.append(f"its licence, {licence}, is left out, and still applies")
    return sentences


def write_foreign_checkpoint(path: Path, tensors: Mapping[str, Tensor], layout: str) -> None:
    """Write foreign tensors as `.safetensors`, or as `.pth` wrapped as the project's trainer does it.

    Args:
        path: The file; it is complete or absent afterwards.
        tensors: What `export_state_dict` returned.
        layout: A key of LAYOUTS.

    Raises:
        InputError: It cannot be written, or has another suffix.
    """
    check_foreign_suffix(path)
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors)
        return
    state_dict: dict[str, Tensor] = {}
    content: dict[str, Any] = {_get_format(layout).state_dict_key: state_dict}
    for name, tensor in tensors.items():
        module, _, suffix = name.partition(".")
        if module.startswith(_MODULE_PREFIX):
            content.setdefault(module, {})[suffix] = tensor.contiguous()
        else:
            state_dict[name] = tensor.contiguous()
    with atomic_write(path) as file:
        torch.save(content, file)


def check_foreign_suffix(path: Path) -> None:
    """Raises an InputError where a file's suffix does not say how to write it."""
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise InputError(f"{path} ends with neither .pth nor .safetensors; name it so")


def _get_format(layout: str) -> ForeignFormat:
    form = LAYOUTS[layout].format
    if form is None:
        raise InputError(f"files of {LAYOUTS[layout].name} are not written")
    return form


def _build_fixed_position_tables(
    checkpoint: Checkpoint, config: ViTConfig, form: ForeignFormat, foreign_tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the fixed tables that foreign files store and ours do not; MAE's start with zeros for the class token."""
    fixed = form.position_kinds[0]
    widths = {
        name: len(foreign_tensors[like])
        for name, like in form.position_tables.items()
        if like in foreign_tensors and name not in foreign_tensors
    }
    if not widths or fixed not in FIXED_POSITION_KINDS:
        return {}
    grid, dtype = _find_trained_grid(checkpoint, config), checkpoint.tensors["encoder.patch_embed.weight"].dtype
    tables = {}
    for name, width in widths.items():
        table = build_position_table(fixed, grid, width, torch.device("cpu")).to(dtype)
        tables[name] = F.pad(table, (0, 0, int(form.is_image), 0))[None]
    return tables


def _find_trained_grid(checkpoint: Checkpoint, config: ViTConfig) -> Grid:
    """Return the grid that a checkpoint's positions are for: its learned table's, the stated one, or its recipe's.

    Raises:
        InputError: It says none.
    """
    metadata = checkpoint.metadata
    if grid := config.learned_grid or metadata.get("grid"):
        return Grid(*grid)
    if clips := metadata.get("recipe", {}).get("clips"):
        return config.grid(torch.empty(1, 3, clips["sampling"]["num_frames"], *clips["size"], device="meta"))
    raise InputError(
        f"{checkpoint.source} does not say which clips its positions were computed for, and the authors' files hold "
        "their table; convert a run of vidstill, or the authors' own file"
    )
