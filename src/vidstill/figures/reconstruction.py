"""What a student saw of a clip and what it made of the rest, as a picture that does not leak the truth."""

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

_MASK_GREY = 0.55  # of what the student does not see
_TIME_DISTANCE = 1e6  # how far a tubelet of another moment is: it counts only where a moment shows nothing
_BACKGROUND_COLOR, _TEXT_COLOR = (255, 255, 255), (82, 82, 91)


@runtime_checkable
class PixelReconstructionMethod(Protocol):
    """A method that rebuilds pixels; its `config` has a `mask` and a `target`."""

    encoder: ViT
    decoder: Decoder
    config: Any


def describe_pixel_source(target: PixelTarget) -> str:
    """What a caption has to say of a picture: where its pixels are from."""
    if target in ("raw", "input"):
        return "No hidden pixel is in the rebuilt row: the model guesses their colours."
    return (
        "No hidden pixel is in the rebuilt row. The model guesses patterns of zero mean and unit deviation; the "
        "brightness and contrast that they are shown with are interpolated from the visible tubelets of the same "
        "moment, not taken from the hidden ones."
    )


@dataclass(frozen=True)
class Reconstruction:
    """Clips of colours in [0, 1]."""

    original: Float[Tensor, "b 3 t h w"]
    visible: Float[Tensor, "b 3 t h w"]  # grey where the student is blind
    reconstruction: Float[Tensor, "b 3 t h w"]  # what it saw, and its guesses


@torch.no_grad()
def reconstruct_clips(
    method: PixelReconstructionMethod, clip: Float[Tensor, "b 3 t h w"], seeds: Int[Tensor, "b"]
) -> Reconstruction:
    """What the method, whose mode is left as it is, makes of clips under the masks of these seeds."""
    tubelet, kind = method.encoder.config.tubelet, method.config.target
    grid = method.encoder.grid(clip)
    mask = method.config.mask.draw(seeds, grid)
    student = method.encoder(clip, mask.visible)
    guess = method.decoder(student.tokens, mask.visible, mask.masked, grid, student.cls_token).float()
    shown = gather_pixels(clip, tubelet, mask.visible)
    colours = _repeat_frames(_to_colors(guess, shown, mask, grid, method.encoder.config, kind), tubelet)
    return Reconstruction(
        original=clip,
        visible=_assemble_clip(shown, torch.full_like(colours, _MASK_GREY), mask.visible, mask.masked, grid, tubelet),
        reconstruction=_assemble_clip(shown, colours.clamp(0, 1), mask.visible, mask.masked, grid, tubelet),
    )


def draw_reconstruction(reconstruction: Reconstruction, *, num_columns: int = 8, frame_size: int = 96) -> bytes:
    """A PNG: for each clip a row of its frames, of what was seen and of what was rebuilt.

    Args:
        num_columns: frames that are shown, evenly spread, where there are so many.
        frame_size: the length of a frame's shorter side, in pixels.
    """
    b, _, t, h, w = reconstruction.original.shape
    scale = max(1, round(frame_size / min(h, w)))
    high, wide, gap = h * scale, w * scale, max(2, frame_size // 24)
    frames = torch.linspace(0, t - 1, min(num_columns, t)).round().long().tolist()
    font = ImageFont.load_default(size=frame_size / 4.5)
    rows = {"clip": reconstruction.original, "seen": reconstruction.visible, "rebuilt": reconstruction.reconstruction}
    left = round(max(font.getlength(name) for name in rows)) + 4 * gap
    block = len(rows) * (high + gap) + 4 * gap
    sheet = Image.new("RGB", (left + len(frames) * (wide + gap), b * block - 5 * gap), _BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    for clip in range(b):
        for line, (name, shown) in enumerate(rows.items()):
            top = clip * block + line * (high + gap)
            draw.text((left - 3 * gap, top + high / 2), name, font=font, fill=_TEXT_COLOR, anchor="rm")
            bytes_ = (shown[clip].float().cpu() * 255).round().byte()
            for column, frame in enumerate(frames):
                image = Image.fromarray(rearrange(bytes_[:, frame], "c h w -> h w c").contiguous().numpy())
                sheet.paste(image.resize((wide, high), Image.Resampling.NEAREST), (left + column * (wide + gap), top))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _to_colors(
    guess: Float[Tensor, "b m p"],
    shown: Float[Tensor, "b v q"],
    mask: Mask,
    grid: Grid,
    model: ViTConfig,
    kind: PixelTarget,
) -> Float[Tensor, "b m p"]:
    """The guesses as colours: with a mean and a deviation that come from visible tubelets alone."""
    if kind == "raw":
        return guess
    if kind == "input":
        return denormalize_input(guess, model)
    channels = 3 if kind == "per_channel" else 1
    seen = rearrange(
        shown if kind == "per_channel" else normalize_input(shown, model), "b v (p c) -> b v p c", c=channels
    )
    nearness = _compute_interpolation_weights(mask.masked, mask.visible, grid)
    mean = nearness @ seen.mean(dim=2)
    deviation = nearness @ seen.std(dim=2)
    patterns = rearrange(guess, "b m (p c) -> b m p c", c=channels)
    rows = rearrange(patterns * deviation[:, :, None] + mean[:, :, None], "b m p c -> b m (p c)")
    return rows if kind == "per_channel" else denormalize_input(rows, model)


def _repeat_frames(rows: Float[Tensor, "b m p"], tubelet: Tubelet) -> Float[Tensor, "b m q"]:
    """Whole tubelets, where only some of their frames are guessed (ST-MAE): each stands until the next one."""
    t, h, w = tubelet
    guessed = rows.shape[-1] // (3 * h * w)
    return repeat(rows, "b m (u p) -> b m (u r p)", u=guessed, r=t // guessed)


def _compute_interpolation_weights(
    masked: Int[Tensor, "b m"], visible: Int[Tensor, "b v"], grid: Grid
) -> Float[Tensor, "b m v"]:
    """Weights that sum to 1, inversely as the squared distance in tokens (Shepard's interpolation)."""
    ours, theirs = _compute_token_coordinates(masked, grid), _compute_token_coordinates(visible, grid)
    weights = 1 / (ours[:, :, None] - theirs[:, None]).square().sum(dim=-1)
    return weights / weights.sum(dim=-1, keepdim=True)


def _compute_token_coordinates(places: Int[Tensor, "b k"], grid: Grid) -> Float[Tensor, "b k 3"]:
    slot, place = places // (grid.h * grid.w), places % (grid.h * grid.w)
    return torch.stack([slot * _TIME_DISTANCE, place // grid.w, place % grid.w], dim=-1).float()


def _assemble_clip(
    shown: Float[Tensor, "b v p"],
    others: Float[Tensor, "b m p"],
    visible: Int[Tensor, "b v"],
    masked: Int[Tensor, "b m"],
    grid: Grid,
    tubelet: Tubelet,
) -> Float[Tensor, "b 3 t h w"]:
    """Tubelets put back in their places."""
    t, h, w = tubelet
    order = torch.cat([visible, masked], dim=1).argsort(dim=1)
    tokens = torch.take_along_dim(torch.cat([shown, others], dim=1), order[..., None], dim=1)
    return rearrange(
        tokens,
        "b (gt gh gw) (t h w c) -> b c (gt t) (gh h) (gw w)",
        gt=grid.t, gh=grid.h, gw=grid.w, t=t, h=h, w=w,
    )  # fmt: skip
