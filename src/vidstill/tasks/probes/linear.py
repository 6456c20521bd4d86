"""Linear probes: how much of the classes a frozen encoder already tells apart."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import ViT
from vidstill.tasks.metrics.accuracy import Accuracy, compute_accuracy

DEFAULT_PENALTY = 1.0
"""Half of it times the squared weights stands beside the summed loss: what is usual for a logistic regression."""

PENALTY_GRID = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)
"""Those that one is chosen from; each fit starts where the one before it has ended."""

PENALTY_FOLDS = 5
"""Parts of the training features, each of which is held out once to choose a penalty."""

_ITERATIONS = 500  # far more than it takes to converge


class LinearProbeModel(nn.Module):
    """A frozen encoder and the head that MAE's authors probe it with, trained step by step with LARS.

    The head is a batch norm without factors of its own and a linear layer (arXiv:2111.06377, appendix A.1); it sees the
    class token after the final norm, or the mean of the tokens where there is no class token.
    """

    def __init__(self, encoder: ViT, num_classes: int):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.norm = nn.BatchNorm1d(encoder.config.dim, eps=NORM_EPS, affine=False)
        self.head = nn.Linear(encoder.config.dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """Logits of clips of colours in [0, 1]."""
        with torch.no_grad():
            seen = self.encoder(clip)
        return self.head(self.norm(seen.cls_token[:, 0] if seen.cls_token.shape[1] else seen.tokens.mean(dim=1)))

    def train(self, mode: bool = True) -> "LinearProbeModel":
        """The encoder drops no branch: it does not train."""
        super().train(mode)
        self.encoder.eval()
        return self


@torch.no_grad()
def extract_mean_features(
    encoder: ViT, batches: Iterable[tuple[Float[Tensor, "_ 3 t h w"], Int[Tensor, "_"]]]
) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
    """The mean over all tokens of the encoder's final output for each clip, and the labels."""
    training = encoder.training
    encoder.eval()
    pairs = [(encoder(clip).tokens.float().mean(dim=1).cpu(), label.cpu()) for clip, label in batches]
    encoder.train(training)
    vectors, labels = zip(*pairs, strict=True)
    return torch.cat(vectors), torch.cat(labels)


def evaluate_linear_probe(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, "n"],
    val_features: Float[Tensor, "m d"],
    val_labels: Int[Tensor, "m"],
    num_classes: int,
    *,
    penalty: float = DEFAULT_PENALTY,
) -> Accuracy:
    """The accuracy of a multinomial logistic regression, fitted to its optimum on standardised features."""
    return compute_accuracy(
        fit_logistic_regression(train_features, train_labels, num_classes, penalty).predict_logits(val_features),
        val_labels,
    )


@dataclass(frozen=True)
class LogisticRegression:
    """A multinomial logistic regression of features that are standardised as its training features are."""

    mean: Float[Tensor, "d"]
    std: Float[Tensor, "d"]
    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, "classes"]

    def predict_logits(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m classes"]:
        """Their logits, in float64."""
        return F.linear((features - self.mean) / self.std, self.weight, self.bias)


def fit_logistic_regression(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    num_classes: int,
    penalty: float = DEFAULT_PENALTY,
    *,
    init: LogisticRegression | None = None,
) -> LogisticRegression:
    """The optimum of summed cross-entropy + penalty / 2 · |W|², by L-BFGS in float64: convex, so there is only one.

    Args:
        init: a fit of the same features that is near it, where one is at hand; else it starts at zero.
    """
    mean, spread = features.double().mean(dim=0), features.double().std(dim=0)
    spread = torch.where(spread > 1e-8, spread, 1.0)  # a channel that never changes tells nothing
    inputs = (features - mean) / spread
    weight = inputs.new_zeros(num_classes, inputs.shape[1]) if init is None else init.weight.clone()
    bias = inputs.new_zeros(num_classes) if init is None else init.bias.clone()
    head = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(head, max_iter=_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        shrinking = penalty / 2 * weight.square().sum() / len(inputs)
        total = F.cross_entropy(F.linear(inputs, weight, bias), labels) + shrinking
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return LogisticRegression(mean, spread, weight.detach(), bias.detach())


def choose_penalty(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    num_classes: int,
    *,
    candidates: Sequence[float] = PENALTY_GRID,
    progress: Callable[[int, int], None] = lambda progress, of: None,
) -> float:
    """The penalty whose fits tell the most of what was held out of them; of equals, that with the lower loss there.

    Only the training features are looked at. Where no class has two of them, nothing can be held out: `DEFAULT_PENALTY`.

    Args:
        progress: is told how many fits there have been, of how many.
    """
    fold = assign_folds(labels)
    count = int(fold.max()) + 1
    if count < 2:
        return DEFAULT_PENALTY
    hits, losses = dict.fromkeys(candidates, 0.0), dict.fromkeys(candidates, 0.0)
    for out in range(count):
        kept, held = fold != out, fold == out
        fit = None
        for number, penalty in enumerate(candidates, start=1):
            fit = fit_logistic_regression(features[kept], labels[kept], num_classes, penalty, init=fit)
            logits = fit.predict_logits(features[held])
            hits[penalty] += (logits.argmax(dim=1) == labels[held]).sum().item()
            losses[penalty] += F.cross_entropy(logits, labels[held], reduction="sum").item()
            progress(out * len(candidates) + number, count * len(candidates))
    return max(candidates, key=lambda penalty: (hits[penalty], -losses[penalty]))


def assign_folds(labels: Int[Tensor, "n"], num_folds: int = PENALTY_FOLDS) -> Int[Tensor, "n"]:
    """The part that each is in: of every class, neighbours in the list stay together, as clips of one scene stand."""
    found = torch.zeros_like(labels)
    sizes = labels.bincount()
    num_folds = min(num_folds, int(sizes.max()))
    for label in labels.unique():
        here = (labels == label).nonzero()[:, 0]
        found[here] = torch.arange(len(here), device=labels.device) * num_folds // len(here)
    return found
