"""Attentive probe: cross-attention from one learned query to all tokens of a frozen encoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.engine.lr_schedule import LRSchedule
from vidstill.models.layers import NORM_EPS, choose_num_heads
from vidstill.utils.rng import numpy_rng

ATTENTIVE_BATCH_SIZE = 64  # or all clips, if there are fewer
ATTENTIVE_EPOCHS = 20  # or more, to reach the minimum number of steps
ATTENTIVE_MIN_STEPS = 1000
ATTENTIVE_LR = 1e-3
ATTENTIVE_WEIGHT_DECAY = 0.01
_WARMUP_FRACTION = 0.1  # of the steps


@dataclass(frozen=True)
class FeatureDataset:
    """Each clip's vector or tokens, in memory or memory-mapped: some rows of a table, and their labels."""

    table: Float[np.ndarray, "rows *dims"]
    row_indices: Int[np.ndarray, "clips"]
    labels: Int[Tensor, "clips"]

    def __len__(self) -> int:
        return len(self.row_indices)

    def load_batch(self, indices: Int[np.ndarray, "b"]) -> Float[Tensor, "b *dims"]:
        return torch.from_numpy(self.table[self.row_indices[indices]]).float()


class AttentiveProbe(nn.Module):
    """LayerNorm, multi-head cross-attention from one learned query to the tokens, LayerNorm, linear layer.

    After CAE (arXiv:2202.03026) and V-JEPA (arXiv:2404.08471), whose heads differ in detail: V-JEPA adds the query to
    the attention's output, and an MLP after that.
    """

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.num_heads = choose_num_heads(dim)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.query = nn.Parameter(0.02 * torch.randn(dim))
        self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(3))
        self.out_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)
        for linear in (self.key, self.value, self.out, self.head):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b classes"]:
        """Return the logits; the order of the tokens makes no difference."""
        tokens = self.norm(tokens)
        query = self.query.expand(len(tokens), 1, -1)
        query, key, value = (
            rearrange(each, "b n (heads d) -> b heads n d", heads=self.num_heads)
            for each in (query, self.key(tokens), self.value(tokens))
        )
        pooled = rearrange(F.scaled_dot_product_attention(query, key, value), "b heads 1 d -> b (heads d)")
        return self.head(self.out_norm(self.out(pooled)))


def fit_attentive_probe(
    tokens: FeatureDataset,
    num_classes: int,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AttentiveProbe:
    """Train a probe by AdamW with a warm-up and a cosine, and return it in eval mode.

    Args:
        seed: Of the initial weights and of the order of the clips.
        progress: Is called with the completed and the total steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttentiveProbe(tokens.table.shape[-1], num_classes)
    probe.to(device).train()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=ATTENTIVE_LR, weight_decay=ATTENTIVE_WEIGHT_DECAY)
    size = min(ATTENTIVE_BATCH_SIZE, len(tokens))
    epoch_steps = len(tokens) // size
    steps = max(ATTENTIVE_EPOCHS, math.ceil(ATTENTIVE_MIN_STEPS / epoch_steps)) * epoch_steps
    warmup_steps = int(_WARMUP_FRACTION * steps)
    schedule = LRSchedule(peak_lr=ATTENTIVE_LR, min_lr=0.0, cosine_steps=steps, warmup_steps=warmup_steps)
    labels = tokens.labels.to(device)
    for step in range(steps):
        epoch, nth = divmod(step, epoch_steps)
        if nth == 0:
            order = numpy_rng(seed, f"attentive {epoch}").permutation(len(tokens))
        batch = order[nth * size : (nth + 1) * size]
        for group in optimizer.param_groups:
            group["lr"] = schedule.compute_lr(step)
        with torch.enable_grad():
            logits = probe(tokens.load_batch(batch).to(device))
            F.cross_entropy(logits, labels[torch.from_numpy(batch).to(device)]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress(step + 1, steps)
    return probe.eval()


@torch.no_grad()
def compute_attentive_logits(probe: AttentiveProbe, tokens: FeatureDataset) -> Float[Tensor, "clips classes"]:
    """Return the logits of all clips, on the CPU."""
    device = probe.query.device
    parts = np.array_split(np.arange(len(tokens)), math.ceil(len(tokens) / ATTENTIVE_BATCH_SIZE))
    return torch.cat([probe(tokens.load_batch(part).to(device)).cpu() for part in parts])
