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
from vidstill.utils.types import Grid, InputError

CONFIG = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
MULTI_LABEL = replace(CONFIG, multi_label=True)
CLIP = clips(4)
LABEL, SEED = torch.tensor([0, 1, 2, 4]), torch.arange(4)
LABELS = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]).float()


def build_task(model, *, mixup=None, random_erasing=None, smoothing=0.0, mask_ratio=0.0) -> ClassificationTask:
    return ClassificationTask(
        model, mixup=mixup, random_erasing=random_erasing, label_smoothing=smoothing, mask_ratio=mask_ratio
    )


def compute_loss(model, label=LABEL, **options) -> torch.Tensor:
    return build_task(model, **options)(CLIP, label, SEED).loss


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_features_are_the_norm_of_the_mean_over_all_tokens_or_the_normalized_first_token(pooling):
    model = built(replace(CONFIG, pooling=pooling))
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]  # no norm before the mean
    norm, pooled = (model.norm, tokens.mean(dim=1)) if pooling == "mean" else (model.encoder.norm, tokens[:, 0])
    expected = F.layer_norm(pooled, (24,), norm.weight, norm.bias, 1e-6)
    torch.testing.assert_close(model.forward_features(CLIP), expected)
    torch.testing.assert_close(model(CLIP), expected @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize(("config", "label"), [(CONFIG, LABEL), (MULTI_LABEL, LABELS)], ids=["single", "multi"])
def test_the_head_starts_small_so_that_all_classes_are_equally_likely(config, label):
    torch.manual_seed(0)
    model = replace(config, num_classes=400).build()
    assert not model.head.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.05)
    assert model.encoder.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    label = F.pad(label, (0, 395)) if config.multi_label else label
    assert compute_loss(model, label).item() == pytest.approx(math.log(2 if config.multi_label else 400), abs=1e-3)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (CONFIG, {"mixup": MixupCutmix(), "random_erasing": RandomErasing(), "smoothing": 0.1}),
        (replace(CONFIG, encoder=STMAE.encoder), {"mask_ratio": 0.75}),
    ],
    ids=["augmented", "masked"],
)
def test_every_weight_gets_a_gradient(config, options):
    task = build_task(built(config), **options)
    task(CLIP, LABEL, SEED).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy_and_mixing_with_probability_0_changes_nothing(smoothing):
    model = built(CONFIG)
    loss = compute_loss(model, smoothing=smoothing)
    torch.testing.assert_close(loss, F.cross_entropy(model(CLIP), LABEL, label_smoothing=smoothing))
    torch.testing.assert_close(compute_loss(model, smoothing=smoothing, mixup=MixupCutmix(probability=0.0)), loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_several_labels_is_the_binary_cross_entropy_of_each_class(smoothing):
    model = built(MULTI_LABEL)
    target = LABELS * (1 - smoothing) + smoothing / 2
    probability = model(CLIP).sigmoid()
    expected = -(target * probability.log() + (1 - target) * (1 - probability).log()).mean()
    torch.testing.assert_close(compute_loss(model, LABELS, smoothing=smoothing), expected)


def test_the_model_gets_erased_and_mixed_clips():
    model, erasing, mixing = built(CONFIG), RandomErasing(probability=1.0), MixupCutmix()
    erased = erasing.apply(CLIP, SEED, ENCODER.mean, ENCODER.std)
    clip, target = mixing.apply(erased, LABEL, SEED, CLASSES, 0.1)
    expected = -(target * model(clip).log_softmax(dim=1)).sum(dim=1).mean()
    loss = compute_loss(model, mixup=mixing, random_erasing=erasing, smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    assert not torch.equal(clip, CLIP)
    assert not torch.equal(erased, CLIP)


def test_several_labels_are_mixed_in_proportion_to_the_pixels():
    model, mixing = built(MULTI_LABEL), MixupCutmix()
    share = mixing.draw_weights(SEED, *CLIP.shape[-3:])[1]
    clip, target = mixing.apply(CLIP, LABELS, SEED, CLASSES, 0.1)
    smooth = 0.05 + 0.9 * LABELS
    torch.testing.assert_close(target, smooth * share + smooth.flip(0) * (1 - share))
    expected = F.binary_cross_entropy_with_logits(model(clip), target)
    torch.testing.assert_close(compute_loss(model, LABELS, mixup=mixing, smoothing=0.1), expected)


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_a_classifier_can_memorize_labels(is_multi_label):
    torch.manual_seed(0)
    config, label = (replace(MULTI_LABEL, weight_init="xavier"), LABELS) if is_multi_label else (CONFIG, LABEL)
    task = build_task(config.build())
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(60 if is_multi_label else 40):
        loss = task(CLIP, label, SEED).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert is_multi_label or loss.item() < 0.5 * math.log(CLASSES)
    assert not is_multi_label or ((task.model(CLIP) > 0) == LABELS.bool()).all()


def test_dropout_is_before_the_head_and_only_in_training():
    model = built(replace(CONFIG, dropout=0.5))
    torch.testing.assert_close(model.eval()(CLIP), model.head(model.forward_features(CLIP)))
    model.train()
    assert not torch.equal(model(CLIP), model(CLIP))


@pytest.mark.parametrize(("weight_init", "std"), [("normal", 0.02), ("xavier", math.sqrt(2 / (24 + 96)))])
def test_weight_init_sets_the_std_of_the_blocks(weight_init, std):
    weight = replace(CONFIG, weight_init=weight_init).build().encoder.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(std, rel=0.1)  # of 2304 numbers


def test_weight_init_torch_has_torchs_weights_zero_positions_and_a_small_head():
    torch.manual_seed(0)
    model = ClassifierConfig(encoder=STMAE.encoder, num_classes=400, weight_init="torch").build()
    block, positions = model.encoder.blocks[0], model.encoder.positions
    for weight, std, rel in [
        (block.attn.qkv.weight, 1 / math.sqrt(3 * 24), 0.1),
        (block.mlp.fc2.bias, 1 / math.sqrt(3 * 96), 0.3),
        (model.head.weight, 2e-5, 0.05),
        (model.head.bias, 1 / math.sqrt(3 * 24), 0.1),  # torch's own, not scaled
    ]:
        assert weight.std().item() == pytest.approx(std, rel=rel)
    for table in (model.encoder.cls_token, positions.space, positions.time, positions.cls_embedding):
        assert not table.any()


def test_a_single_label_is_smoothed():
    torch.testing.assert_close(smooth_labels(torch.tensor([1]), 4, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


# ---- Masking --------------------------------------------------------------------------------------------------------


def test_masked_tokens_reach_neither_the_mean_nor_the_loss_and_in_eval_mode_nothing_is_masked():
    task = build_task(built(CONFIG), mask_ratio=0.75)
    visible = task.draw_visible(SEED, GRID)
    assert visible.shape == (4, 6)
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, F.cross_entropy(task.model(CLIP, visible), LABEL))
    tokens = task.model.encoder(CLIP, visible, layers=(2,)).layers[2].mean(dim=1)
    torch.testing.assert_close(task.model.forward_features(CLIP, visible), task.model.norm(tokens))
    task.eval()
    assert task.draw_visible(SEED, GRID) is None
    torch.testing.assert_close(task(CLIP, LABEL, SEED).loss, F.cross_entropy(task.model(CLIP), LABEL))


def test_the_mask_ratio_falls_to_0_by_a_cosine_and_the_number_of_visible_tokens_grows():
    task, ratios, counts = build_task(built(CONFIG), mask_ratio=0.75), [], []
    for step in range(9):
        task.begin_step(step / 8)
        ratios.append(task.current_mask_ratio)
        visible = task.draw_visible(SEED, Grid(8, 14, 14))
        counts.append(1568 if visible is None else visible.shape[1])
    assert ratios == pytest.approx([0.75 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)])
    assert (ratios[0], counts[0]) == (0.75, 392)  # int(1568 · 0.25)
    assert counts == sorted(set(counts))
    assert task.draw_visible(SEED, GRID) is None  # at the end, as without a mask ratio
    assert build_task(built(CONFIG)).draw_visible(SEED, GRID) is None


def test_the_mask_depends_on_the_clips_seed_alone_and_one_token_is_always_visible():
    task = build_task(built(CONFIG), mask_ratio=0.75)
    visible = task.draw_visible(SEED, GRID)
    assert torch.equal(task.draw_visible(SEED.flip(0), GRID), visible.flip(0))
    assert not torch.equal(visible[0], visible[1])
    assert (visible.diff(dim=1) > 0).all()
    assert task.draw_visible(SEED, Grid(1, 1, 1)).shape == (4, 1)


@pytest.mark.parametrize("ratio", [1.0, -0.1, math.nan])
def test_a_mask_ratio_outside_0_to_1_is_an_error(ratio):
    with pytest.raises(InputError, match="mask_ratio is"):
        build_task(built(CONFIG), mask_ratio=ratio)
