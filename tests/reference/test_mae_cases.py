"""Image MAE, its classifier, MAE's linear probe and DMAE agree with their authors in all that is stored."""

import pytest
import torch
import torch.nn.functional as F
from foreign_layout import to_foreign
from reference_cases import Case, cases
from reference_mae import (
    clip,
    decoder_config,
    encoder_config,
    hold_classifier,
    hold_gradients,
    hold_output,
    hold_statistics,
    hold_steps,
    imagemae,
    kept_in_order,
    picture,
    pixel_target,
    predictions,
    stored_mask,
)
from reference_models import take_step, with_cls_token

from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules, build_vit_rules
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import LARSConfig
from vidstill.methods.common.masking import RandomMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAE, DMAEConfig
from vidstill.methods.imagemae import ImageMAE, ImageMAEConfig
from vidstill.models.position_embeddings import build_position_table, build_sincos_1d, resize_position_table
from vidstill.models.vit import ViT
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.tasks.probes.linear import LinearProbeModel
from vidstill.utils.types import Grid

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("case", cases(method="image_mae", kind="pretrain_forward"))
def test_image_mae_agrees_with_its_authors(case: Case) -> None:
    method = imagemae(case, case.json["config"])
    image, mask, encoder = clip(case), stored_mask(case), method.encoder
    grid = encoder.grid(image)
    everything = torch.arange(grid.num_tokens).expand(len(image), -1)

    case.hold_each(encoder.embed_tokens(image) - encoder.positions(grid, image.device), "out/patch_embed", "out")
    encoded = encoder(image, kept_in_order(case, mask))
    case.hold_each(with_cls_token(encoded.tokens, encoded.cls_token), "out/latent", "out")
    reconstruction = predictions(method, image, mask)
    case.hold_each(reconstruction, "out/pred", "out")
    case.hold_each(picture(reconstruction, grid, case.json["config"]["patch_size"]), "out/pred_image", "out")
    case.hold_each(compute_pixel_target(image, encoder.config, everything, method.config.target), "out/target", "out")

    hold_output(case, method, image, mask, build_mae_rules(encoder.config))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="training_steps"))
def test_steps_of_pre_training_agree_with_image_maes_authors(case: Case) -> None:
    hold_steps(case, imagemae(case, case.json["config"]))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="finetune_forward"))
def test_the_classifier_agrees_with_image_maes_authors(case: Case) -> None:
    config = case.json["config"]
    result = ClassifierConfig(
        encoder=encoder_config(config, learned=True),
        num_classes=config["num_classes"],
        pooling="mean" if config["global_pool"] else "first",
    )
    model: Classifier = result.build().train(config["mode"] == "train")
    names = build_classifier_rules(result.encoder)
    case.load(model, names, "weights")
    hold_classifier(case, model, clip(case), names)


@pytest.mark.parametrize("case", cases(method="image_mae", kind="initialisation"))
def test_new_models_start_as_image_maes_authors_do(case: Case) -> None:
    settings, statistics = case.json["config"], case.json["statistics"]
    torch.manual_seed(0)
    method = ImageMAEConfig(
        encoder=encoder_config(settings["pretrain"]), decoder=decoder_config(settings["pretrain"])
    ).build()
    classes = statistics["finetune"]["head.bias"]["shape"][0]
    tuned = ClassifierConfig(
        encoder=encoder_config(settings["finetune"], learned=True), num_classes=classes, head_init_scale=1.0
    )
    trained = {name: each for name, each in statistics["pretrain"].items() if "pos_embed" not in name}  # held below
    hold_statistics(case, trained, to_foreign(method.state_dict(), build_mae_rules(method.config.encoder)))
    names = build_classifier_rules(tuned.encoder)
    hold_statistics(case, statistics["finetune"], to_foreign(tuned.build().state_dict(), names))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="sincos_pos_embed"))
def test_computed_position_codes_are_image_maes(case: Case) -> None:
    for entry in case.json["entries"]:
        grid, dim = Grid(1, entry["grid"], entry["grid"]), entry["dim"]
        table = build_position_table("sincos2d", grid, dim, torch.device("cpu"))
        first = [torch.zeros(1, dim)] if entry["class_token"] else []
        case.hold_each(torch.cat([*first, table]), f"out/table_{entry['index']}", "out")
        assert table.double().sum().item() == pytest.approx(entry["float64_sum"], abs=1e-6 * table.numel())
        for channel in range(len(entry["float64_corner"])):
            case.hold_number(table[-1, channel], "entries", entry["index"], "float64_corner", channel, kind="out")
    if not (line := case.json.get("one_d")):
        return
    whole = [index for index, at in enumerate(line["positions"]) if at == int(at)]  # ours are of whole places
    table = build_sincos_1d(1 + int(max(line["positions"])), line["dim"]).float()
    rows = torch.tensor([int(line["positions"][index]) for index in whole])
    case.held.add("out/table_1d")
    torch.testing.assert_close(table[rows], case.tensors["out/table_1d"][whole], **case.json["tolerance"]["out"])


@pytest.mark.parametrize(
    "case",
    [*cases(method="image_mae", kind="pos_embed_interpolation"), *cases(method="st_mae", kind="checkpoint_conversion")],
)
def test_learned_position_codes_are_resized_as_the_authors_do(case: Case) -> None:
    name = "pos_embed" if case.method == "image_mae" else "interp"
    if case.method == "st_mae":
        case.leave_to_others("out/inflate/", "out/convert/", "out/logits", "input/")
    for entry in case.json.get("entries" if case.method == "image_mae" else "interpolation", ()):
        cut = entry["extra_tokens"] if case.method == "image_mae" else int(entry["class_token"])
        expected = case.tensors[f"input/{name}_{entry['index']}"][0]
        old, new = (Grid(1, entry[side], entry[side]) for side in ("grid_from", "grid_to"))
        resized = torch.cat([expected[:cut], resize_position_table(expected[cut:], old, new)])
        case.hold_each(resized[None], f"out/{name}_{entry['index']}", "out")


# ---- The linear probe ------------------------------------------------------------------------------------------------


HEAD = (RenameRule("head.0.", "norm."), RenameRule("head.1.", "head."))
FC_NORM = RenameRule("fc_norm.", "encoder.norm.")  # with global pooling, instead of `norm`


@pytest.mark.parametrize("case", cases(method="image_mae", kind="linear_probe"))
def test_a_linear_probe_learns_what_its_authors_learns(case: Case) -> None:
    stored = case.json["config"]
    config = encoder_config(stored, learned=True)
    names = (*HEAD, FC_NORM, *build_vit_rules(config, "", "encoder."))
    probe = LinearProbeModel(config.build(), stored["num_classes"], global_pool=stored["global_pool"])
    case.load(probe, names, "weights")
    optimizer = LARSConfig(base_lr=1.0, weight_decay=stored["weight_decay"]).build(probe)
    probe.train()
    for step in range(stored["steps"]):
        logits = probe(clip(case, f"input/image_{step}"))
        case.hold_each(logits.detach(), f"out/logits_{step}", "out")
        loss = F.cross_entropy(logits, case.tensors[f"input/labels_{step}"])
        case.hold_loss(loss, f"step{step}")
        take_step(optimizer, Runtime("fp32"), probe, loss, stored["lr"], None)
    probe.eval()
    case.hold_each(probe(clip(case, "input/image_eval")).detach(), "out/logits_eval", "out")
    trained = {name: tensor for name, tensor in probe.state_dict().items() if not name.startswith("encoder.")}
    case.hold_under("final", to_foreign(trained, HEAD), "final", whole=False)


# ---- DMAE ------------------------------------------------------------------------------------------------------------


def teacher(case: Case) -> ImageMAE:
    """Theirs has a decoder, too, which no loss looks at."""
    return imagemae(case, case.json["config"]["common"] | case.json["config"]["teacher"], "teacher")


def dmae(case: Case) -> DMAE:
    settings, whole = case.json["config"], teacher(case)
    student = settings["common"] | settings["student"]
    result = DMAEConfig(
        encoder=encoder_config(student),
        decoder=decoder_config(student),
        teacher=TeacherConfig(model=whole.config.encoder),
        mask=RandomMask(ratio=settings["mask_ratio"]),
        target=pixel_target(settings["common"]),
        layer_pairs=tuple(
            (layer + 1, teacher_layer + 1)
            for layer, teacher_layer in zip(settings["student_blocks"], settings["teacher_blocks"], strict=True)
        ),
        projection=settings["projection"] or "none",
        feature_loss=settings["distance"].lower(),
    )
    method = result.build()
    method.teacher.model.load_state_dict(whole.encoder.state_dict())
    case.load(method, build_mae_rules(result.encoder), "student")
    return method


def hold_features(case: Case, who: str, model: ViT) -> None:
    """The blocks that are aligned, and what leaves the final norm; the class token first, the others in their order."""
    blocks = [block + 1 for block in case.json["config"][f"{who}_blocks"]]
    encoded = model(clip(case), kept_in_order(case, stored_mask(case)), layers=blocks)
    features = [(encoded.cls_layers[block], encoded.layers[block]) for block in blocks]
    for index, parts in enumerate([*features, (encoded.cls_token, encoded.tokens)]):
        case.hold_each(with_cls_token(*reversed(parts)), f"out/{who}_feature_{index}", "out")


@pytest.mark.parametrize("case", cases(method="dmae", kind="distillation_forward"))
def test_dmae_agrees_with_its_authors(case: Case) -> None:
    method, image, mask = dmae(case), clip(case), stored_mask(case)
    everything = torch.arange(method.encoder.grid(image).num_tokens).expand(len(image), -1)
    hold_features(case, "student", method.encoder)
    hold_features(case, "teacher", method.teacher.model)
    case.hold_each(predictions(method, image, mask), "out/student_pred", "out")
    case.hold_each(predictions(teacher(case), image, mask), "out/teacher_pred", "out")
    target = compute_pixel_target(image, method.config.encoder, everything, method.config.target)
    case.hold_each(target, "out/target", "out")

    student = method.encoder(image, mask.visible, layers=[layer for layer, _ in method.config.layer_pairs])
    apart = method.compute_alignment_losses(student, method.forward_teacher(image, mask))
    for block, value in zip(case.json["config"]["student_blocks"], apart, strict=True):
        case.hold_loss(value, f"distill_align_block{block}")
    output = method(image, mask=mask)
    output.loss.backward()
    case.hold_each(output.loss.detach()[None], "loss", "loss")
    case.hold_loss(output.loss, "total")
    case.hold_loss(output.parts["reconstruction"], "reconstruction")
    hold_gradients(case, method, build_mae_rules(method.config.encoder))


@pytest.mark.parametrize("case", cases(method="dmae", kind="training_steps"))
def test_steps_of_distillation_agree_with_dmaes_authors(case: Case) -> None:
    method = dmae(case)
    for name, parameter in method.named_parameters():
        (foreign,) = to_foreign({name: parameter}, build_mae_rules(method.config.encoder))
        keywords = case.json["config"].get("freeze_keywords") or ()
        parameter.requires_grad_(not any(keyword in foreign for keyword in keywords))
    hold_steps(case, method)
