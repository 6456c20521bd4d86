"""What a trained encoder makes of clips: features of any layer, pooled, and the scores of a fine-tuned model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Num
from torch import Tensor, nn

from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import SegmentSampling, TimedSampling
from vidstill.engine.distributed import Runtime
from vidstill.models.vit import ViT
from vidstill.tasks.classification import Classifier
from vidstill.tasks.metrics.accuracy import merge_views
from vidstill.utils.types import Grid, InputError

_SEGMENT_CLIP_SECONDS = 4.0  # of a model that looks at whole videos: as long as Something-Something's usually are


Pooling = Literal["mean", "max", "class", "space", "time", "tokens"]


@dataclass(frozen=True)
class ClipEncoder:
    """A frozen encoder on its device, with what it was trained to look at.

    Args:
        norm: what comes behind the encoder's blocks where the encoder has no final norm of its own: its classifier's.
        classifier: the fine-tuned model that the encoder is of, if it is of one; `classes` are its classes' names.
        views: one view of a video, as it was trained to see them; how many more there are, who asks decides.
        test_views: all the views that its classifier is tested with.
    """

    model: ViT
    norm: nn.Module
    classifier: Classifier | None
    classes: tuple[str, ...]
    views: ViewsConfig
    source: str
    runtime: Runtime
    device_batch: int | None = None  # clips that the device takes at once; None: all that there are
    test_views: ViewsConfig | None = None

    @property
    def dim(self) -> int:
        return self.model.config.dim

    def clip_seconds(self, frame_rate: float) -> float:
        """How long a clip is that it was trained on, in a video of so many frames per second."""
        sampling = self.views.sampling
        if isinstance(sampling, SegmentSampling):
            return _SEGMENT_CLIP_SECONDS
        return (
            sampling.num_frames
            * sampling.stride
            / (sampling.frame_rate if isinstance(sampling, TimedSampling) else frame_rate)
        )

    def name_outputs(self, layers: Sequence[int]) -> tuple[str, ...]:
        """What the outputs of layers are called: `final` where none are named, else `block_6` and so on, each once.

        Raises:
            InputError: a block is named that is not there.
        """
        return tuple(f"block_{block}" for block in self._resolve_blocks(layers)) or ("final",)

    def extract_features(
        self, clips: Num[Tensor, "b 3 t h w"], *, layers: Sequence[int] = (), pool: Pooling = "mean"
    ) -> dict[str, Float[Tensor, "b ..."]]:
        """What it makes of clips, on the CPU in float32, by name: `final`, or `block_6` for each layer.

        Args:
            clips: bytes, or colours in [0, 1].
            layers: blocks counted from 1, or backwards from -1, whose outputs are wanted; none: the final output, after
                the last norm (of a fine-tuned model's mean: what enters its head).

        Raises:
            InputError: a block or a class token is asked for that is not there.
        """
        parts = [self._extract_features(part, layers, pool) for part in clips.split(self.device_batch or len(clips))]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def predict_logits(self, clips: Num[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """The logits of clips, bytes or colours in [0, 1], on the CPU in float32.

        Raises:
            InputError: it was not fine-tuned.
        """
        classifier = self.require_classifier()[0]
        with torch.inference_mode(), self.runtime.autocast():
            parts = clips.split(self.device_batch or len(clips))
            return torch.cat([classifier(self._scale_pixels(part)).float().cpu() for part in parts])

    def require_classifier(self) -> tuple[Classifier, ViewsConfig]:
        """The classifier and all the views that it is tested with.

        Raises:
            InputError: it was not fine-tuned.
        """
        if self.classifier is None or self.test_views is None:
            raise InputError(
                f"{self.source} has no classes; fine-tune it first: vidstill finetune … --init {self.source}"
            )
        return self.classifier, self.test_views

    def predict_probabilities(self, clips: Num[Tensor, "v 3 t h w"]) -> Float[Tensor, "classes"]:
        """How probable each class is by all of these views of a video, merged as in a test, in float64."""
        return self.merge_views(self.predict_logits(clips))

    @property
    def multi_label(self) -> bool:
        """Whether a clip may show several classes: then each has a probability of its own."""
        return self.classifier is not None and self.classifier.config.multi_label

    def merge_views(self, logits: Float[Tensor, "views classes"]) -> Float[Tensor, "classes"]:
        """What a test makes of the logits of a video's views."""
        return merge_views(logits, multi_label=self.multi_label)

    def _extract_features(self, clips: Tensor, layers: Sequence[int], pool: Pooling) -> dict[str, Tensor]:
        self.check_pool(pool)
        blocks = self._resolve_blocks(layers)
        with torch.inference_mode(), self.runtime.autocast():
            clip = self._scale_pixels(clips)
            grid = self.model.grid(clip)
            if blocks:
                seen = self.model(clip, layers=blocks, intermediates_only=True)
                found = {f"block_{b}": pool_tokens(seen.layers[b], seen.cls_layers[b], grid, pool) for b in blocks}
            elif self.classifier is not None and pool == "mean":
                found = {"final": self.classifier.forward_features(clip)}
            else:
                final = self.model(clip)
                found = {"final": pool_tokens(self.norm(final.tokens), self.norm(final.cls_token), grid, pool)}
        return {name: each.float().cpu() for name, each in found.items()}

    def check_pool(self, pool: Pooling) -> None:
        """Raises an InputError where a class token is asked for that is not there."""
        if pool == "class" and self.model.cls_token is None:
            raise InputError(f"{self.source} has no class token; take the mean of its tokens")

    def _resolve_blocks(self, layers: Sequence[int]) -> list[int]:
        depth = len(self.model.blocks)
        for number in layers:
            if not 1 <= abs(number) <= depth:
                raise InputError(
                    f"block {number} is asked of an encoder of {depth} blocks; take 1 to {depth}, or -1 for the last"
                )
        return list(dict.fromkeys(number if number > 0 else depth + 1 + number for number in layers))

    def _scale_pixels(self, clips: Tensor) -> Tensor:
        here = clips.to(self.runtime.device)
        return here.float().div_(255) if here.dtype == torch.uint8 else here


def pool_tokens(
    tokens: Float[Tensor, "b n d"], cls_tokens: Float[Tensor, "b k d"], grid: Grid, pool: Pooling
) -> Float[Tensor, "b ..."]:
    """What is kept of the tokens of a grid.

    Args:
        cls_tokens: the class token, if there is one: k is 0 or 1; it has to be there to be asked for.
    """
    sides = {"t": grid.t, "h": grid.h, "w": grid.w}
    match pool:
        case "mean":
            return tokens.mean(dim=1)
        case "max":
            return tokens.amax(dim=1)
        case "class":
            return cls_tokens[:, 0]
        case "space":
            return reduce(tokens, "b (t h w) d -> b t d", "mean", **sides)
        case "time":
            return reduce(tokens, "b (t h w) d -> b h w d", "mean", **sides)
        case "tokens":
            return rearrange(tokens, "b (t h w) d -> b t h w d", **sides)
