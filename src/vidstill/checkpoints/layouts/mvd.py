"""MVD's pre-trainings: a student without a prefix, and a decoder for each of its teachers."""

from functools import partial

from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.layout import ForeignFormat, Layout, LayoutMatch, ModuleBuilders
from vidstill.checkpoints.layouts.rename import FIXED_TABLE_REASON, RenameRule, build_token_rule, build_vit_rules
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

_TEACHER_DECODERS = {"img": "decoders.image", "vid": "decoders.video"}


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(5) or not file.top_modules & {"down_img", "down_vid"}:
        return None
    inferred = infer_encoder(file, default_positions="sincos3d")
    encoder, decoders, modules, notes = inferred.config, {}, ModuleBuilders(), list[str]()
    for teacher, native_name in _TEACHER_DECODERS.items():
        if f"down_{teacher}" not in file.top_modules:
            continue
        dim = file.count_rows(f"down_{teacher}.weight")
        blocks, table = f"decoder_{teacher}.blocks.", f"pos_embed_{teacher}"
        decoder, decoder_notes = infer_decoder(file, blocks, dim, inferred, kind="sincos3d", table=table)
        out_dim = file.count_rows(f"decoder_{teacher}.head.weight")
        modules[f"{native_name}."] = partial(decoder.build, encoder.dim, out_dim=out_dim)
        decoders[native_name] = to_dict(decoder)
        notes += decoder_notes
    return LayoutMatch(
        "pretraining",
        "a pre-training of MVD (a student without a prefix, down_img and down_vid)",
        inferred,
        build_mvd_rules(encoder),
        notes=notes,
        metadata={"decoders": decoders, "decoder": next(iter(decoders.values()))},
        modules=modules,
    )


def build_mvd_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training of MVD: a student, and a decoder for each of its teachers."""
    return (
        *(
            rule
            for teacher, native_name in _TEACHER_DECODERS.items()
            for rule in (
                RenameRule(f"pos_embed_{teacher}", None, reason=FIXED_TABLE_REASON),
                RenameRule(f"down_{teacher}.", f"{native_name}.embed."),
                build_token_rule(f"mask_token_{teacher}", f"{native_name}.trunk.mask_token"),
                RenameRule(f"decoder_{teacher}.blocks.", f"{native_name}.trunk.blocks."),
                RenameRule(f"decoder_{teacher}.norm.", f"{native_name}.norm."),
                RenameRule(f"decoder_{teacher}.head.", f"{native_name}.head."),
            )
        ),
        *build_vit_rules(config, "", "encoder."),
    )


MVD = Layout(
    key="mvd",
    name="MVD",
    matchers=(_match_pretraining,),
    format=ForeignFormat(
        project="MVD",
        build_rules=lambda config, _: build_mvd_rules(config),
        position_kinds=("sincos3d", "learned"),
        class_token_options=(False, True),
        position_tables={
            "pos_embed": "patch_embed.proj.bias",
            "pos_embed_img": "decoder_img.norm.weight",
            "pos_embed_vid": "decoder_vid.norm.weight",
        },
        kinds_with_position_table=("pretraining",),
    ),
)
