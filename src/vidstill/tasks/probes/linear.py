"""Linear probes: how much of the classes a frozen encoder already tells apart."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import ViT
from vidstill.tasks.metrics.accuracy import Accuracy, accuracy

PENALTY = 1.0
"""Half of it times the squared weights stands beside the summed loss: what is usual for a logistic regression."""

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)
"""Those that one is chosen from; each fit starts where the one before it has ended."""

FOLDS = 5
"""Parts of the training features, each of which is held out once to choose a penalty."""

_ITERATIONS = 500  # far more than it takes to converge


class ProbeModel(nn.Module):
    """A frozen encoder and the head that MAE's authors probe it with, trained step by step with LARS.

    The head is a batch norm without factors of its own and a linear layer (arXiv:2111.06377, appendix A.1); it sees the
    class token after the final norm, or the mean of the tokens where there is no class token.
    """

    def __init__(self, encoder: ViT, classes: int):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.norm = nn.BatchNorm1d(encoder.config.dim, eps=NORM_EPS, affine=False)
        self.head = nn.Linear(encoder.config.dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """Logits of clips of colours in [0, 1]."""
        with torch.no_grad():
            seen = self.encoder(clip)
        return self.head(self.norm(seen.classes[:, 0] if seen.classes.shape[1] else seen.tokens.mean(dim=1)))

    def train(self, mode: bool = True) -> "ProbeModel":
        """The encoder drops no branch: it does not train."""
        super().train(mode)
        self.encoder.eval()
        return self


@torch.no_grad()
def features(
    encoder: ViT, batches: Iterable[tuple[Float[Tensor, "_ 3 t h w"], Int[Tensor, "_"]]]
) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
    """The mean over all tokens of the encoder's final output for each clip, and the labels."""
    training = encoder.training
    encoder.eval()
    pairs = [(encoder(clip).tokens.float().mean(dim=1).cpu(), label.cpu()) for clip, label in batches]
    encoder.train(training)
    vectors, labels = zip(*pairs, strict=True)
    return torch.cat(vectors), torch.cat(labels)


def linear_probe(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, "n"],
    val_features: Float[Tensor, "m d"],
    val_labels: Int[Tensor, "m"],
    classes: int,
    *,
    penalty: float = PENALTY,
) -> Accuracy:
    """The accuracy of a multinomial logistic regression, fitted to its optimum on standardised features."""
    return accuracy(fit_linear(train_features, train_labels, classes, penalty).scores(val_features), val_labels)


@dataclass(frozen=True)
class LinearFit:
    """A multinomial logistic regression of features that are standardised as its training features are."""

    mean: Float[Tensor, "d"]
    spread: Float[Tensor, "d"]
    weight: Float[Tensor, "classes d"]
    bias: Float[Tensor, "classes"]

    def scores(self, vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m classes"]:
        """Their logits, in float64."""
        return F.linear((vectors - self.mean) / self.spread, self.weight, self.bias)


def fit_linear(
    vectors: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    classes: int,
    penalty: float = PENALTY,
    *,
    start: LinearFit | None = None,
) -> LinearFit:
    """The optimum of summed cross-entropy + penalty / 2 · |W|², by L-BFGS in float64: convex, so there is only one.

    Args:
        start: a fit of the same features that is near it, where one is at hand; else it starts at zero.
    """
    mean, spread = vectors.double().mean(dim=0), vectors.double().std(dim=0)
    spread = torch.where(spread > 1e-8, spread, 1.0)  # a channel that never changes tells nothing
    inputs = (vectors - mean) / spread
    weight = inputs.new_zeros(classes, inputs.shape[1]) if start is None else start.weight.clone()
    bias = inputs.new_zeros(classes) if start is None else start.bias.clone()
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
    return LinearFit(mean, spread, weight.detach(), bias.detach())


def choose_penalty(
    vectors: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    classes: int,
    *,
    among: Sequence[float] = PENALTIES,
    done: Callable[[int, int], None] = lambda done, of: None,
) -> float:
    """The penalty whose fits tell the most of what was held out of them; of equals, that with the lower loss there.

    Only the training features are looked at. Where no class has two of them, nothing can be held out: `PENALTY`.

    Args:
        done: is told how many fits there have been, of how many.
    """
    fold = folds(labels)
    count = int(fold.max()) + 1
    if count < 2:
        return PENALTY
    hits, losses = dict.fromkeys(among, 0.0), dict.fromkeys(among, 0.0)
    for out in range(count):
        kept, held = fold != out, fold == out
        fit = None
        for number, penalty in enumerate(among, start=1):
            fit = fit_linear(vectors[kept], labels[kept], classes, penalty, start=fit)
            logits = fit.scores(vectors[held])
            hits[penalty] += (logits.argmax(dim=1) == labels[held]).sum().item()
            losses[penalty] += F.cross_entropy(logits, labels[held], reduction="sum").item()
            done(out * len(among) + number, count * len(among))
    return max(among, key=lambda penalty: (hits[penalty], -losses[penalty]))


def folds(labels: Int[Tensor, "n"], count: int = FOLDS) -> Int[Tensor, "n"]:
    """The part that each is in: of every class, neighbours in the list stay together, as clips of one scene stand."""
    found = torch.zeros_like(labels)
    sizes = labels.bincount()
    count = min(count, int(sizes.max()))
    for label in labels.unique():
        here = (labels == label).nonzero()[:, 0]
        found[here] = torch.arange(len(here), device=labels.device) * count // len(here)
    return found
