"""The classifier, its initial weights, and its training: erased, mixed and masked clips, one label or several."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import CLASSES, ENCODER, GRID, STMAE, built, clips

from vidstill.data.transforms.mixup import MixupCutmix, smooth_labels
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig
from vidstill.tasks.metrics.accuracy import merge_views
from vidstill.utils.types import Grid, InputError

CONFIG = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
CLIP = clips(4)
LABEL, SEED = torch.tensor([0, 1, 2, 4]), torch.arange(4)
PLAIN = {"mixup": None, "random_erasing": None, "label_smoothing": 0.0}


def test_features_are_the_norm_of_the_mean_over_all_tokens():
    model = built(CONFIG)
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]  # no norm before the mean
    expected = F.layer_norm(tokens.mean(dim=1), (24,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(model.forward_features(CLIP), expected)
    torch.testing.assert_close(model(CLIP), expected @ model.head.weight.T + model.head.bias)


def test_pooling_first_takes_the_normalized_first_token():
    model = built(replace(CONFIG, pooling="first"))
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]
    expected = F.layer_norm(tokens[:, 0], (24,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6)
    torch.testing.assert_close(model.forward_features(CLIP), expected)


def test_the_head_starts_small_so_that_the_initial_loss_is_log_classes():
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
def test_mixing_with_probability_0_changes_nothing(smoothing):
    model = built(CONFIG)
    losses = [
        ClassificationTask(model, mixup=mixup, random_erasing=None, label_smoothing=smoothing)(CLIP, LABEL, SEED).loss
        for mixup in (MixupCutmix(probability=0.0), None)
    ]
    torch.testing.assert_close(*losses)


def test_the_model_gets_erased_and_mixed_clips():
    model, erasing, mixing = built(CONFIG), RandomErasing(probability=1.0), MixupCutmix()
    task = ClassificationTask(model, mixup=mixing, random_erasing=erasing, label_smoothing=0.1)
    erased = erasing.apply(CLIP, SEED, ENCODER.mean, ENCODER.std)
    clip, target = mixing.apply(erased, LABEL, SEED, CLASSES, 0.1)
    expected = -(target * model(clip).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, expected)
    assert not torch.equal(clip, CLIP)
    assert not torch.equal(erased, CLIP)


def test_a_classifier_can_memorise_labels():
    torch.manual_seed(0)
    task = ClassificationTask(CONFIG.build(), **PLAIN)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(40):
        loss = task(CLIP, LABEL, SEED).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * math.log(CLASSES)


def test_dropout_is_before_the_head_and_only_in_training():
    model = built(replace(CONFIG, dropout=0.5))
    torch.testing.assert_close(model.eval()(CLIP), model.head(model.forward_features(CLIP)))
    model.train()
    torch.manual_seed(0)
    first = model(CLIP)
    assert not torch.equal(first, model(CLIP))


@pytest.mark.parametrize(("weight_init", "std"), [("normal", 0.02), ("xavier", math.sqrt(2 / (24 + 96)))])
def test_weight_init_sets_the_deviation_of_the_blocks(weight_init, std):
    model = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, weight_init=weight_init).build()
    weight = model.encoder.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(std, rel=0.1)  # of 2304 numbers


def test_weight_init_torch_keeps_torchs_weights_zero_positions_and_a_small_head():
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


def build_masked_task(ratio=0.75, config=CONFIG):
    return ClassificationTask(built(config), **PLAIN, mask_ratio=ratio)


def test_masked_tokens_reach_neither_the_mean_nor_the_loss():
    task = build_masked_task()
    visible = task.draw_visible(SEED, GRID)
    assert visible.shape == (4, 6)
    expected = F.cross_entropy(task.model(CLIP, visible), LABEL)
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, expected)
    tokens = task.model.encoder(CLIP, visible, layers=(2,)).layers[2].mean(dim=1)
    torch.testing.assert_close(task.model.forward_features(CLIP, visible), task.model.norm(tokens))


def test_the_mask_ratio_falls_to_0_by_a_cosine():
    task = build_masked_task(0.5)
    ratios = []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        task.begin_step(progress)
        ratios.append(task.current_mask_ratio)
    assert ratios == pytest.approx([0.5 * 0.5 * (1 + math.cos(math.pi * p / 4)) for p in range(5)])
    assert ratios[0] == 0.5
    assert task.draw_visible(SEED, GRID) is None


def test_the_number_of_visible_tokens_grows_and_is_the_same_in_every_clip():
    task, counts = build_masked_task(0.75), []
    for step in range(8):
        task.begin_step(step / 8)
        counts.append(task.draw_visible(SEED, Grid(8, 14, 14)).shape[1])
    assert counts[0] == 392  # int(1568 · 0.25)
    assert counts == sorted(set(counts))
    assert counts[-1] < 1568


def test_the_mask_depends_on_the_clips_seed_alone():
    task = build_masked_task()
    whole = task.draw_visible(SEED, GRID)
    assert torch.equal(task.draw_visible(SEED.flip(0), GRID), whole.flip(0))
    assert not torch.equal(whole[0], whole[1])
    assert (whole.diff(dim=1) > 0).all()


def test_in_eval_mode_nothing_is_masked():
    task = build_masked_task().eval()
    assert task.draw_visible(SEED, GRID) is None
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, F.cross_entropy(task.model(CLIP), LABEL))


def test_one_token_is_always_visible():
    assert build_masked_task(0.75).draw_visible(SEED, Grid(1, 1, 1)).shape == (4, 1)


def test_without_a_mask_ratio_nothing_is_drawn():
    task = build_masked_task(0.0)
    task.begin_step(0.5)
    assert task.draw_visible(SEED, GRID) is None


@pytest.mark.parametrize("ratio", [1.0, -0.1, math.nan])
def test_a_mask_ratio_outside_0_to_1_is_an_error(ratio):
    with pytest.raises(InputError, match="mask_ratio is"):
        build_masked_task(ratio)


def test_every_weight_gets_a_gradient_from_visible_tokens():
    task = build_masked_task(config=replace(CONFIG, encoder=STMAE.encoder))
    task(CLIP, LABEL, SEED).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.parameters())


# ---- Several labels -------------------------------------------------------------------------------------------------

MULTI_LABEL = replace(CONFIG, multi_label=True)
LABELS = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]).float()


def build_multi_label_task(model, *, mixup=None, smoothing=0.0):
    return ClassificationTask(model, mixup=mixup, random_erasing=None, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_binary_cross_entropy_of_each_class(smoothing):
    model = built(MULTI_LABEL)
    target = LABELS * (1 - smoothing) + smoothing / 2
    probability = model(CLIP).sigmoid()
    expected = -(target * probability.log() + (1 - target) * (1 - probability).log()).mean()
    torch.testing.assert_close(build_multi_label_task(model, smoothing=smoothing)(CLIP, LABELS, SEED).loss, expected)


def test_the_initial_loss_is_the_logarithm_of_2():
    torch.manual_seed(0)
    loss = build_multi_label_task(MULTI_LABEL.build())(CLIP, LABELS, SEED).loss
    assert loss.item() == pytest.approx(math.log(2), abs=1e-3)


def test_all_labels_are_mixed_in_proportion_to_the_pixels():
    mixing = MixupCutmix()
    keep = mixing.draw_pixel_weights(SEED[:1], *CLIP.shape[-2:]).mean()
    mixed, target = mixing.apply(CLIP, LABELS, SEED, CLASSES, 0.1)
    smooth = 0.05 + 0.9 * LABELS
    torch.testing.assert_close(target, smooth * keep + smooth.flip(0) * (1 - keep))
    model = built(MULTI_LABEL)
    expected = F.binary_cross_entropy_with_logits(model(mixed), target)
    torch.testing.assert_close(
        build_multi_label_task(model, mixup=mixing, smoothing=0.1)(CLIP, LABELS, SEED).loss, expected
    )


def test_a_single_label_is_smoothed():
    torch.testing.assert_close(smooth_labels(torch.tensor([1]), 4, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_merged_views_keep_a_probability_for_each_class():
    logits = torch.tensor([[4.0, 4.0, -9.0], [0.0, 4.0, -9.0]])
    merged = merge_views(logits, multi_label=True)
    torch.testing.assert_close(merged, (logits.double().sigmoid()).mean(0))
    assert merged.sum() > 1
    torch.testing.assert_close(merge_views(logits), logits.double().softmax(1).mean(0))


def test_a_classifier_can_memorise_several_labels():
    torch.manual_seed(0)
    learner = build_multi_label_task(replace(MULTI_LABEL, weight_init="xavier").build())
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for _ in range(60):
        loss = learner(CLIP, LABELS, SEED).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((learner.model(CLIP) > 0) == LABELS.bool()).all()
