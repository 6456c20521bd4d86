"""MaskAgain gives the numbers that its authors' code gave: each loss from given features, and whole distillations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from einops import rearrange
from foreign_layout import to_foreign
from reference_cases import Case, cases
from reference_models import colours, encoder_config, list_tokens
from torch import Tensor

from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.rename import build_vit_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.common.masking import Mask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import HiddenConfig, MaskAgain, MaskAgainConfig, MaskAgainQuirks, OutputConfig
from vidstill.methods.maskagain_losses import (
    attend_selected_keys,
    select_salient_tokens,
    select_top_k,
    selected_value_loss,
    split_by_slot,
    zero_other_tokens,
)
from vidstill.models.attention import AttentionMap
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import ViTConfig

pytestmark = pytest.mark.reference

MODULES = {  # what the cases call the authors' modules
    "feature": "Align_feature",
    "global_student": "Align_valuesum",
    "global_teacher": "Align_valuesum_t",
    "local_student": "Align_valuesum1",
    "local_teacher": "Align_valuesum1_t",
}


def terms(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields that a case's settings, or those of one of its variants, stand for."""
    weights, kind = settings["weights"], settings["terms"]
    both = kind == "global + local"  # of a single one the released code uses the overall weight alone
    with_output = not settings["attention_terms_only"]
    return {
        "hidden": HiddenConfig(
            global_weight=weights["global"] if both else float(kind == "global only"),
            local_weight=weights["local"] if both else float(kind == "local only"),
            global_top_k=settings["top_k_attention"],
            local_top_k=settings["top_k_attention"],
            temperature=settings["attention_temperature"],
        ),
        "output": OutputConfig(
            hint_weight=weights["hint"] * with_output,
            relation_weight=weights["relation"] * with_output,
            salient_tokens=settings["top_f_tokens"],
            student_temperature=settings["relation_temperature_student"],
            teacher_temperature=settings["relation_temperature_teacher"],
        ),
        "released": MaskAgainQuirks(hidden_weight=weights["attention"]),
    }


def hold_losses(case: Case, config: MaskAgainConfig, every: dict[str, Tensor], loss: Tensor, prefix: str) -> None:
    """The weighted sum and its terms agree, as far as the case states them; so do terms of factor 0."""
    case.hold_loss(loss, f"{prefix}total")
    for name, value in every.items():
        case.hold_loss(value, prefix + name)
    weighted = config.hidden.global_weight * every["global"] + config.hidden.local_weight * every["local"]
    case.hold_loss(weighted, f"{prefix}attention_weighted_sum")


def official(name: str) -> str:
    """`align/feature.fc1.bias` of a case is `Align_feature.fc1.bias` in the authors' words."""
    module, _, rest = name.removeprefix("align/").partition(".")
    return f"{MODULES[module]}.{rest}" if name.startswith("align/") else name


def hold_gradients(case: Case, method: MaskAgain, prefix: str, inputs: Mapping[str, Tensor | None] = {}) -> None:
    """Every stored gradient equals ours; it is zero where we build no projection, for a term of factor 0."""
    built = {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}
    ours = to_foreign(built, build_maskagain_rules(method.config.encoder))
    results = {f"input/{name}": gradient for name, gradient in inputs.items()}
    for name, stored in case.under(prefix).items():
        if official(name) in ours:
            results[name] = ours[official(name)]
        elif name.startswith("align/"):
            results[name] = torch.zeros_like(stored)
    case.hold_under(prefix, results, "gradients", whole=True)


def built(case: Case, config: MaskAgainConfig, aligned: bool) -> tuple[MaskAgain, MaskAgain]:
    """A method with the case's projections, as far as its terms ask for them; and one that computes every term."""
    config = replace(config, projections="always" if aligned else "where_needed")  # so, of equal widths, too
    assert config.has_projections == aligned
    expected = {official(f"align/{name}"): tensor for name, tensor in case.under("align").items()}
    result = case.translate(expected, build_maskagain_rules(config.encoder))
    every = replace(
        config,
        hidden=replace(config.hidden, global_weight=1.0, local_weight=1.0),
        output=replace(config.output, hint_weight=1.0, relation_weight=1.0),
        released=MaskAgainQuirks(),
    )
    method, whole = config.build(), every.build()
    for each in (method, whole):
        visible = {name: tensor for name, tensor in result.items() if name in each.state_dict()}
        load_state_dict_strict(
            each.projections, {n.removeprefix("projections."): t for n, t in visible.items()}, case.name
        )
    assert not aligned or whole.projections.state_dict().keys() == {n.removeprefix("projections.") for n in result}
    return method, whole


@pytest.mark.parametrize("case", cases(method="maskagain", kind="loss_components"))
def test_each_loss_agrees_with_maskagains_authors(case: Case) -> None:
    settings = case.json["config"]

    def model(side: str) -> ViTConfig:
        return ViTConfig(dim=settings[f"width_{side}"], depth=1, heads=settings[f"heads_{side}"], tubelet=(2, 4, 4))

    config = MaskAgainConfig(encoder=model("student"), teacher=TeacherConfig(model=model("teacher")), **terms(settings))
    method, whole = built(case, config, settings["align_modules"])

    arguments = {name: tensor.clone().requires_grad_("student" in name) for name, tensor in case.under("input").items()}
    student, teacher = (
        AttentionMap(arguments[f"{side}_attention_logits"], arguments[f"{side}_values"])
        for side in ("student", "teacher")
    )
    features, target = arguments["student_features"], arguments["teacher_features"]
    slots = settings["temporal_slots"]
    parts = method.compute_hidden_losses(student, teacher, slots=slots) | method.compute_output_losses(features, target)
    loss = torch.stack([config.loss_weights[name] * part for name, part in parts.items()]).sum()
    loss.backward()
    every = whole.compute_hidden_losses(student, teacher, slots=slots) | whole.compute_output_losses(features, target)
    hold_losses(case, config, every, loss, "")
    hold_gradients(case, method, "grad", {name: tensor.grad for name, tensor in arguments.items()})
    hold_intermediate(case, whole, {"student": student, "teacher": teacher}, features, target, slots)

    aligned = selected_value_loss(
        student,
        teacher,
        slots=slots,
        top_k=config.hidden.local_top_k,
        temperature=config.hidden.temperature,
        quirks=MaskAgainQuirks(value_order="aligned"),
        projections=whole.get_projections("local"),
    )
    case.hold_number(aligned.item(), "informational", "local_with_frame_paired_values", kind="losses")


def hold_intermediate(
    case: Case, method: MaskAgain, sides: dict[str, AttentionMap], features: Tensor, target: Tensor, slots: int
) -> None:
    """What is compared: mapped sums of the kept values, and tokens of which all but the telling ones are zeroed."""
    config = method.config
    for term, count in (("global", 1), ("local", slots)):
        for (side, attention), mapped in zip(sides.items(), method.get_projections(term), strict=True):
            logits = split_by_slot(attention.logits / config.hidden.temperature, count)
            selected = mapped(
                attend_selected_keys(logits, select_top_k(logits, config.hidden.global_top_k), attention.values)
            )
            by_head = rearrange(selected, "b q t (heads d) -> b heads q t d", heads=config.teacher.model.heads).detach()
            case.hold(by_head.squeeze(3) if count == 1 else by_head, f"out/{term}_{side}")
    salient = select_salient_tokens(target, config.output.salient_tokens)
    mapped = method.projections["hint"] if config.has_projections else torch.nn.Identity()
    case.hold(mapped(zero_other_tokens(features, salient)).detach(), "out/hint_student")
    case.hold(zero_other_tokens(target, salient), "out/hint_teacher")


VARIANTS = [
    pytest.param(*each.values, variant, id=f"{each.id}-{variant}", marks=each.marks)
    for each in cases(method="maskagain", kind="distill")
    for variant in (each.values[0].json["config"]["variants"] if each.values[0] else ["none"])
]


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_a_distillation_agrees_with_maskagains_authors(case: Case, variant: str) -> None:
    others = [name for name in case.json["config"]["variants"] if name != variant]
    case.leave_to_others(*(f"{kind}/{name}/" for name in others for kind in ("loss", "losses", "grad")))
    method, whole = distillation(case, variant)
    config = method.config
    student, teacher = config.encoder, config.teacher.model
    clip, hidden = colours(case.tensors["input/video"]), case.tensors["input/mask"]
    mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))
    grid = method.encoder.grid(clip)
    for side, model in (("student", student), ("teacher", teacher)):
        table = build_position_table("sinusoid", grid, model.dim, clip.device)
        case.hold_table(table[None], f"const/{side}_pos_embed")

    outputs = {
        "student": (method.encoder(clip, mask.visible, layers=(student.depth,), attention=(student.depth,)), student),
        "teacher": (method.teacher(clip, mask.visible, layers=(teacher.depth,), attention=(teacher.depth,)), teacher),
    }
    for side, (encoded, model) in outputs.items():
        case.hold(encoded.layers[model.depth].detach(), f"out/{side}_features")
        case.hold(encoded.attention[model.depth].logits.detach(), f"out/{side}_attention_logits_last")
        case.hold(encoded.attention[model.depth].values.detach(), f"out/{side}_values_last")
    if variant != next(iter(case.json["config"]["variants"])):  # at whose temperature and k it was taken
        case.leave_to_others("out/global_student")
    else:
        result = outputs["student"][0].attention[student.depth]
        logits = split_by_slot(result.logits / config.hidden.temperature, 1)
        selected = whole.get_projections("global")[0](
            attend_selected_keys(logits, select_top_k(logits, config.hidden.global_top_k), result.values)
        )
        case.hold(
            rearrange(selected, "b q 1 (heads d) -> b heads q d", heads=teacher.heads).detach(), "out/global_student"
        )

    output = method(clip, mask=mask)
    output.loss.backward()
    assert output.parts.keys() == config.loss_weights.keys()
    hold_losses(case, config, dict(whole(clip, mask=mask).parts), output.loss, f"{variant}/")
    hold_gradients(case, method, f"grad/{variant}")


def distillation(case: Case, variant: str) -> tuple[MaskAgain, MaskAgain]:
    stored = case.json["config"]
    config = MaskAgainConfig(
        encoder=encoder_config(stored["student"]["args"], stored["num_frames"], "encoder_"),
        teacher=TeacherConfig(model=encoder_config(stored["teacher"]["args"], stored["num_frames"], "encoder_")),
        **terms(stored["variants"][variant]),
    )
    pair = built(case, config, stored["align_modules"])
    for method in pair:
        for model, side in ((method.encoder, "student"), (method.teacher.model, "teacher")):
            norm = {name: t for name, t in model.state_dict().items() if name.startswith("norm.")}  # theirs have none
            case.load(model, build_vit_rules(model.config, "encoder.", ""), side, **norm)
    return pair
