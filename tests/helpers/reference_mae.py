"""What tests of the MAE family's cases share (image MAE, DMAE, ST-MAE): our words for theirs, and comparisons."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import reference_models
import torch
import torch.nn.functional as F
from einops import rearrange
from foreign_layout import to_foreign
from reference_cases import Case
from reference_models import colours, list_tokens, run_trunk, take_step
from torch import Tensor

from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.common.masking import Mask, RandomMask
from vidstill.methods.common.targets import PixelTarget
from vidstill.methods.dmae import DMAE
from vidstill.methods.imagemae import ImageMAE, ImageMAEConfig
from vidstill.methods.stmae import STMAE, STMAEConfig, STMAEQuirks
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import Classifier
from vidstill.utils.types import Grid, gather_tokens


def encoder_config(config: dict[str, Any], *, learned: bool = False) -> ViTConfig:
    patch = config["patch_size"]
    side = config["img_size"] // patch
    return ViTConfig(
        dim=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config.get("mlp_ratio", 4.0),
        tubelet=(1, patch, patch),
        positions="learned" if learned else "sincos2d",
        learned_grid=(1, side, side) if learned else None,
        class_token=True,
        attention_bias="qkv" if config.get("qkv_bias", True) else "none",
        drop_path=config.get("drop_path_rate", 0.0),
    )


def decoder_config(config: dict[str, Any]) -> DecoderConfig:
    decoder = reference_models.decoder_config({"mlp_ratio": 4.0, **config})
    return replace(decoder, positions="sincos2d", class_token="encoder", embed_bias=True, attention_bias="qkv")


def stmae_encoder_config(config: dict[str, Any]) -> ViTConfig:
    encoder, tubelet = encoder_config(config, learned=True), config["t_patch_size"]
    return replace(
        encoder,
        tubelet=(tubelet, *encoder.tubelet[1:]),
        positions="separable" if config["sep_pos_embed"] else "learned",
        learned_grid=(config["num_frames"] // tubelet, *encoder.learned_grid[1:]),
        class_token=config["cls_embed"],
        attention_bias="none" if config.get("no_qkv_bias") else "qkv",
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
    )


def stmae_config(config: dict[str, Any]) -> STMAEConfig:
    encoder = stmae_encoder_config(config)
    return STMAEConfig(
        encoder=encoder,
        decoder=replace(
            decoder_config(config),
            positions=encoder.positions,
            learned_grid=encoder.learned_grid,
            class_token="own" if encoder.class_token else "none",
            attention_bias=encoder.attention_bias,
        ),
        mask=RandomMask(ratio=config.get("mask_ratio", 0.9)),
        target="per_patch" if config.get("norm_pix_loss", True) else "input",
        predicted_frames=config["pred_t_dim"] * config["t_patch_size"] // config["num_frames"],
        released=STMAEQuirks(
            frame_selection="linspace", weight_init="normal_released" if config.get("trunc_init") else "xavier"
        ),
    )


def pixel_target(config: dict[str, Any]) -> PixelTarget:
    return "per_patch" if config["norm_pix_loss"] else "input"


def imagemae(case: Case, config: dict[str, Any], prefix: str = "weights") -> ImageMAE:
    method = ImageMAEConfig(
        encoder=encoder_config(config),
        decoder=decoder_config(config),
        mask=RandomMask(ratio=config.get("mask_ratio", 0.75)),
        target=pixel_target(config),
    ).build()
    case.load(method, build_mae_rules(method.config.encoder), prefix)
    return method


def clip(case: Case, name: str = "input/image") -> Tensor:
    """A stored image as a clip of one frame, before ImageNet's mean and deviation were taken off."""
    return colours(case.tensors[name][:, :, None])


def stmae_colours(video: Tensor) -> Tensor:
    """The clip before ST-MAE's mean and deviation were taken off, which are not ImageNet's."""
    return video * 0.225 + 0.45


def mask_by(noise: Tensor, ratio: float) -> Mask:
    """The tokens with the least noise are kept: as many as our own mask shows."""
    num_visible = RandomMask(ratio=ratio).draw(torch.arange(len(noise)), Grid(1, 1, noise.shape[1])).visible.shape[1]
    hidden = (_ranks(noise) >= num_visible).int()
    return Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))


def stored_mask(case: Case) -> Mask:
    """The mask of a forward case; what is stored of it says the same."""
    noise = case.tensors["mask/noise"]
    mask = mask_by(noise, case.json["config"]["mask_ratio"])
    expected = {
        "mask/ids_restore": _ranks(noise),
        "mask/ids_keep": kept_in_order(case, mask),
        "mask/mask": torch.zeros(noise.shape).scatter(1, mask.masked, 1.0),
    }
    for name, tensor in expected.items():
        assert name not in case.tensors or torch.equal(case.tensors[name].float(), tensor.float()), name
    return mask


def kept_in_order(case: Case, mask: Mask) -> Tensor:
    """The visible tokens in the authors' order, of ascending noise."""
    return case.tensors["mask/noise"].argsort(dim=1)[:, : mask.visible.shape[1]]


def _ranks(noise: Tensor) -> Tensor:
    return noise.argsort(dim=1).argsort(dim=1)


def predictions(method: ImageMAE | DMAE | STMAE, image: Tensor, mask: Mask) -> Tensor:
    """What the decoder makes of every token, of the seen ones too, in grid order."""
    encoded, decoder, indices = method.encoder(image, mask.visible), method.decoder, (mask.visible, mask.masked)
    tokens, cls_token = decoder.embed(encoded.tokens), decoder.embed(encoded.cls_token)
    _, output = run_trunk(decoder.trunk, tokens, *indices, method.encoder.grid(image), cls_token)
    order = torch.cat(indices, dim=1).argsort(dim=1)
    rows = decoder.head(decoder.norm(output))
    return gather_tokens(rows[:, rows.shape[1] - order.shape[1] :], order)  # without a class token's


def table(grid: Grid, width: int) -> Tensor:
    """The computed codes as MAE's files have them: that of the class token, which is zero, stands first."""
    return torch.cat([torch.zeros(1, width), build_position_table("sincos2d", grid, width, torch.device("cpu"))])[None]


def picture(rows: Tensor, grid: Grid, patch: int) -> Tensor:
    return rearrange(rows, "b (h w) (p q c) -> b c (h p) (w q)", h=grid.h, p=patch, q=patch)


def hold_gradients(case: Case, module: torch.nn.Module, names: tuple[RenameRule, ...]) -> None:
    """Every gradient that is stored equals ours, and every norm of one."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    result = to_foreign({name: p.grad for name, p in trained.items()}, names)
    norms = case.json.get("grad_norms", result)
    assert norms.keys() == result.keys()
    for name in norms:
        case.hold_number(result[name].norm(), "grad_norms", name, kind="grad")
    case.hold_under("grad", result, "grad", whole=False)


def hold_classifier(case: Case, model: Classifier, image: Tensor, names: tuple[RenameRule, ...]) -> None:
    """Features, logits, both losses and the gradients are the stored ones."""
    config, label = case.json["config"], case.tensors["input/labels"]
    rates = [block.drop_path for block in model.encoder.blocks]
    assert rates == pytest.approx(config.get("drop_path_per_block", rates), rel=1e-6)
    case.hold_each(model.forward_features(image), "out/feature", "out")
    logits = model(image)
    case.hold_each(logits, "out/logits", "out")
    case.hold_loss(F.cross_entropy(logits, label), "ce")
    loss = F.cross_entropy(logits, label, label_smoothing=config.get("label_smoothing", 0.0))
    case.hold_loss(loss, "label_smoothing_ce")
    case.hold_each(loss.detach()[None], "loss", "loss")
    loss.backward()
    hold_gradients(case, model, names)


def hold_output(case: Case, method: ImageMAE | STMAE, image: Tensor, mask: Mask, names: tuple[RenameRule, ...]) -> None:
    """The loss of a pre-training and its gradients are the stored ones."""
    output = method(image, mask=mask)
    output.loss.backward()
    case.hold_each(output.loss.detach()[None], "loss", "loss")
    case.hold_loss(output.parts["reconstruction"], "loss")
    hold_gradients(case, method, names)


def hold_steps(case: Case, method: ImageMAE | DMAE) -> None:
    """Losses, the gradients' lengths and the last weights of a training agree."""
    config, waiting, rate, has_teacher = case.json["config"], [], 0.0, isinstance(method, DMAE)
    # released: only biases and what has one dimension there are not decayed
    optim = AdamWConfig(base_lr=1.0, betas=(0.9, 0.95), weight_decay=config["weight_decay"], no_weight_decay=())
    optimizer, runtime = optim.build(method), Runtime("fp32")
    for step, (stated_rate, length) in enumerate(zip(case.json["lr"], case.json["grad_norm"], strict=True)):
        mask, image = (
            mask_by(case.tensors[f"mask/noise_{step}"], config["mask_ratio"]),
            clip(case, f"input/image_{step}"),
        )
        output = method(image, mask=mask)
        case.hold_loss(output.parts["reconstruction"], f"step{step}_reconstruction" if has_teacher else f"step{step}")
        if has_teacher:
            student = method.encoder(image, mask.visible, layers=[layer for layer, _ in method.config.layer_pairs])
            apart = method.compute_alignment_losses(student, method.forward_teacher(image, mask))
            for block, value in zip(config["student_blocks"], apart, strict=True):
                case.hold_loss(value, f"step{step}_align_block{block}")
        rate = rate if waiting else stated_rate  # it is set before the first of a step's batches
        waiting.append(output.loss)
        if length is None:  # of a step with several batches, this was not the last
            continue
        norm = take_step(optimizer, runtime, method, torch.stack(waiting).mean(), rate, None)
        case.hold_number(norm, "grad_norm", step, kind="grad_norm")
        waiting.clear()
    result, grid = method.config, method.encoder.grid(clip(case, "input/image_0"))
    tables = {"pos_embed": table(grid, result.encoder.dim), "decoder_pos_embed": table(grid, result.decoder.dim)}
    hold_final(case, to_foreign(method.state_dict(), build_mae_rules(result.encoder)) | tables)


def hold_final(case: Case, result: Mapping[str, Tensor]) -> None:
    """Every weight that is stored after the last step equals ours, which are under the authors' names."""
    limits = case.json["tolerance"]
    for name in case.list_under("final", result):
        weight = case.tensors[f"final/{name}"]
        apart = (result[name].double() - weight.double()).abs()
        if name in limits.get("loose_final", {}):
            assert apart.max() <= limits["loose_final"][name], name
            continue
        near = apart <= limits["final"]["atol"] + limits["final"]["rtol"] * weight.double().abs()
        assert near.double().mean() >= limits["final"]["fraction"], name
        assert apart.max() <= limits["final"]["atol_all"], name


def hold_statistics(case: Case, reference: Mapping[str, dict[str, Any]], result: Mapping[str, Tensor]) -> None:
    """Every tensor of a new model has the shape, the mean, the deviation and the kind of chance of the authors'."""
    limits = case.json["tolerance"]["std"]
    assert result.keys() == reference.keys()
    for name, expected in reference.items():
        tensor, n = result[name], result[name].numel()
        assert list(tensor.shape) == expected["shape"], name
        if expected["std"] == 0:
            assert (tensor == expected["mean"]).all(), name
            continue
        # of smaller tensors the case says nothing: of two samples' deviations, five times what chance moves them apart
        large = n >= limits["only_for_elements_at_least"]
        near = limits["rtol"] if large else 5 / n**0.5
        assert tensor.std().item() == pytest.approx(expected["std"], rel=near), name
        assert abs(tensor.mean().item() - expected["mean"]) < 5 * expected["std"] * (2 / n) ** 0.5, name  # of two means
        uniform = expected["absmax"] / expected["std"] < 3**0.5 + 0.1
        # of few normal numbers, chance leaves the largest as near as that of uniform ones
        assert not large or (tensor.abs().max() / tensor.std() < 3**0.5 * 1.2) == uniform, name
