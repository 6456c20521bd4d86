"""MVD's pre-trainings: a student without a prefix, and a decoder for each of its teachers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import COMPUTED, Shapes, decoder_shapes, of_64, pretraining, rows, words
from vidstill.checkpoints.layouts.infer_config import KERNEL, codes_of, decoder_of, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, _token, vit_names
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_plain

_TEACHERS = {"img": "image_decoder.", "vid": "video_decoder."}


class Pretraining:
    key = "mvd"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        found_words = words(tensors)
        if KERNEL not in tensors or not found_words & {"down_img", "down_vid"}:
            return None
        found = encoder_of(tensors, hint, computed="sincos3d")
        wanted: Shapes = {}
        decoders, notes = {}, list(found.notes)
        for teacher, ours in _TEACHERS.items():
            if f"down_{teacher}" not in found_words:
                continue
            dim = rows(tensors, f"down_{teacher}.weight")
            codes = codes_of(
                tensors,
                f"pos_embed_{teacher}",
                dim,
                found.config.tubelet[0],
                asked="sincos3d",
                grid=found.grid,
                class_token=found.config.class_token,
                computed="sincos3d",
            )
            decoder = decoder_of(
                tensors,
                f"decoder_{teacher}.blocks.",
                dim,
                heads=of_64(dim),
                codes=replace(codes, grid=None),
                class_token="encoder" if found.config.class_token else "none",
                project_bias=True,
            )
            wanted |= decoder_shapes(decoder, found.config.dim, rows(tensors, f"decoder_{teacher}.head.weight"), ours)
            decoders[ours.removesuffix(".")] = to_plain(decoder)
            notes += codes.notes
        return Reading(
            "a pre-training of MVD (a student without a prefix, down_img and down_vid)",
            pretraining(self.key, found, decoders=decoders, decoder=next(iter(decoders.values()))),
            mvd_names(found.config),
            ignored={f"pos_embed_{teacher}": COMPUTED for teacher in _TEACHERS},
            notes=tuple(notes),
            wanted=wanted,
        )


def mvd_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of MVD: a student, and a decoder for each of its teachers."""
    return (
        *(
            name
            for theirs, ours in (("img", "image_decoder."), ("vid", "video_decoder."))
            for name in (
                Name(f"pos_embed_{theirs}", None),  # computed: MVD's 3-D code
                Name(f"down_{theirs}.", f"{ours}project."),
                _token(f"mask_token_{theirs}", f"{ours}infill.mask_token"),
                Name(f"decoder_{theirs}.blocks.", f"{ours}infill.blocks."),
                Name(f"decoder_{theirs}.norm.", f"{ours}norm."),
                Name(f"decoder_{theirs}.head.", f"{ours}head."),
            )
        ),
        *vit_names(config, "", "encoder."),
    )
