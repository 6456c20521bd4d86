"""The attentive probe learns classes that single tokens have, and is at random without information."""

import numpy as np
import pytest
import torch

from vidstill.tasks.metrics.accuracy import compute_accuracy
from vidstill.tasks.probes import attentive
from vidstill.tasks.probes.attentive import (
    AttentiveProbe,
    FeatureDataset,
    compute_attentive_logits,
    fit_attentive_probe,
)
from vidstill.tasks.probes.linear import evaluate_linear_probe

CPU = torch.device("cpu")
CLASSES, TOKENS, DIM = 3, 6, 24


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    monkeypatch.setattr(attentive, "ATTENTIVE_MIN_STEPS", 150)


def draw_clips(count, *, informative, seed):
    """Return noise tokens of zero mean; a random one is marked, and has the class if the clips are informative.

    The same is subtracted from the last token, which has no mark, so that a clip's mean does not depend on its class.
    """
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, TOKENS, DIM))
    tokens -= tokens.mean(axis=1, keepdims=True)
    labels = rng.integers(CLASSES, size=count)
    signal = 4.0 * np.eye(CLASSES, DIM)[labels] * informative
    signal[:, -1] += 8.0
    tokens[np.arange(count), rng.integers(TOKENS - 1, size=count)] += signal
    tokens[:, -1] -= signal
    return FeatureDataset(tokens.astype(np.float16), np.arange(count), torch.from_numpy(labels))


def test_it_learns_a_class_that_one_token_has_and_the_mean_does_not(monkeypatch):
    monkeypatch.setattr(attentive, "ATTENTIVE_MIN_STEPS", 400)
    train, val = draw_clips(300, informative=True, seed=0), draw_clips(200, informative=True, seed=1)
    probe = fit_attentive_probe(train, CLASSES, seed=0, device=CPU)
    assert compute_accuracy(compute_attentive_logits(probe, val), val.labels).top1 > 90
    means = [each.load_batch(np.arange(len(each))).mean(dim=1) for each in (train, val)]
    assert evaluate_linear_probe(means[0], train.labels, means[1], val.labels, CLASSES).top1 < 50  # at random 33


def test_it_is_at_random_without_information():
    train, val = draw_clips(200, informative=False, seed=0), draw_clips(1000, informative=False, seed=1)
    probe = fit_attentive_probe(train, CLASSES, seed=0, device=CPU)
    top1 = compute_accuracy(compute_attentive_logits(probe, val), val.labels).top1
    assert top1 == pytest.approx(100 / CLASSES, abs=6)  # four standard errors


def test_the_seed_alone_determines_the_weights_and_the_global_random_state_is_unchanged():
    train, state = draw_clips(100, informative=True, seed=0), torch.get_rng_state()
    one, again, other = (fit_attentive_probe(train, CLASSES, seed=seed, device=CPU).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["query"], other["query"])
    assert torch.equal(torch.get_rng_state(), state)


def test_attention_follows_the_formula():
    """One head, by hand: the values, weighted by softmax(q · k / √d) over the tokens."""
    torch.manual_seed(0)
    probe = AttentiveProbe(DIM, CLASSES).eval()
    assert probe.num_heads == 1
    tokens = torch.randn(2, TOKENS, DIM)
    with torch.no_grad():
        normed = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        weights = (probe.key(normed) @ probe.query / DIM**0.5).softmax(dim=1)
        pooled = torch.einsum("bn,bnd->bd", weights, probe.value(normed))
        torch.testing.assert_close(probe(tokens), probe.head(probe.out_norm(probe.out(pooled))))


@pytest.mark.parametrize(("dim", "heads"), [(24, 1), (384, 6), (768, 12), (1024, 16), (1280, 20), (200, 2)])
def test_heads_are_about_64_wide(dim, heads):
    assert AttentiveProbe(dim, CLASSES).num_heads == heads


def test_tokens_are_read_from_their_rows():
    table = np.arange(4 * 2 * 3, dtype=np.float16).reshape(4, 2, 3)
    tokens = FeatureDataset(table, np.array([3, 1]), torch.tensor([0, 1]))
    assert torch.equal(tokens.load_batch(np.array([1, 0])), torch.from_numpy(table[[1, 3]]).float())
