"""What a student sees of a clip and what it reconstructs, as an image that does not leak the masked pixels."""

import io
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vidstill.methods.common.masking import Mask
from vidstill.methods.common.targets import PixelTarget, denormalize_input, gather_pixels, normalize_input
from vidstill.models.decoder import Decoder
from vidstill.models.vit import ViT, ViTConfig
from vidstill.utils.types import Grid, Tubelet

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


@dataclass(frozen=True)
class Reconstruction:
    """Clips with colours in [0, 1]."""

    original: Float[Tensor, "b 3 t h w"]
    visible: Float[Tensor, "b 3 t h w"]  # grey at masked tubelets
    reconstruction: Float[Tensor, "b 3 t h w"]  # visible tubelets and predictions


@torch.no_grad()
def reconstruct_clips(
    method: PixelReconstructionMethod, clip: Float[Tensor, "b 3 t h w"], seeds: Int[Tensor, "b"]
) -> Reconstruction:
    """Reconstruct clips under the masks of these seeds; the method's train or eval mode is not changed."""
    tubelet, target = method.encoder.config.tubelet, method.config.target
    grid = method.encoder.grid(clip)
    mask = method.config.mask.draw(seeds, grid)
    student = method.encoder(clip, mask.visible)
    prediction = method.decoder(student, mask.visible, mask.masked, grid).float()
    visible = gather_pixels(clip, tubelet, mask.visible)
    colors = _repeat_frames(_to_colors(prediction, visible, mask, grid, method.encoder.config, target), tubelet)
    grey = torch.full_like(colors, _MASK_GREY)
    return Reconstruction(
        original=clip,
        visible=_assemble_clip(visible, grey, mask.visible, mask.masked, grid, tubelet),
        reconstruction=_assemble_clip(visible, colors.clamp(0, 1), mask.visible, mask.masked, grid, tubelet),
    )


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
    font = ImageFont.load_default(size=frame_size / 4.5)
    rows = {
        "clip": reconstruction.original,
        "visible": reconstruction.visible,
        "reconstructed": reconstruction.reconstruction,
    }
    left = round(max(font.getlength(name) for name in rows)) + 4 * gap
    clip_height = len(rows) * (height + gap) + 4 * gap
    sheet = Image.new("RGB", (left + len(frames) * (width + gap), b * clip_height - 5 * gap), _BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    for clip in range(b):
        for row, (name, clips) in enumerate(rows.items()):
            top = clip * clip_height + row * (height + gap)
            draw.text((left - 3 * gap, top + height / 2), name, font=font, fill=_TEXT_COLOR, anchor="rm")
            pixels = (clips[clip].float().cpu() * 255).round().byte()
            for column, frame in enumerate(frames):
                image = Image.fromarray(rearrange(pixels[:, frame], "c h w -> h w c").contiguous().numpy())
                resized = image.resize((width, height), Image.Resampling.NEAREST)
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


def _repeat_frames(rows: Float[Tensor, "b m p"], tubelet: Tubelet) -> Float[Tensor, "b m q"]:
    """Return whole tubelets where only some frames are predicted (ST-MAE): each is repeated until the next one."""
    t, h, w = tubelet
    predicted_frames = rows.shape[-1] // (3 * h * w)
    return repeat(rows, "b m (u p) -> b m (u r p)", u=predicted_frames, r=t // predicted_frames)


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


def _assemble_clip(
    visible_pixels: Float[Tensor, "b v p"],
    masked_pixels: Float[Tensor, "b m p"],
    visible: Int[Tensor, "b v"],
    masked: Int[Tensor, "b m"],
    grid: Grid,
    tubelet: Tubelet,
) -> Float[Tensor, "b 3 t h w"]:
    """Put tubelets back in grid order and return the clip."""
    t, h, w = tubelet
    order = torch.cat([visible, masked], dim=1).argsort(dim=1)
    tokens = torch.take_along_dim(torch.cat([visible_pixels, masked_pixels], dim=1), order[..., None], dim=1)
    return rearrange(
        tokens,
        "b (gt gh gw) (t h w c) -> b c (gt t) (gh h) (gw w)",
        gt=grid.t, gh=grid.h, gw=grid.w, t=t, h=h, w=w,
    )  # fmt: skip
