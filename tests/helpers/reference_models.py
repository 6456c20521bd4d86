"""What tests of reference cases share: stored inputs and settings in our words, and comparisons under our names."""

from typing import Any

import torch
from foreign_layout import translate_state_dict
from reference_cases import Case
from torch import Tensor

from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.engine.distributed import Runtime
from vidstill.models.decoder import DecoderConfig, DecoderTrunk
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig


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


def hold_table(case: Case, result: Tensor, name: str) -> None:
    """A computed table is the stored one: made in float64 and stored in float32, for which cases state no tolerance."""
    torch.testing.assert_close(result, case.tensors[name], rtol=0, atol=1e-6, msg=name)


def hold_gradients(case: Case, module: torch.nn.Module, names: tuple[RenameRule, ...], prefix: str = "grad") -> None:
    """Every gradient that the reference has equals ours, and none of theirs is left out."""
    result = dict(module.named_parameters())
    without = set(case.json.get("parameters_without_gradient", ()))
    reference = {name: grad for name, grad in case.under(prefix).items() if name not in without}
    assert reference
    for name, grad in translate_state_dict(reference, names).items():
        assert result[name].grad is not None, name
        case.hold_value(result[name].grad, grad, name, "gradients")


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
    norm = runtime.clip_grad_norm(module, optimizer, longest)
    runtime.step_optimizer(optimizer, accept=True)
    return norm.item()


def hold_weights(case: Case, module: torch.nn.Module, names: tuple[RenameRule, ...]) -> None:
    """Every weight that the reference has after the last step equals ours."""
    result, reference = dict(module.named_parameters()), translate_state_dict(case.under("after"), names)
    assert reference
    for name, weight in reference.items():
        case.hold_value(result[name].detach(), weight, name, "after")
