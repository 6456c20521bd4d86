"""Linear probes: logistic regression on frozen features, and the head that MAE trains with LARS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import ViT
from vidstill.tasks.metrics.accuracy import Accuracy, compute_accuracy

DEFAULT_PENALTY = 1.0  # loss: summed cross-entropy + penalty / 2 · |W|², as usual for a logistic regression
PENALTY_GRID = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)  # in this order: each fit starts from the previous one
PENALTY_FOLDS = 5  # of the cross-validation that chooses a penalty

_ITERATIONS = 500  # far more than it takes to converge


class LinearProbeModel(nn.Module):
    """A frozen encoder and MAE's probe head, to be trained with LARS.

    The head is a batch norm without affine parameters and a linear layer (arXiv:2111.06377, appendix A.1) on the class
    token after the final norm, or on the mean of the tokens without a class token.

    Args:
        global_pool: The final norm comes after the mean of the tokens (MAE's `fc_norm`), whose input the class token is
            not; it is frozen, too.
    """

    def __init__(self, encoder: ViT, num_classes: int, *, global_pool: bool = False):
        super().__init__()
        self.global_pool = global_pool
        self.encoder = encoder.requires_grad_(False)
        self.norm = nn.BatchNorm1d(encoder.config.dim, eps=NORM_EPS, affine=False)
        self.head = nn.Linear(encoder.config.dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits of clips of colours in [0, 1]."""
        with torch.no_grad():
            features = self._pool_features(clip)
        return self.head(self.norm(features))

    def _pool_features(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b d"]:
        if self.global_pool:
            last = len(self.encoder.blocks)
            tokens = self.encoder(clip, layers=(last,), intermediates_only=True).layers[last]
            return self.encoder.norm(tokens.mean(dim=1))
        features = self.encoder(clip)
        return features.cls_token[:, 0] if features.cls_token.shape[1] else features.tokens.mean(dim=1)

    def train(self, mode: bool = True) -> "LinearProbeModel":
        """Set the head's mode; the encoder stays in eval mode (no drop path)."""
        super().train(mode)
        self.encoder.eval()
        return self


def evaluate_linear_probe(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, "n"],
    val_features: Float[Tensor, "m d"],
    val_labels: Int[Tensor, "m"],
    num_classes: int,
    *,
    penalty: float = DEFAULT_PENALTY,
) -> Accuracy:
    """Return the accuracy of a multinomial logistic regression of standardised features.

    Args:
        penalty: The weight of |W|² / 2 beside the summed cross-entropy.
    """
    fit = fit_logistic_regression(train_features, train_labels, num_classes, penalty)
    return compute_accuracy(fit.predict_logits(val_features), val_labels)


@dataclass(frozen=True)
class LogisticRegression:
    """A multinomial logistic regression; features are standardised by the training features' statistics."""

    mean: Float[Tensor, "d"]
    std: Float[Tensor, "d"]
    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, "classes"]

    def predict_logits(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m classes"]:
        """Return the logits in float64."""
        return F.linear((features - self.mean) / self.std, self.weight, self.bias)


def fit_logistic_regression(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    num_classes: int,
    penalty: float = DEFAULT_PENALTY,
    *,
    init: LogisticRegression | None = None,
) -> LogisticRegression:
    """Minimise summed cross-entropy + penalty / 2 · |W|² by L-BFGS in float64: convex, with a single optimum.

    Args:
        penalty: The weight of |W|² / 2.
        init: A fit of the same features to start from; None: zeros.
    """
    mean, std = features.double().mean(dim=0), features.double().std(dim=0)
    std = torch.where(std > 1e-8, std, 1.0)  # a constant channel has no information
    inputs = (features - mean) / std
    weight = inputs.new_zeros(num_classes, inputs.shape[1]) if init is None else init.weight.clone()
    bias = inputs.new_zeros(num_classes) if init is None else init.bias.clone()
    head = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(head, max_iter=_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        decay = penalty / 2 * weight.square().sum() / len(inputs)
        total = F.cross_entropy(F.linear(inputs, weight, bias), labels) + decay
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return LogisticRegression(mean, std, weight.detach(), bias.detach())


def choose_penalty(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    num_classes: int,
    *,
    candidates: Sequence[float] = PENALTY_GRID,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Choose the penalty with the most correct held-out predictions by cross-validation; ties go to the lower loss.

    If no class has two clips, nothing can be held out, and the penalty is `DEFAULT_PENALTY`.

    Args:
        progress: Is called with the completed and the total fits.
    """
    fold = assign_folds(labels)
    count = int(fold.max()) + 1
    if count < 2:
        return DEFAULT_PENALTY
    hits, losses = dict.fromkeys(candidates, 0.0), dict.fromkeys(candidates, 0.0)
    for held_fold in range(count):
        train, held = fold != held_fold, fold == held_fold
        fit = None
        for number, penalty in enumerate(candidates, start=1):
            fit = fit_logistic_regression(features[train], labels[train], num_classes, penalty, init=fit)
            logits = fit.predict_logits(features[held])
            hits[penalty] += (logits.argmax(dim=1) == labels[held]).sum().item()
            losses[penalty] += F.cross_entropy(logits, labels[held], reduction="sum").item()
            progress(held_fold * len(candidates) + number, count * len(candidates))
    return max(candidates, key=lambda penalty: (hits[penalty], -losses[penalty]))


def assign_folds(labels: Int[Tensor, "n"], num_folds: int = PENALTY_FOLDS) -> Int[Tensor, "n"]:
    """Return the fold of each clip: runs of each class's clips in list order, since neighbours often share a scene."""
    fold = torch.zeros_like(labels)
    sizes = labels.bincount()
    num_folds = min(num_folds, int(sizes.max()))
    for label in labels.unique():
        clips = (labels == label).nonzero()[:, 0]
        fold[clips] = torch.arange(len(clips), device=labels.device) * num_folds // len(clips)
    return fold
