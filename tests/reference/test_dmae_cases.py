"""DMAE agrees with its authors: every stored feature, prediction, loss, gradient and step."""

import pytest
import torch
from foreign_layout import to_foreign, translate_state_dict
from reference_cases import Case, cases
from reference_mae import (
    clip,
    decoder_config,
    encoder_config,
    hold_gradients,
    hold_steps,
    imagemae,
    predictions,
    stored_mask,
    target,
)

from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.common.masking import RandomMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAE, DMAEConfig
from vidstill.methods.imagemae import ImageMAE
from vidstill.models.vit import ViT

pytestmark = pytest.mark.reference


def teacher(case: Case) -> ImageMAE:
    """Theirs has a decoder, too, which no loss looks at."""
    settings = case.json["config"]
    return imagemae(settings["common"] | settings["teacher"], case.under("teacher"), case.name)


def dmae(case: Case) -> DMAE:
    settings, whole = case.json["config"], teacher(case)
    student = settings["common"] | settings["student"]
    ours = DMAEConfig(
        encoder=encoder_config(student),
        decoder=decoder_config(student),
        teacher=TeacherConfig(model=whole.config.encoder),
        mask=RandomMask(ratio=settings["mask_ratio"]),
        target=target(settings["common"]),
        layer_pairs=tuple(
            (ours + 1, theirs + 1)
            for ours, theirs in zip(settings["student_blocks"], settings["teacher_blocks"], strict=True)
        ),
        projection=settings["projection"] or "none",
        feature_loss=settings["distance"].lower(),
    )
    method = ours.build()
    method.teacher.model.load_state_dict(whole.encoder.state_dict())
    load_state_dict_strict(
        method, translate_state_dict(case.under("student"), build_mae_rules(ours.encoder)), case.name
    )
    return method


def hold_features(case: Case, who: str, model: ViT) -> None:
    """The blocks that are aligned, and what leaves the final norm; the class token first, the others in their order."""
    blocks = [block + 1 for block in case.json["config"][f"{who}_blocks"]]
    seen = model(clip(case), case.tensors["mask/ids_keep"], layers=blocks)
    features = [(seen.cls_layers[block], seen.layers[block]) for block in blocks]
    for place, parts in enumerate([*features, (seen.cls_token, seen.tokens)]):
        case.hold_each(torch.cat(parts, dim=1), f"out/{who}_feature_{place}", "out")


@pytest.mark.parametrize("case", cases(method="dmae", kind="distillation_forward"))
def test_dmae_agrees_with_its_authors(case: Case) -> None:
    method, image, mask = dmae(case), clip(case), stored_mask(case)
    everything = torch.arange(method.encoder.grid(image).num_tokens).expand(len(image), -1)
    hold_features(case, "student", method.encoder)
    hold_features(case, "teacher", method.teacher.model)
    case.hold_each(predictions(method, image, mask), "out/student_pred", "out")
    case.hold_each(predictions(teacher(case), image, mask), "out/teacher_pred", "out")
    case.hold_each(
        compute_pixel_target(image, method.config.encoder, everything, method.config.target), "out/target", "out"
    )

    losses = case.json["losses"]
    student = method.encoder(image, mask.visible, layers=[ours for ours, _ in method.config.layer_pairs])
    apart = method.compute_alignment_losses(student, method.forward_teacher(image, mask))
    for block, value in zip(case.json["config"]["student_blocks"], apart, strict=True):
        case.hold_each(value.detach(), torch.tensor(losses[f"distill_align_block{block}"]), "loss")
    output = method(image, mask=mask)
    output.loss.backward()
    case.hold_each(output.loss.detach()[None], "loss", "loss")
    case.hold_each(output.loss.detach(), torch.tensor(losses["total"]), "loss")
    case.hold_each(output.parts["reconstruction"].detach(), torch.tensor(losses["reconstruction"]), "loss")
    hold_gradients(case, method, build_mae_rules(method.config.encoder))


@pytest.mark.parametrize("case", cases(method="dmae", kind="training_steps"))
def test_steps_of_distillation_agree_with_dmaes_authors(case: Case) -> None:
    method = dmae(case)
    for name, parameter in method.named_parameters():
        (theirs,) = to_foreign({name: parameter}, build_mae_rules(method.config.encoder))
        parameter.requires_grad_(not any(word in theirs for word in case.json["config"]["freeze_keywords"] or ()))
    hold_steps(case, method)
