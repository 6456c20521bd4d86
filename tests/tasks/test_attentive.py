"""An attentive probe finds what single tokens carry, and nothing where there is nothing."""

import numpy as np
import pytest
import torch

from vidstill.tasks.metrics.accuracy import compute_classification_score
from vidstill.tasks.probes import attentive
from vidstill.tasks.probes.attentive import AttentiveProbe, TokenDataset, compute_attentive_logits, fit_attentive_probe
from vidstill.tasks.probes.linear import evaluate_linear_probe

CPU = torch.device("cpu")
CLASSES, TOKENS, DIM = 3, 6, 24


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    monkeypatch.setattr(attentive, "ATTENTIVE_MIN_STEPS", 150)


def clips(count, *, told, seed):
    """Tokens of noise around zero mean; one at a random place is marked, and carries the class, if it is told.

    What it carries is taken off the last token, which has no mark: so each clip's mean tells nothing of its class.
    """
    chance = np.random.default_rng(seed)
    tokens = chance.normal(size=(count, TOKENS, DIM))
    tokens -= tokens.mean(axis=1, keepdims=True)
    labels = chance.integers(CLASSES, size=count)
    carried = 4.0 * np.eye(CLASSES, DIM)[labels] * told
    mark = np.zeros(DIM)
    mark[-1] = 8.0
    tokens[np.arange(count), chance.integers(TOKENS - 1, size=count)] += carried + mark
    tokens[:, -1] -= carried + mark
    return TokenDataset(tokens.astype(np.float16), np.arange(count), torch.from_numpy(labels))


def test_it_finds_a_class_that_one_token_carries_and_no_mean_does(monkeypatch):
    monkeypatch.setattr(attentive, "ATTENTIVE_MIN_STEPS", 400)
    train, val = clips(300, told=True, seed=0), clips(200, told=True, seed=1)
    found = compute_classification_score(
        compute_attentive_logits(fit_attentive_probe(train, CLASSES, seed=0, device=CPU), val), val.labels
    )
    assert found.top1 > 90
    means = [each.take(np.arange(len(each))).mean(dim=1) for each in (train, val)]
    assert evaluate_linear_probe(means[0], train.labels, means[1], val.labels, CLASSES).top1 < 50  # chance is 33


def test_it_is_at_chance_where_there_is_nothing_to_find():
    train, val = clips(200, told=False, seed=0), clips(1000, told=False, seed=1)
    found = compute_classification_score(
        compute_attentive_logits(fit_attentive_probe(train, CLASSES, seed=0, device=CPU), val), val.labels
    )
    assert found.top1 == pytest.approx(100 / CLASSES, abs=6)  # four standard errors


def test_its_seed_decides_it():
    train = clips(100, told=True, seed=0)
    one, again, other = (fit_attentive_probe(train, CLASSES, seed=seed, device=CPU).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["query"], other["query"])


def test_it_leaves_others_chance_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fit_attentive_probe(clips(20, told=True, seed=0), CLASSES, seed=0, device=CPU)
    assert torch.equal(torch.rand(4), expected)


def test_it_attends_as_the_formula_says():
    """One head, by hand: softmax(q · k / √d) over the tokens, and the values by these shares."""
    torch.manual_seed(0)
    probe = AttentiveProbe(DIM, CLASSES).eval()
    assert probe.heads == 1
    tokens = torch.randn(2, TOKENS, DIM)
    with torch.no_grad():
        normed = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        shares = (probe.key(normed) @ probe.query / DIM**0.5).softmax(dim=1)
        pooled = torch.einsum("bn,bnd->bd", shares, probe.value(normed))
        torch.testing.assert_close(probe(tokens), probe.head(probe.out_norm(probe.out(pooled))))


@pytest.mark.parametrize(("dim", "heads"), [(24, 1), (384, 6), (768, 12), (1024, 16), (1280, 20), (200, 2)])
def test_its_heads_are_near_64_wide(dim, heads):
    assert AttentiveProbe(dim, CLASSES).heads == heads


def test_tokens_are_read_from_the_rows_that_they_are_in():
    table = np.arange(4 * 2 * 3, dtype=np.float16).reshape(4, 2, 3)
    tokens = TokenDataset(table, np.array([3, 1]), torch.tensor([0, 1]))
    assert torch.equal(tokens.load_batch(np.array([1, 0])), torch.from_numpy(table[[1, 3]]).float())
