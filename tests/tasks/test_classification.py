"""The classifier, its start, and its training with erased and mixed clips."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import CLASSES, ENCODER, GRID, STMAE, built, clips

from vidstill.data.transforms.mixup import MixupCutmix
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig
from vidstill.utils.types import Grid, InputError

CONFIG = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
CLIP = clips(4)
LABEL, SEED = torch.tensor([0, 1, 2, 4]), torch.arange(4)
PLAIN = {"mixing": None, "erasing": None, "smoothing": 0.0}


def test_features_are_the_normed_mean_over_all_tokens():
    model = built(CONFIG)
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]  # no norm before the mean
    expected = F.layer_norm(tokens.mean(dim=1), (24,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(model.features(CLIP), expected)
    torch.testing.assert_close(model(CLIP), expected @ model.head.weight.T + model.head.bias)


def test_pooling_the_first_takes_the_normed_first_token():
    model = built(replace(CONFIG, pooling="first"))
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]
    expected = F.layer_norm(tokens[:, 0], (24,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6)
    torch.testing.assert_close(model.features(CLIP), expected)


def test_the_head_starts_small_and_the_loss_at_the_logarithm_of_the_classes():
    torch.manual_seed(0)
    model = ClassifierConfig(encoder=ENCODER, num_classes=400).build()
    assert not model.head.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.05)
    assert model.encoder.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    loss = ClassificationTask(model, **PLAIN)(CLIP, LABEL, SEED).loss
    assert loss.item() == pytest.approx(math.log(400), abs=1e-3)


def test_every_weight_gets_a_gradient():
    task = ClassificationTask(built(CONFIG), mixup=MixupCutmix(), random_erasing=RandomErasing(), label_smoothing=0.1)
    task(CLIP, LABEL, SEED).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy(smoothing):
    model = built(CONFIG)
    loss = ClassificationTask(model, mixup=None, random_erasing=None, label_smoothing=smoothing)(CLIP, LABEL, SEED).loss
    torch.testing.assert_close(loss, F.cross_entropy(model(CLIP), LABEL, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixing_that_never_happens_changes_nothing(smoothing):
    model = built(CONFIG)
    never = ClassificationTask(
        model, mixup=MixupCutmix(probability=0.0), random_erasing=None, label_smoothing=smoothing
    )
    plain = ClassificationTask(model, mixup=None, random_erasing=None, label_smoothing=smoothing)
    torch.testing.assert_close(never(CLIP, LABEL, SEED).loss, plain(CLIP, LABEL, SEED).loss)


def test_erased_and_mixed_clips_are_what_the_model_sees():
    model, erasing, mixing = built(CONFIG), RandomErasing(probability=1.0), MixupCutmix()
    task = ClassificationTask(model, mixup=mixing, random_erasing=erasing, label_smoothing=0.1)
    erased = erasing.apply(CLIP, SEED, ENCODER.mean, ENCODER.std)
    clip, target = mixing.apply(erased, LABEL, SEED, CLASSES, 0.1)
    expected = -(target * model(clip).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, expected)
    assert not torch.equal(clip, CLIP)
    assert not torch.equal(erased, CLIP)


def test_a_classifier_learns_labels_by_heart():
    torch.manual_seed(0)
    task = ClassificationTask(CONFIG.build(), **PLAIN)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(40):
        loss = task(CLIP, LABEL, SEED).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * math.log(CLASSES)


def test_dropout_stands_before_the_head_and_only_in_training():
    model = built(replace(CONFIG, dropout=0.5))
    torch.testing.assert_close(model.eval()(CLIP), model.head(model.features(CLIP)))
    model.train()
    torch.manual_seed(0)
    first = model(CLIP)
    assert not torch.equal(first, model(CLIP))


@pytest.mark.parametrize(("start", "deviation"), [("normal", 0.02), ("xavier", math.sqrt(2 / (24 + 96)))])
def test_blocks_from_scratch_start_at_the_asked_deviation(start, deviation):
    model = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, weight_init=start).build()
    weight = model.encoder.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(deviation, rel=0.1)  # of 2304 numbers


def test_mae_st_starts_with_torchs_own_weights_no_positions_and_a_tiny_head():
    torch.manual_seed(0)
    model = ClassifierConfig(encoder=STMAE.encoder, num_classes=400, weight_init="torch").build()
    block = model.encoder.blocks[0]
    assert block.attn.qkv.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 24), rel=0.1)
    assert block.mlp.fc2.bias.std().item() == pytest.approx(1 / math.sqrt(3 * 96), rel=0.3)
    positions = model.encoder.positions
    for table in (model.encoder.cls_token, positions.space, positions.time, positions.cls_embedding):
        assert not table.any()
    assert model.head.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert model.head.bias.std().item() == pytest.approx(1 / math.sqrt(3 * 24), rel=0.1)  # torch's own, not scaled


# ---- Masking --------------------------------------------------------------------------------------------------------


def masked(ratio=0.75, config=CONFIG):
    return ClassificationTask(built(config), **PLAIN, mask_ratio=ratio)


def test_hidden_tokens_reach_neither_the_mean_nor_the_loss():
    task = masked()
    visible = task.visible(SEED, GRID)
    assert visible.shape == (4, 6)
    expected = F.cross_entropy(task.model(CLIP, visible), LABEL)
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, expected)
    tokens = task.model.encoder(CLIP, visible, layers=(2,)).layers[2].mean(dim=1)
    torch.testing.assert_close(task.model.features(CLIP, visible), task.model.norm(tokens))


def test_the_ratio_falls_to_nothing_by_a_cosine():
    task = masked(0.5)
    ratios = []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        task.begin_step(progress)
        ratios.append(task.ratio)
    assert ratios == pytest.approx([0.5 * 0.5 * (1 + math.cos(math.pi * p / 4)) for p in range(5)])
    assert ratios[0] == 0.5
    assert task.visible(SEED, GRID) is None


def test_a_run_hides_less_and_less_and_the_same_number_in_every_clip():
    task, counts = masked(0.75), []
    for step in range(8):
        task.begin_step(step / 8)
        counts.append(task.visible(SEED, Grid(8, 14, 14)).shape[1])
    assert counts[0] == 392  # int(1568 · 0.25)
    assert counts == sorted(set(counts))
    assert counts[-1] < 1568


def test_what_is_seen_depends_on_the_clips_seed_alone():
    task = masked()
    whole = task.visible(SEED, GRID)
    assert torch.equal(task.visible(SEED.flip(0), GRID), whole.flip(0))
    assert not torch.equal(whole[0], whole[1])
    assert (whole.diff(dim=1) > 0).all()


def test_a_test_sees_everything():
    task = masked().eval()
    assert task.visible(SEED, GRID) is None
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, F.cross_entropy(task.model(CLIP), LABEL))


def test_one_token_is_always_seen():
    assert masked(0.75).visible(SEED, Grid(1, 1, 1)).shape == (4, 1)


def test_without_masking_nothing_is_drawn():
    task = masked(0.0)
    task.begin_step(0.5)
    assert task.visible(SEED, GRID) is None


@pytest.mark.parametrize("ratio", [1.0, -0.1, math.nan])
def test_a_ratio_that_is_no_share_is_met_with_a_sentence(ratio):
    with pytest.raises(InputError, match="mask_ratio is"):
        masked(ratio)


def test_every_weight_gets_a_gradient_from_what_is_seen():
    task = masked(config=replace(CONFIG, encoder=STMAE.encoder))
    task(CLIP, LABEL, SEED).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.parameters())
