"""What tests of reference cases share: stored inputs and settings in our words, and comparisons under our names."""

from typing import Any

import torch
import torch.nn.functional as F
from foreign_layout import to_foreign
from reference_cases import Case
from torch import Tensor

from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.engine.distributed import Runtime
from vidstill.models.decoder import DecoderConfig, DecoderTrunk
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, Features, ViT, ViTConfig
from vidstill.tasks.classification import Classifier


def colours(video: Tensor) -> Tensor:
    """The clip before ImageNet's mean and deviation were taken off."""
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return video * std + mean


def list_tokens(hidden: Tensor, value: int) -> Tensor:
    """The token numbers where a mask has the value, ascending."""
    return torch.stack([(row == value).nonzero().flatten() for row in hidden])


def encoder_config(args: dict[str, Any], frames: int, prefix: str = "") -> ViTConfig:
    patch, tubelet = args["patch_size"], args["tubelet_size"]
    learned = args.get("use_learnable_pos_emb", False)
    return ViTConfig(
        dim=args[f"{prefix}embed_dim"],
        depth=args[f"{prefix}depth"],
        heads=args[f"{prefix}num_heads"],
        mlp_ratio=args["mlp_ratio"],
        tubelet=(tubelet, patch, patch),
        positions="learned" if learned else "sinusoid",
        learned_grid=(frames // tubelet, args["img_size"] // patch, args["img_size"] // patch) if learned else None,
        layer_scale=args.get("init_values") or 0.0,
        attention_bias="qv" if args.get("qkv_bias", True) else "none",
    )


def decoder_config(args: dict[str, Any]) -> DecoderConfig:
    return DecoderConfig(
        dim=args["decoder_embed_dim"],
        depth=args["decoder_depth"],
        heads=args["decoder_num_heads"],
        mlp_ratio=args["mlp_ratio"],
        layer_scale=args.get("init_values") or 0.0,
        attention_bias="qv" if args.get("qkv_bias", True) else "none",
    )


def run_trunk(trunk: DecoderTrunk, *inputs: Any) -> tuple[Tensor, Tensor]:
    """Return the input of a decoder's first block, and the output of its last one, all tokens."""
    tokens: list[Tensor] = []
    hooks = [
        trunk.blocks[0].register_forward_pre_hook(lambda block, arguments: tokens.append(arguments[0])),
        trunk.blocks[-1].register_forward_hook(lambda block, arguments, output: tokens.append(output)),
    ]
    trunk(*inputs)
    for hook in hooks:
        hook.remove()
    return tokens[0], tokens[1]


def with_cls_token(tokens: Tensor, cls_token: Tensor) -> Tensor:
    """Tokens as the authors keep them: the class token, where there is one, stands first."""
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)


def hold_encoder(case: Case, encoder: ViT, clip: Tensor, encoded: Features, name: str) -> None:
    """The patches as they are embedded, with their positions, and after each block that was asked for."""
    grid, cls_token = encoder.grid(clip), encoder.cls_token
    tokens = encoder.embed_tokens(clip)
    case.hold(tokens - encoder.positions(grid, clip.device), "out/patch_embed")
    embedding = 0 if encoder.positions.cls_embedding is None else encoder.positions.cls_embedding
    first = tokens[:, :0] if cls_token is None else (cls_token + embedding)[None]
    case.hold(with_cls_token(tokens, first), "out/tokens_with_position")
    for block, tokens in encoded.layers.items():
        case.hold(with_cls_token(tokens, encoded.cls_layers[block]), f"out/{name}.{block - 1}")


def hold_classifier(case: Case, model: Classifier, clip: Tensor, label: Tensor, names: tuple[RenameRule, ...]) -> None:
    """Features, logits, the loss with the case's label smoothing and without, and the former's gradients agree."""
    case.hold(model.forward_features(clip), "out/features")
    logits, smoothing = model(clip), case.json["config"].get("label_smoothing", 0.0)
    case.hold(logits, "out/logits")
    case.hold_loss(F.cross_entropy(logits, label), "cross_entropy")
    loss = F.cross_entropy(logits, label, label_smoothing=smoothing)
    case.hold_loss(loss, "label_smoothing")
    loss.backward()
    hold_gradients(case, model, names)


def hold_gradients(case: Case, module: torch.nn.Module, names: tuple[RenameRule, ...], *prefixes: str) -> None:
    """Every gradient that the reference has equals ours, and none of theirs is left out."""
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    for prefix in prefixes or ("grad",):
        case.hold_under(prefix, to_foreign(gradients, names), "gradients", whole=True)


def take_step(
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    module: torch.nn.Module,
    loss: Tensor,
    rate: float,
    longest: float | None,
) -> float:
    """One step as the trainer takes it; gives the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    runtime.backward(loss, 1)
    norm = runtime.clip_grad_norm(list(module.parameters()), optimizer, longest)
    runtime.step_optimizer(optimizer, accept=torch.tensor(True))
    return norm.item()


def hold_weights(case: Case, module: torch.nn.Module, names: tuple[RenameRule, ...]) -> None:
    """Every weight that the reference has after the last step equals ours."""
    case.hold_under("after", to_foreign(dict(module.named_parameters()), names), "after", whole=True)
