"""What a student sees of a clip and what it reconstructs, as an image that does not leak the masked pixels."""

import io
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vidstill.methods.common.masking import Mask
from vidstill.methods.common.targets import PixelTarget, denormalize_input, gather_pixels, normalize_input
from vidstill.models.decoder import Decoder
from vidstill.models.vit import ViT, ViTConfig
from vidstill.utils.types import Grid, gather_tokens

_MASK_GREY = 0.55  # shown at masked tubelets
_TIME_DISTANCE = 1e6  # between tubelets of different times: such neighbours count only where a time has no visible one
_BACKGROUND_COLOR, _TEXT_COLOR = (255, 255, 255), (82, 82, 91)


@runtime_checkable
class PixelReconstructionMethod(Protocol):
    """A method that reconstructs pixels; its `config` has a `mask` and a `target`."""

    encoder: ViT
    decoder: Decoder
    config: Any


def describe_pixel_source(target: PixelTarget) -> str:
    """Return the sentences of a caption that say where the pixels of a reconstruction come from."""
    if target in ("raw", "input"):
        return "The reconstructed row holds no masked pixel: the model predicts their colours."
    return (
        "The reconstructed row holds no masked pixel. The model predicts patterns of zero mean and unit standard "
        "deviation; the brightness and contrast that they are shown with are interpolated from the visible tubelets of "
        "the same time, not taken from the masked ones."
    )


class Reconstruction(NamedTuple):
    """Clips with colours in [0, 1]."""

    original: Float[Tensor, "b 3 t h w"]
    visible: Float[Tensor, "b 3 t h w"]  # grey at masked tubelets
    reconstruction: Float[Tensor, "b 3 t h w"]  # visible tubelets and predictions


@torch.no_grad()
def reconstruct_clips(
    method: PixelReconstructionMethod, clip: Float[Tensor, "b 3 t h w"], seeds: Int[Tensor, "b"]
) -> Reconstruction:
    """Reconstruct clips under the masks of these seeds; the method's train or eval mode is not changed."""
    config, target, grid = method.encoder.config, method.config.target, method.encoder.grid(clip)
    t, h, w = config.tubelet
    mask = method.config.mask.draw(seeds, grid)
    prediction = method.decoder(method.encoder(clip, mask.visible), mask.visible, mask.masked, grid).float()
    visible = gather_pixels(clip, config.tubelet, mask.visible)
    colors = _to_colors(prediction, visible, mask, grid, config, target)
    num_frames = colors.shape[-1] // (3 * h * w)  # ST-MAE predicts some frames: each is repeated until the next one
    colors = repeat(colors, "b m (u p) -> b m (u r p)", u=num_frames, r=t // num_frames)
    order = torch.cat([mask.visible, mask.masked], dim=1).argsort(dim=1)

    def assemble(masked: Float[Tensor, "b m p"]) -> Float[Tensor, "b 3 t h w"]:
        tokens = gather_tokens(torch.cat([visible, masked], dim=1), order)
        pattern = "b (gt gh gw) (t h w c) -> b c (gt t) (gh h) (gw w)"
        return rearrange(tokens, pattern, gt=grid.t, gh=grid.h, gw=grid.w, t=t, h=h, w=w)

    return Reconstruction(clip, assemble(torch.full_like(colors, _MASK_GREY)), assemble(colors.clamp(0, 1)))


def draw_reconstruction(reconstruction: Reconstruction, *, num_columns: int = 8, frame_size: int = 96) -> bytes:
    """Return a PNG with three rows per clip: its frames, the visible tubelets, the reconstruction.

    Args:
        num_columns: Frames per clip, evenly spaced; all frames if the clip has fewer.
        frame_size: The shorter side of a frame, in pixels.
    """
    b, _, t, h, w = reconstruction.original.shape
    scale = max(1, round(frame_size / min(h, w)))
    height, width, gap = h * scale, w * scale, max(2, frame_size // 24)
    frames = torch.linspace(0, t - 1, min(num_columns, t)).round().long().tolist()
    font, names = ImageFont.load_default(size=frame_size / 4.5), ("clip", "visible", "reconstructed")
    left = round(max(map(font.getlength, names))) + 4 * gap
    clip_height = len(names) * (height + gap) + 4 * gap
    sheet = Image.new("RGB", (left + len(frames) * (width + gap), b * clip_height - 5 * gap), _BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    for row, (name, clips) in enumerate(zip(names, reconstruction, strict=True)):
        pixels = rearrange(clips[:, :, frames].float().cpu() * 255, "b c t h w -> b t h w c").round().byte().numpy()
        for number, images in enumerate(pixels):
            top = number * clip_height + row * (height + gap)
            draw.text((left - 3 * gap, top + height / 2), name, font=font, fill=_TEXT_COLOR, anchor="rm")
            for column, image in enumerate(images):
                resized = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(resized, (left + column * (width + gap), top))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _to_colors(
    prediction: Float[Tensor, "b m p"],
    visible: Float[Tensor, "b v q"],
    mask: Mask,
    grid: Grid,
    config: ViTConfig,
    target: PixelTarget,
) -> Float[Tensor, "b m p"]:
    """Return predictions as colours: the mean and standard deviation come from visible tubelets alone."""
    if target == "raw":
        return prediction
    if target == "input":
        return denormalize_input(prediction, config)
    channels = 3 if target == "per_channel" else 1
    pixels = visible if target == "per_channel" else normalize_input(visible, config)
    pixels = rearrange(pixels, "b v (p c) -> b v p c", c=channels)
    weights = _compute_interpolation_weights(mask.masked, mask.visible, grid)
    mean, std = weights @ pixels.mean(dim=2), weights @ pixels.std(dim=2)
    patterns = rearrange(prediction, "b m (p c) -> b m p c", c=channels)
    colors = rearrange(patterns * std[:, :, None] + mean[:, :, None], "b m p c -> b m (p c)")
    return colors if target == "per_channel" else denormalize_input(colors, config)


def _compute_interpolation_weights(
    masked: Int[Tensor, "b m"], visible: Int[Tensor, "b v"], grid: Grid
) -> Float[Tensor, "b m v"]:
    """Return inverse squared distances in tokens, normalized to sum to 1 (Shepard's interpolation)."""
    from_, to = _compute_token_coordinates(masked, grid), _compute_token_coordinates(visible, grid)
    weights = 1 / (from_[:, :, None] - to[:, None]).square().sum(dim=-1)
    return weights / weights.sum(dim=-1, keepdim=True)


def _compute_token_coordinates(indices: Int[Tensor, "b k"], grid: Grid) -> Float[Tensor, "b k 3"]:
    slot, position = indices // (grid.h * grid.w), indices % (grid.h * grid.w)
    return torch.stack([slot * _TIME_DISTANCE, position // grid.w, position % grid.w], dim=-1).float()
