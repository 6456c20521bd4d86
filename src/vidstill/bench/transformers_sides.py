"""The same training step and forward pass by transformers' VideoMAE, where it is installed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import VideoMAEConfig as PeerConfig
from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification

from vidstill.bench.forward_sides import ForwardWork
from vidstill.bench.side import Side
from vidstill.bench.training_sides import (
    PlainStep,
    StepWork,
    draw_masks,
    draw_normalized_clips,
    list_decay_groups,
    start_plain_process,
)
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig


class TransformersStep(PlainStep):
    """A step of transformers' VideoMAE with the optimizer of its trainer, the fused AdamW."""

    def __init__(self, work: StepWork):
        device = start_plain_process(work.precision)
        model = build_peer(work.model_config, work.clip_size).train().to(device)
        inputs = {"pixel_values": draw_normalized_clips(work.batch, work.clip_size, device).transpose(1, 2)}
        for name, value in draw_masks(work, device).items():
            inputs[{"masked": "bool_masked_pos", "label": "labels"}[name]] = value
        optimizer = AdamW(list_decay_groups(model, work.recipe.optim), fused=device.type in ("cpu", "cuda"))
        super().__init__(work, device, model, inputs, optimizer)

    def compute_loss(self) -> Tensor:
        return self.model(**self.inputs).loss


class TransformersForward(Side):
    """The forward pass of transformers' classifier, whose weights are in the precision, as its users load them."""

    def __init__(self, work: ForwardWork):
        super().__init__(start_plain_process(work.precision))
        dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
        self.model = build_peer(work.model_config, work.clip_size).eval().to(self.device, dtype)
        clips = draw_normalized_clips(work.batch, work.clip_size, self.device)
        self.clips = clips.transpose(1, 2).to(dtype)

    @torch.inference_mode()
    def run(self) -> None:
        self.model(self.clips).logits.float().cpu()


def build_peer(config: VideoMAEConfig | ClassifierConfig, clip_size: tuple[int, int, int]) -> nn.Module:
    """Build transformers' model of the same sizes, of random weights."""
    frames, size, _ = clip_size
    encoder: ViTConfig = config.encoder
    values: dict[str, Any] = {
        "image_size": size,
        "num_frames": frames,
        "patch_size": encoder.tubelet[1],
        "tubelet_size": encoder.tubelet[0],
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": int(encoder.dim * encoder.mlp_ratio),
        "layer_norm_eps": encoder.norm_eps,
    }
    torch.manual_seed(0)
    if isinstance(config, ClassifierConfig):
        return VideoMAEForVideoClassification(PeerConfig(**values, num_labels=config.num_classes))
    decoder = config.decoder
    values |= {
        "decoder_hidden_size": decoder.dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": int(decoder.dim * decoder.mlp_ratio),
        "norm_pix_loss": config.target == "per_channel",
    }
    return VideoMAEForPreTraining(PeerConfig(**values))
