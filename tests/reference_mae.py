"""What tests of image MAE's and DMAE's cases share: settings, masks and images in our words, comparisons in theirs."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from foreign_layout import in_their_words
from reference_cases import Case
from reference_models import colours, places, take_step
from vidstill.engine.optim import AdamWConfig
from vidstill.engine.runtime import Runtime
from vidstill.methods.dmae import DMAE
from vidstill.methods.imagemae import ImageMAE, ImageMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.positions import position_table
from vidstill.models.vit import ViTConfig
from vidstill.pretext.masks import Mask, RandomMask
from vidstill.pretext.targets import PixelTarget
from vidstill.types import Grid, take
from vidstill.weights.names import Name, mae_names
from vidstill.weights.transfer import load_exactly, translated


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
    return DecoderConfig(
        dim=config["decoder_embed_dim"],
        depth=config["decoder_depth"],
        heads=config["decoder_num_heads"],
        mlp_ratio=config.get("mlp_ratio", 4.0),
        positions="sincos2d",
        class_token="encoder",
        project_bias=True,
        attention_bias="qkv",
    )


def target(config: dict[str, Any]) -> PixelTarget:
    return "per_patch" if config["norm_pix_loss"] else "input"


def imagemae(config: dict[str, Any], weights: dict[str, Tensor], source: str) -> ImageMAE:
    ours = ImageMAEConfig(
        encoder=encoder_config(config),
        decoder=decoder_config(config),
        mask=RandomMask(ratio=config.get("mask_ratio", 0.75)),
        target=target(config),
    )
    method = ours.build()
    load_exactly(method, translated(weights, mae_names(ours.encoder)), source)
    return method


def clip(case: Case, name: str = "input/image") -> Tensor:
    """A stored image as a clip of one frame, before ImageNet's mean and deviation were taken off."""
    return colours(case.tensors[name][:, :, None])


def mask_by(noise: Tensor, ratio: float) -> Mask:
    """The tokens with the least noise are kept: as many as our own mask shows."""
    kept = RandomMask(ratio=ratio).draw(torch.arange(len(noise)), Grid(1, 1, noise.shape[1])).visible.shape[1]
    hidden = (_ranks(noise) >= kept).int()
    return Mask(places(hidden, 0), places(hidden, 1))


def stored_mask(case: Case) -> Mask:
    """The mask of a forward case; what is stored of it says the same."""
    noise, kept = case.tensors["mask/noise"], case.json["config"]["len_keep"]
    mask = mask_by(noise, case.json["config"]["mask_ratio"])
    assert torch.equal(case.tensors["mask/ids_restore"], _ranks(noise))
    assert torch.equal(case.tensors["mask/ids_keep"], noise.argsort(dim=1)[:, :kept])
    assert torch.equal(mask.visible, case.tensors["mask/ids_keep"].sort(dim=1).values)
    assert torch.equal(mask.masked, places(case.tensors["mask/mask"], 1))
    return mask


def _ranks(noise: Tensor) -> Tensor:
    return noise.argsort(dim=1).argsort(dim=1)


def predictions(method: ImageMAE | DMAE, image: Tensor, mask: Mask) -> Tensor:
    """What the decoder makes of every token, of the seen ones too, in grid order."""
    seen, decoder = method.encoder(image, mask.visible), method.decoder
    tokens, first = decoder.project(seen.tokens), decoder.project(seen.classes)
    joined = decoder.infill.joined(tokens, mask.visible, mask.masked, method.encoder.grid(image), first)
    rows = decoder.head(decoder.norm(decoder.infill.through(joined)))[:, 1:]
    return take(rows, torch.cat([mask.visible, mask.masked], dim=1).argsort(dim=1))


def picture(rows: Tensor, grid: Grid, patch: int) -> Tensor:
    return rearrange(rows, "b (h w) (p q c) -> b c (h p) (w q)", h=grid.h, p=patch, q=patch)


def hold_gradients(case: Case, module: torch.nn.Module, names: tuple[Name, ...]) -> None:
    """Every gradient that is stored equals ours, and the norm of every parameter's."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    ours = in_their_words({name: p.grad for name, p in trained.items()}, names)
    assert ours.keys() == case.json["grad_norms"].keys()
    for name, norm in case.json["grad_norms"].items():
        case.hold_each(ours[name].norm(), torch.tensor(norm), "grad")
    for name, gradient in case.under("grad").items():
        case.hold_each(ours[name], gradient, "grad")


def hold_steps(case: Case, method: ImageMAE | DMAE) -> None:
    """Losses, the gradients' lengths and the last weights of a training agree."""
    config, waiting = case.json["config"], []
    # released: only biases and what has one dimension there are not decayed
    optim = AdamWConfig(base_lr=1.0, betas=(0.9, 0.95), weight_decay=config["weight_decay"], undecayed=())
    optimizer, runtime = optim.build(method), Runtime("fp32")
    for step, (rate, length) in enumerate(zip(case.json["lr"], case.json["grad_norm"], strict=True)):
        mask = mask_by(case.tensors[f"mask/noise_{step}"], config["mask_ratio"])
        output = method(clip(case, f"input/image_{step}"), mask=mask)
        stored = [value for name, value in case.json["losses"].items() if name.split("_")[0] == f"step{step}"]
        case.hold_each(output.parts["reconstruction"].detach(), torch.tensor(stored[0]), "loss")
        case.hold_each(output.loss.detach(), torch.tensor(sum(stored)), "loss")
        waiting.append(output.loss)
        if length is None:  # of a step with several batches, this was not the last
            continue
        norm = take_step(optimizer, runtime, method, torch.stack(waiting).mean(), rate, None)
        case.hold_each(torch.tensor(norm), torch.tensor(length), "grad_norm")
        waiting.clear()
    hold_final(case, method, method.encoder.grid(clip(case, "input/image_0")))


def hold_final(case: Case, method: ImageMAE | DMAE, grid: Grid) -> None:
    """Every weight that is stored after the last step equals ours, the computed tables too."""
    ours = in_their_words(method.state_dict(), mae_names(method.config.encoder))
    theirs, limits = case.under("final"), case.json["tolerance"]
    for name, width in (("pos_embed", method.config.encoder.dim), ("decoder_pos_embed", method.config.decoder.dim)):
        table = position_table("sincos2d", grid, width, torch.device("cpu"))
        ours[name] = torch.cat([torch.zeros(1, width), table])[None]
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        apart = (ours[name].double() - weight.double()).abs()
        if name in limits["loose_final"]:
            assert apart.max() <= limits["loose_final"][name], name
            continue
        near = apart <= limits["final"]["atol"] + limits["final"]["rtol"] * weight.double().abs()
        assert near.double().mean() >= limits["final"]["fraction"], name
        assert apart.max() <= limits["final"]["atol_all"], name
