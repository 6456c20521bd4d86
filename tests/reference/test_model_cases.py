"""VideoMAE and AMD agree with their authors: outputs, losses, gradients and steps of every case that is found."""

import re

import pytest
import torch
from reference_cases import Case, cases
from reference_models import (
    colours,
    decoder_config,
    encoder_config,
    hold_classifier,
    hold_encoder,
    hold_gradients,
    hold_weights,
    list_tokens,
    run_trunk,
    take_step,
)

from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules, build_vit_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.amd import AMD, AMDConfig, AMDQuirks
from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import Mask, NestedTubeMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.videomae import VideoMAE, VideoMAEConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.tasks.classification import ClassificationTask, Classifier, ClassifierConfig

pytestmark = pytest.mark.reference


def videomae(case: Case) -> VideoMAE:
    config = case.json["config"]
    result = VideoMAEConfig(
        encoder=encoder_config(config["args"], config["num_frames"], "encoder_"),
        decoder=decoder_config(config["args"]),
        target="per_channel" if config["normalize_target"] else "raw",
    )
    method = result.build()
    case.load(method, build_videomae_rules(result.encoder), "weights")
    return method


@pytest.mark.parametrize("case", cases(method="videomae", kind="pretrain"))
def test_videomae_agrees_with_its_authors(case: Case) -> None:
    method = videomae(case)
    clip, hidden = colours(case.tensors["input/video"]), case.tensors["input/mask"]
    mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))
    grid = method.encoder.grid(clip)

    encoded = method.encoder(clip, mask.visible, layers=range(1, method.config.encoder.depth + 1))
    narrow = method.decoder.embed(encoded.tokens)
    joined, _ = run_trunk(method.decoder.trunk, narrow, mask.visible, mask.masked, grid)
    hold_encoder(case, method.encoder, clip, encoded, "encoder_block")
    case.hold(encoded.tokens, "out/encoder")
    case.hold(narrow, "out/encoder_to_decoder")
    case.hold(joined, "out/decoder_input")
    case.hold(method.forward_decoder(clip, encoded, mask), "out/prediction")
    case.hold(compute_pixel_target(clip, method.config.encoder, mask.masked, method.config.target), "target/labels")
    for name, dim in (("encoder", method.config.encoder.dim), ("decoder", method.config.decoder.dim)):
        table = build_position_table("sinusoid", grid, dim, clip.device)
        case.hold_table(table[None], f"const/{name}_pos_embed")

    output = method(clip, mask=mask)
    output.loss.backward()
    case.hold_loss(output.loss, "total")
    hold_gradients(case, method, build_videomae_rules(method.config.encoder))


@pytest.mark.parametrize("case", cases(method="videomae", kind="finetune"))
def test_the_classifier_agrees_with_videomaes_authors(case: Case) -> None:
    model = classifier(case)
    clip, label = colours(case.tensors["input/video"]), case.tensors["input/label"]
    encoded = model.encoder(clip, layers=range(1, model.config.encoder.depth + 1))
    hold_encoder(case, model.encoder, clip, encoded, "block")
    case.hold_table(model.encoder.positions(model.encoder.grid(clip), clip.device).detach()[None], "const/pos_embed")
    hold_classifier(case, model, clip, label, build_classifier_rules(model.config.encoder))


@pytest.mark.parametrize("case", cases(method="videomae", kind="pretrain_steps"))
def test_pretraining_steps_agree_with_videomaes_authors(case: Case) -> None:
    config = case.json["config"]
    method = videomae(case)
    optim = AdamWConfig(
        base_lr=1.0,
        betas=tuple(config["optimizer"]["betas"]),
        weight_decay=1.0,  # what decays; by how much, every step says
        max_grad_norm=config.get("clip_grad_norm"),
    )
    optimizer, runtime = optim.build(method), Runtime("fp32")
    for group in optimizer.param_groups:
        group["eps"] = config["optimizer"]["eps"]
    for step, rate in enumerate(case.json["learning_rate_per_step"]):
        for group in optimizer.param_groups:
            group["weight_decay"] = case.json["weight_decay_per_step"][step] if group["weight_decay"] else 0.0
        hidden = case.tensors[f"input/mask.{step}"]
        mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))
        loss = method(colours(case.tensors[f"input/video.{step}"]), mask=mask).loss
        case.hold_loss(loss, f"step.{step}")
        norm = take_step(optimizer, runtime, method, loss, rate, optim.max_grad_norm)
        case.hold_number(norm, "gradient_norm_before_clipping", step, kind="gradients")
    hold_weights(case, method, build_videomae_rules(method.config.encoder))


@pytest.mark.parametrize("case", cases(method="videomae", kind="finetune_steps"))
def test_fine_tuning_steps_agree_with_videomaes_authors(case: Case) -> None:
    config = case.json["config"]
    task = ClassificationTask(
        classifier(case), mixup=None, random_erasing=None, label_smoothing=config.get("label_smoothing", 0.0)
    )
    optim = AdamWConfig(
        base_lr=1.0,
        betas=tuple(config["optimizer"]["betas"]),
        weight_decay=config["weight_decay"],
        layer_decay=config.get("layer_decay"),
        max_grad_norm=config.get("clip_grad_norm"),
    )
    optimizer, runtime = optim.build(task), Runtime("fp32")
    for group in optimizer.param_groups:
        group["eps"] = config["optimizer"]["eps"]
    every = config["accumulate"]
    for update, rate in enumerate(case.json["base_learning_rate_per_update"]):
        losses = []
        for batch in range(update * every, (update + 1) * every):
            clip, label = colours(case.tensors[f"input/video.{batch}"]), case.tensors[f"input/label.{batch}"]
            losses.append(task(clip, label, torch.zeros_like(label)).loss)
            case.hold_loss(losses[-1], f"micro_batch.{batch}")
        norm = take_step(optimizer, runtime, task, torch.stack(losses).mean(), rate, optim.max_grad_norm)
        case.hold_number(norm, "gradient_norm_at_updates", update, kind="gradients")
    hold_weights(case, task.model, build_classifier_rules(task.model.config.encoder))


def classifier(case: Case) -> Classifier:
    args = case.json["config"]["args"]
    config = ClassifierConfig(
        encoder=encoder_config(args, args["all_frames"]),
        num_classes=args["num_classes"],
        pooling="mean" if args.get("use_mean_pooling", True) else "first",
        head_init_scale=args.get("init_scale", 1.0),
    )
    model = config.build()
    case.load(model, build_classifier_rules(config.encoder), "weights")
    return model


@pytest.mark.parametrize("case", cases(method="amd", kind="distill"))
def test_amd_agrees_with_its_authors(case: Case) -> None:
    method = amd(case)
    config = method.config
    clip = colours(case.tensors["input/video"])
    hidden, never, differ = (case.tensors[f"input/mask_{name}"] for name in ("student", "teacher", "diff"))
    assert torch.equal(hidden - never, differ)
    mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1), list_tokens(differ, 1))
    grid = method.encoder.grid(clip)

    teacher = method.teacher.model
    case.hold(teacher.embed_tokens(clip, mask.teacher_visible), "out/teacher_tokens_with_position")
    blocks = range(1, config.teacher.model.depth + 1)  # theirs stops after the last one that is wanted
    for block, tokens in teacher(clip, mask.teacher_visible, layers=blocks).layers.items():
        case.hold(tokens, f"out/teacher_block.{block - 1}")
    both, teacher_only = method.forward_teacher(clip, mask)
    for index, (_, layer) in enumerate(config.direct_pairs):
        case.hold(both[layer], f"target/teacher_direct.{index}")
    for index, (_, layer) in enumerate(config.generator_pairs):
        case.hold(teacher_only[layer], f"target/teacher_generation.{index}")

    student = method.encoder(clip, mask.visible, layers=range(1, config.encoder.depth + 1))
    case.hold(method.encoder.embed_tokens(clip) - method.encoder.positions(grid, clip.device), "out/patch_embed")
    case.hold(student.tokens, "out/encoder")
    narrow = method.decoder.embed(student.tokens)
    joined, _ = run_trunk(method.decoder.trunk, narrow, mask.visible, mask.masked, grid)
    case.hold(joined, "out/decoder_input")
    case.hold(method.forward_decoder(clip, student, mask), "out/prediction")
    case.hold(compute_pixel_target(clip, config.encoder, mask.masked, config.target), "target/labels")
    projected, per_layer = method.project_student(student), {"direct": [], "generation": []}
    for index, (tokens, (_, layer)) in enumerate(zip(projected, config.direct_pairs, strict=True)):
        case.hold(tokens, f"out/student_direct.{index}")
        per_layer["direct"].append(regression_loss(tokens, both[layer], config.feature_loss))
    for index, tokens in enumerate(method.generate_features(student, mask, grid)):
        assert mask.teacher_only is not None
        projection = method.projections[str(config.direct_pairs[index][0])]  # released: the one at the same place
        encoded = projection(student.layers[config.generator_pairs[index][0]])
        joined, _ = run_trunk(method.generators[index], encoded, mask.visible, mask.teacher_only, grid)
        case.hold(joined, f"out/generator_input.{index}")
        case.hold(tokens, f"out/generator.{index}")
        case.hold(tokens, f"out/student_generation.{index}")
        target = teacher_only[config.generator_pairs[index][1]]
        per_layer["generation"].append(regression_loss(tokens, target, config.feature_loss))
    for name, losses in per_layer.items():
        case.hold_loss(torch.stack(losses), f"{name}_per_layer")
    tables = {"encoder": config.encoder.dim, "decoder": config.decoder.dim, "generator": config.generator_config.dim}
    for name, dim in tables.items():
        case.hold_table(build_position_table("sinusoid", grid, dim, clip.device)[None], f"const/{name}_pos_embed")

    output = method(clip, mask=mask)
    output.loss.backward()
    case.hold_loss(output.loss, "total")
    for name, value in output.parts.items():
        case.hold_loss(value, name)
    hold_gradients(case, method, names_of(config), "grad", "grad_extra")
    registered = [p.grad.norm() for name, p in method.named_parameters() if not re.match(r"generators.\d+.mask", name)]
    case.hold_number(torch.stack(registered).norm(), "grad_norm_all_registered_parameters", kind="gradients")


def names_of(config: AMDConfig) -> tuple[RenameRule, ...]:
    return build_amd_rules(config.encoder, [layer for layer, _ in config.direct_pairs])


def amd(case: Case) -> AMD:
    stored = case.json["config"]
    student, teacher = stored["student"]["args"], stored["teacher"]["args"]
    layers = {name: list(zip(stored["student_layers"][name], stored["teacher_layers"][name], strict=True))
              for name in ("direct", "generation")}  # fmt: skip
    config = AMDConfig(
        encoder=encoder_config(student, stored["num_frames"], "encoder_"),
        decoder=decoder_config(student),
        teacher=TeacherConfig(model=encoder_config(teacher, stored["num_frames"])),
        mask=NestedTubeMask(student_ratio=stored["mask_ratio_student"], teacher_ratio=stored["mask_ratio_teacher"]),
        target="per_channel" if stored["normalize_target"] else "raw",
        layer_pairs=tuple(layers["direct"]),
        generation_layer_pairs=tuple(layers["generation"]),
        feature_loss={"l2": "l2", "l1": "l1", "sml1": "smooth_l1"}[stored["align_loss"]],
        generator_depth=student["generator_depth"],
        reconstruction_weight=float(stored["factors"]["reconstruction"]),
        direct_weight=float(stored["factors"]["direct"]),
        generation_weight=float(stored["factors"]["generation"]),
        released=AMDQuirks(projection_by_index=True),
    )
    assert config.generator_config.heads == stored["generator_heads"]
    method = config.build()
    case.load(method, names_of(config), "student", "student_extra")
    teacher = method.teacher.model
    norm = {name: t for name, t in teacher.state_dict().items() if name.startswith("norm.")}  # theirs has none
    case.load(teacher, build_vit_rules(config.teacher.model, "", ""), "teacher", **norm)
    return method
