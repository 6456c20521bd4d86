"""Linear probes: how much of the classes a frozen encoder already tells apart."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.downstream.accuracy import Accuracy, accuracy
from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import ViT

_PENALTY = 1.0  # half of it times the squared weights, beside the summed loss: what is usual for a logistic regression
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
) -> Accuracy:
    """The accuracy of a multinomial logistic regression, fitted to its optimum on standardised features."""
    mean, spread = train_features.double().mean(dim=0), train_features.double().std(dim=0)
    spread = torch.where(spread > 1e-8, spread, 1.0)  # a channel that never changes tells nothing
    inputs, tests = (train_features - mean) / spread, (val_features - mean) / spread
    head = nn.Linear(inputs.shape[1], classes, dtype=torch.float64, device=inputs.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = _PENALTY / 2 * head.weight.square().sum() / len(inputs)
        total = F.cross_entropy(head(inputs), train_labels) + penalty
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        return accuracy(head(tests), val_labels)
