"""MaskAgain gives the numbers that its authors' code gave: each loss from given features, and whole distillations."""

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from reference_cases import Case, cases, found
from reference_models import colours, encoder_config, places
from vidstill.methods.maskagain import MaskAgain, MaskAgainConfig
from vidstill.models.layers import AttentionMap
from vidstill.models.positions import position_table
from vidstill.models.vit import ViTConfig
from vidstill.pretext.attention import by_slot, largest, local_loss, weighed
from vidstill.pretext.masks import Mask
from vidstill.pretext.relations import others_zeroed, telling_tokens
from vidstill.pretext.teachers import TeacherConfig
from vidstill.weights.names import maskagain_names, vit_names
from vidstill.weights.transfer import load_exactly, translated

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
    both = kind == "global + local"  # of a single one the released code takes the overall factor alone
    without = settings["attention_terms_only"]
    return {
        "global_factor": weights["global"] if both else float(kind == "global only"),
        "local_factor": weights["local"] if both else float(kind == "local only"),
        "hidden_factor": weights["attention"],
        "hint_factor": 0.0 if without else weights["hint"],
        "relation_factor": 0.0 if without else weights["relation"],
        "global_keys": settings["top_k_attention"],
        "local_keys": settings["top_k_attention"],
        "telling": settings["top_f_tokens"],
        "attention_temperature": settings["attention_temperature"],
        "student_temperature": settings["relation_temperature_student"],
        "teacher_temperature": settings["relation_temperature_teacher"],
    }


def official(name: str) -> str:
    """`align/feature.fc1.bias` of a case is `Align_feature.fc1.bias` in the authors' words."""
    module, _, rest = name.removeprefix("align/").partition(".")
    return f"{MODULES[module]}.{rest}" if name.startswith("align/") else name


def hold_losses(case: Case, config: MaskAgainConfig, parts: dict[str, Tensor], loss: Tensor, prefix: str) -> None:
    """The case states a number for each of our parts, their sum, and the weighted sum of the hidden ones."""
    stored = case.under(prefix)
    both = {"global", "local"} <= parts.keys()
    assert stored.keys() == {*parts, "total"} | ({"attention_weighted_sum"} if both else set())
    case.hold(loss.detach(), f"{prefix}/total", "losses")
    for name, part in parts.items():
        case.hold(part.detach(), f"{prefix}/{name}", "losses")
    if both:
        weighted = config.global_factor * parts["global"] + config.local_factor * parts["local"]
        case.hold(weighted.detach(), f"{prefix}/attention_weighted_sum", "losses")


def hold_gradients(case: Case, method: MaskAgain, prefix: str) -> None:
    """Every stored gradient of a parameter equals ours."""
    theirs = {official(n): g for n, g in case.under(prefix).items() if not n.startswith("input/")}
    ours = dict(method.named_parameters())
    for name, gradient in translated(theirs, maskagain_names(method.config.encoder)).items():
        assert ours[name].grad is not None, name
        case.hold_value(ours[name].grad, gradient, name, "gradients")


def projections(case: Case) -> dict[str, Tensor]:
    return {official(f"align/{name}"): tensor for name, tensor in case.under("align").items()}


@pytest.mark.parametrize("case", cases(method="maskagain", kind="loss_components"))
def test_each_loss_agrees_with_maskagains_authors(case: Case) -> None:
    settings = case.json["config"]

    def model(side: str) -> ViTConfig:
        return ViTConfig(dim=settings[f"width_{side}"], depth=1, heads=settings[f"heads_{side}"], tubelet=(2, 4, 4))

    config = MaskAgainConfig(encoder=model("student"), teacher=TeacherConfig(model=model("teacher")), **terms(settings))
    assert config.projected == settings["align_modules"]
    method = config.build()
    own = {name: t for name, t in method.state_dict().items() if name.startswith("encoder.")}  # not looked at
    load_exactly(method, own | translated(projections(case), maskagain_names(config.encoder)), case.name)

    given = {name: tensor.clone().requires_grad_("student" in name) for name, tensor in case.under("input").items()}
    student, teacher = (
        AttentionMap(given[f"{side}_attention_logits"], given[f"{side}_values"]) for side in ("student", "teacher")
    )
    features, target = given["student_features"], given["teacher_features"]
    slots = settings["temporal_slots"]
    parts = method.hidden(student, teacher, slots=slots) | method.output(features, target)
    loss = torch.stack([config.factors[name] * part for name, part in parts.items()]).sum()
    loss.backward()
    hold_losses(case, config, parts, loss, "loss")
    hold_gradients(case, method, "grad")
    for name, gradient in case.under("grad/input").items():
        case.hold_value(given[name].grad, gradient, name, "gradients")
    hold_intermediate(case, method, {"student": student, "teacher": teacher}, features, target, slots)

    aligned = local_loss(
        student,
        teacher,
        slots=slots,
        keys=config.local_keys,
        temperature=config.attention_temperature,
        pairs="aligned",
        mapped=method.phi("local"),
    )
    stated = case.json["informational"]["local_with_frame_paired_values"]
    case.hold_number(aligned.item(), stated, "local with the values of its own tokens")


def hold_intermediate(
    case: Case,
    method: MaskAgain,
    sides: dict[str, AttentionMap],
    features: Tensor,
    target: Tensor,
    slots: int,
) -> None:
    """What is compared: mapped sums of the kept values, and tokens of which all but the telling ones are zeroed."""
    config = method.config
    for term, count in (("global", 1), ("local", slots)):
        for (side, attention), mapped in zip(sides.items(), method.phi(term), strict=True):
            logits = by_slot(attention.logits / config.attention_temperature, count)
            taken = mapped(weighed(logits, largest(logits, config.global_keys), attention.values))
            by_head = rearrange(taken, "b q t (heads d) -> b heads q t d", heads=config.teacher.model.heads)
            stored = case.tensors[f"out/{term}_{side}"]
            case.hold_value(by_head.detach().reshape(stored.shape), stored, f"{term}_{side}")
    telling = telling_tokens(target, config.telling)
    mapped = method.projections["hint"] if config.projected else torch.nn.Identity()
    case.hold(mapped(others_zeroed(features, telling)).detach(), "out/hint_student")
    case.hold(others_zeroed(target, telling), "out/hint_teacher")


VARIANTS = [
    pytest.param(*each.values, variant, id=f"{each.id}-{variant}", marks=each.marks)
    for each in cases(method="maskagain", kind="distill")
    for variant in (each.values[0].json["config"]["variants"] if each.values[0] else ["none"])
]


@pytest.mark.parametrize(("case", "variant"), VARIANTS)
def test_a_distillation_agrees_with_maskagains_authors(case: Case, variant: str) -> None:
    method = distillation(case, variant)
    config = method.config
    student, teacher = config.encoder, config.teacher.model
    clip, hidden = colours(case.tensors["input/video"]), case.tensors["input/mask"]
    mask = Mask(places(hidden, 0), places(hidden, 1))
    grid = method.encoder.grid(clip)
    for side, model in (("student", student), ("teacher", teacher)):
        table = position_table("sinusoid", grid, model.dim, clip.device)
        torch.testing.assert_close(table[None], case.tensors[f"const/{side}_pos_embed"], rtol=0, atol=1e-6)

    looked = {
        "student": (method.encoder(clip, mask.visible, layers=(student.depth,), attention=(student.depth,)), student),
        "teacher": (
            method.teacher.look(clip, mask.visible, layers=(teacher.depth,), attention=(teacher.depth,)),
            teacher,
        ),
    }
    for side, (seen, model) in looked.items():
        case.hold(seen.layers[model.depth].detach(), f"out/{side}_features")
        case.hold(seen.attention[model.depth].logits.detach(), f"out/{side}_attention_logits_last")
        case.hold(seen.attention[model.depth].values.detach(), f"out/{side}_values_last")
    if variant == "default":
        ours = looked["student"][0].attention[student.depth]
        logits = by_slot(ours.logits / config.attention_temperature, 1)
        taken = method.phi("global")[0](weighed(logits, largest(logits, config.global_keys), ours.values))
        by_head = rearrange(taken, "b q 1 (heads d) -> b heads q d", heads=teacher.heads)
        case.hold(by_head.detach(), "out/global_student")

    output = method(clip, mask=mask)
    output.loss.backward()
    hold_losses(case, config, dict(output.parts), output.loss, f"loss/{variant}")
    hold_gradients(case, method, f"grad/{variant}")


def distillation(case: Case, variant: str) -> MaskAgain:
    stored = case.json["config"]
    config = MaskAgainConfig(
        encoder=encoder_config(stored["student"]["args"], stored["num_frames"], "encoder_"),
        teacher=TeacherConfig(model=encoder_config(stored["teacher"]["args"], stored["num_frames"], "encoder_")),
        **terms(stored["variants"][variant]),
    )
    assert config.projected == stored["align_modules"]
    method = config.build()
    ours = translated(case.under("student") | projections(case), maskagain_names(config.encoder))
    built = method.state_dict().keys()  # a variant builds the projections that it uses
    used = {name: t for name, t in ours.items() if name in built or not name.startswith("projections.")}
    load_exactly(method, used, case.name)
    teacher = method.teacher.model
    norm = {name: t for name, t in teacher.state_dict().items() if name.startswith("norm.")}  # theirs has none
    load_exactly(
        teacher, norm | translated(case.under("teacher"), vit_names(teacher.config, "encoder.", "")), case.name
    )
    return method


def test_every_case_of_maskagain_is_held_by_some_test() -> None:
    for key, case in found().items():
        if case.method == "maskagain":
            assert case.json["kind"] in ("loss_components", "distill", "table"), key
            assert case.json["kind"] != "table" or case.name.startswith("masks"), key
