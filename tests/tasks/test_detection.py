"""The detector (RoIAlign of the mean over time, padding), the jitter of boxes, and the loss of its training."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import ENCODER, GRID, STMAE, built, clips

from vidstill.engine.optimizer import AdamWConfig
from vidstill.tasks.detection import BoxJitter, DetectionTask, DetectorConfig
from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import Grid, InputError

ACTIONS = 7
CONFIG = DetectorConfig(encoder=ENCODER, num_actions=ACTIONS)
STMAE_ENCODER = replace(STMAE.encoder, relative_positions=True)
JITTER = BoxJitter()
BOXES = torch.tensor(  # of clips of 16 × 12 pixels: two, and one
    [[[1.0, 2.0, 9.0, 14.0], [3.5, 0.25, 6.0, 7.75]], [[0.0, 0.0, 11.0, 15.0], [0.0, 0.0, 0.0, 0.0]]]
)
IS_BOX = torch.tensor([[True, True], [True, False]])
SEED = torch.tensor([5, 2**40 + 1])


def build_task(config=CONFIG, *, jitter=None, loss_per="clip", boxes_per_clip=1.5):
    return DetectionTask(built(config), jitter=jitter, loss_per=loss_per, boxes_per_clip=boxes_per_clip)


def labels():
    return (torch.arange(4 * ACTIONS) % 3 == 0).float().view(2, 2, ACTIONS)


# ---- The model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [ENCODER, STMAE_ENCODER], ids=["videomae", "stmae"])
def test_if_all_tokens_are_equal_a_box_has_their_value_and_the_class_token_is_not_used(encoder):
    model, clip = built(replace(CONFIG, encoder=encoder)).eval(), clips(2)
    tokens = torch.randn(2, 1, 24).expand(2, 2 * 4 * 3, 24)
    torch.testing.assert_close(model.forward_head(tokens, GRID, BOXES), model.head(tokens[:, :2]))
    features = model.encoder(clip)
    assert features.cls_token.shape == (2, encoder.class_token, 24)
    torch.testing.assert_close(model(clip, BOXES), model.forward_head(features.tokens, GRID, BOXES))


def test_the_time_of_a_token_does_not_matter_and_its_position_does():
    model = built(CONFIG).eval()
    tokens = torch.randn(2, GRID.num_tokens, 24, generator=torch.Generator().manual_seed(3))
    by_time = rearrange(tokens, "b (t s) d -> b t s d", t=2)
    first = model.forward_head(tokens, GRID, BOXES)
    torch.testing.assert_close(model.forward_head(by_time.flip(1).flatten(1, 2), GRID, BOXES), first)
    assert not torch.allclose(model.forward_head(by_time.flip(2).flatten(1, 2), GRID, BOXES), first, atol=1e-3)


def test_a_box_of_one_token_has_its_value_and_without_alignment_is_shifted_by_half_a_token():
    """Aligned, with one bin and one sample: the centre of the box is the centre of the token."""
    for aligned in (True, False):
        model = built(replace(CONFIG, roi_size=1, aligned=aligned)).eval()
        tokens = torch.randn(1, 12, 24)
        boxes = torch.tensor([[[4.0 * x, 4.0 * y, 4.0 * x + 4, 4.0 * y + 4] for y in range(4) for x in range(3)]])
        assert torch.allclose(model.forward_box_features(tokens, Grid(1, 4, 3), boxes), tokens, atol=1e-5) == aligned
        columns = torch.arange(3.0).repeat(2)[None, :, None].expand(1, 6, 24)  # each token's value is its column
        features = model.forward_box_features(columns, Grid(1, 2, 3), torch.tensor([[[4.0, 0.0, 8.0, 4.0]]]))
        torch.testing.assert_close(features, torch.full((1, 1, 24), 1.0 if aligned else 1.5))


def test_a_box_does_not_depend_on_other_boxes_or_clips():
    model, clip = built(CONFIG).eval(), clips(2)
    together = model(clip, BOXES)
    alone = [model(clip[i : i + 1], BOXES[i : i + 1, k : k + 1]) for i in range(2) for k in range(2)]
    torch.testing.assert_close(together, torch.cat(alone).view_as(together))


def test_a_clip_without_boxes_has_no_logits_and_a_loss_of_zero():
    task, none = build_task(jitter=JITTER), torch.zeros(2, 0, 4)
    assert task.model(clips(2), none).shape == (2, 0, ACTIONS)
    loss = task(clips(2), none, torch.zeros(2, 0, ACTIONS), torch.zeros(2, 0, dtype=torch.bool), SEED).loss
    loss.backward()
    assert loss == 0


def test_the_head_starts_small_and_with_zero_bias():
    wide = replace(CONFIG, encoder=replace(ENCODER, dim=96), num_actions=500)
    for scale in (0.001, 1.0):
        head = replace(wide, head_init_scale=scale).build().head
        assert head.weight.std().item() == pytest.approx(0.02 * scale, rel=0.03)
        assert not head.bias.any()


def test_dropout_is_before_the_head_or_before_the_maximum():
    tokens, boxes = torch.rand(1, 24, 24) + 1, torch.tensor([[[0.0, 0.0, 12.0, 16.0]]])
    features = {}
    for dropout_on in ("head", "bins"):
        model = built(replace(CONFIG, dropout=0.5, dropout_on=dropout_on))
        logits = model.eval().forward_head(tokens, GRID, boxes)
        torch.testing.assert_close(logits, model.head(model.forward_box_features(tokens, GRID, boxes)))
        torch.manual_seed(0)
        features[dropout_on] = model.train().forward_box_features(tokens, GRID, boxes)
        assert not torch.allclose(model.forward_head(tokens, GRID, boxes), logits)
    assert torch.equal(features["head"], model.eval().forward_box_features(tokens, GRID, boxes))
    assert (features["bins"] > features["head"]).all()  # of 49 bins some stay, each twice as large


@pytest.mark.parametrize(("rows", "columns"), [(16, 12), (15, 12), (17, 10), (13, 9)])
def test_a_clip_that_does_not_divide_is_padded_with_the_mean_colour_or_cropped(rows, columns):
    clip = clips(2, rows=rows, columns=columns)
    height, width = -(-rows // 4) * 4, -(-columns // 4) * 4
    mean = torch.tensor(ENCODER.mean).view(3, 1, 1, 1)
    centred = F.pad(clip - mean, (0, width - columns, 0, height - rows))
    padding, cropping = built(CONFIG).eval(), built(replace(CONFIG, edge="drop")).eval()
    torch.testing.assert_close(padding(clip, BOXES), padding(centred + mean, BOXES))
    cropped = clip[..., : rows // 4 * 4, : columns // 4 * 4]
    torch.testing.assert_close(cropping(clip, BOXES), padding(cropped, BOXES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": replace(ENCODER, tubelet=(2, 4, 8))}, "square tubelets, and these have 4 rows and 8 columns"),
        ({"num_actions": 0}, "num_actions is 0; take 1 or more"),
        ({"roi_size": 0}, "roi_size is 0; take 1 or more"),
        ({"dropout": 1.5}, r"dropout is 1\.5; take 0 to 1"),
        ({"head_init_scale": math.nan}, "head_init_scale is nan; take 0 or more"),
    ],
)
def test_an_impossible_config_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)
    with pytest.raises(InputError, match="5 frames does not divide into tubelets of 2; take 4 frames"):
        CONFIG.build()(clips(1, frames=5), BOXES[:1])


def test_boxes_are_pooled_in_float32_under_bfloat16():
    model, tokens = built(CONFIG).eval(), torch.randn(2, GRID.num_tokens, 24).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.forward_box_features(tokens, GRID, BOXES)
    assert features.dtype == torch.bfloat16
    assert torch.equal(features, model.forward_box_features(tokens.float(), GRID, BOXES).bfloat16())


def test_a_dry_run_of_a_detector_needs_no_memory():
    with torch.device("meta"):
        task = DetectionTask(CONFIG.build(), jitter=JITTER, loss_per="box", boxes_per_clip=1.5)
        targets = torch.empty(2, 5, 4), torch.empty(2, 5, ACTIONS), torch.empty(2, 5, dtype=torch.bool)
        loss = task(torch.empty(2, 3, 4, 14, 12), *targets, torch.zeros(2, dtype=torch.long)).loss
        loss.backward()
    assert loss.is_meta
    assert all(parameter.grad is not None and parameter.grad.is_meta for parameter in task.parameters())


@pytest.mark.parametrize("encoder", [ENCODER, STMAE_ENCODER], ids=["videomae", "stmae"])
def test_the_last_norm_and_the_head_have_the_full_learning_rate_and_every_block_its_own(encoder):
    task = build_task(replace(CONFIG, encoder=encoder))
    groups = AdamWConfig(base_lr=1e-3, layer_decay=0.5).get_param_groups(task)
    scale = {name: group["lr_scale"] for group in groups for name, _ in group["params"]}
    assert len(scale) == len(list(task.parameters()))
    for name, lr_scale in scale.items():
        parts = name.removeprefix("model.").split(".")
        last = parts[0] == "head" or parts[1] == "norm"
        block = int(parts[2]) if parts[1] == "blocks" else -1
        assert lr_scale == (1.0 if last else 0.5 ** (2 - block)), name


# ---- Jitter ---------------------------------------------------------------------------------------------------------


def jitter_box(box, shares, rows, columns, outwards, inwards):
    """Jitter one box side by side, as the specification of VideoMAE's detection code describes it."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1 + 1, y2 - y1 + 1

    def between(low, high, share):
        return low + (high - low) * share

    x1 = x1 + width * between(-outwards, inwards, shares[0])
    y1 = y1 + height * between(-outwards / 2, inwards / 2, shares[1])
    x2 = x2 + width * between(-inwards, outwards, shares[2])
    y2 = y2 + height * between(-inwards / 2, outwards / 2, shares[3])
    x1, y1 = min(max(x1, 0), columns - 2), min(max(y1, 0), rows - 2)
    return [x1, y1, max(min(x2, columns - 1), x1 + 1), max(min(y2, rows - 1), y1 + 1)]


sides = st.floats(0, 30, width=32)


@given(st.lists(st.tuples(sides, sides, sides, sides), min_size=1, max_size=4), st.integers(0, 2**62))
def test_sides_move_by_shares_of_the_width_and_half_of_the_height(corners, seed):
    boxes = torch.tensor([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners])[None]
    seeds, count = torch.tensor([seed]), len(corners)
    moved = JITTER.apply(boxes, seeds, height=20, width=28)
    shares = draw_uniform(seeds, "box jitter", 4 * count).view(count, 4).tolist()
    expected = [jitter_box(box, one, 20, 28, 0.2, 0.1) for box, one in zip(boxes[0].tolist(), shares, strict=True)]
    torch.testing.assert_close(moved[0], torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-4)


def test_boxes_move_up_to_the_limits_and_independently():
    box = torch.tensor([100.0, 100.0, 199.0, 199.0])
    seeds = torch.arange(400)
    distance = JITTER.apply(box.expand(400, 3, 4), seeds, height=1000, width=1000) - box
    for side, (low, high) in enumerate([(-20, 10), (-10, 5), (-10, 20), (-5, 10)]):
        moves = distance[..., side]
        assert low <= moves.min().item() < low + 0.5
        assert high >= moves.max().item() > high - 0.5
        assert moves.mean().item() == pytest.approx((low + high) / 2, abs=(high - low) / 20)
    assert torch.corrcoef(distance.flatten(1).T).fill_diagonal_(0).abs().max() < 0.25


def test_the_jitter_of_a_box_does_not_depend_on_padding():
    more = torch.cat([BOXES, torch.zeros(2, 3, 4)], dim=1)
    few, many = (JITTER.apply(boxes, SEED, height=16, width=12) for boxes in (BOXES, more))
    assert torch.equal(few, many[:, :2])


def test_boxes_move_only_in_training_and_by_shares_of_0_to_1():
    task = build_task(jitter=JITTER)
    batch = clips(2), BOXES, labels(), IS_BOX
    moved, again, other = (task(*batch, seed).loss for seed in (SEED, SEED, SEED + 1))
    assert moved == again != other
    task.eval()
    assert task(*batch, SEED).loss == task(*batch, SEED + 1).loss == build_task()(*batch, SEED).loss != moved
    with pytest.raises(InputError, match=r"max_inward is -0\.1; take 0 to 1"):
        BoxJitter(max_inward=-0.1)


# ---- The loss -------------------------------------------------------------------------------------------------------


def compute_box_losses(task, clip, boxes, targets, is_box):
    """Return -y·log σ(z) - (1 - y)·log(1 - σ(z)), the mean over actions, of every box that is not padding."""
    logits = task.model(clip, boxes)[is_box].double()
    target = targets[is_box].double()
    each = -target * logits.sigmoid().log() - (1 - target) * (1 - logits.sigmoid()).log()
    return each.mean(dim=1)


@pytest.mark.parametrize(
    ("options", "is_box", "count"),
    [
        ({"loss_per": "clip"}, IS_BOX, 2),
        ({"loss_per": "box"}, IS_BOX, 2 * 1.5),
        ({"loss_per": "box", "boxes_per_clip": 2.0}, torch.ones_like(IS_BOX), 4),  # the mean over the boxes
    ],
    ids=["clip", "box", "mean"],
)
def test_the_loss_is_the_sum_over_boxes_per_clip_or_per_box(options, is_box, count):
    task = build_task(**options)
    expected = compute_box_losses(task, clips(2), BOXES, labels(), is_box).sum() / count
    assert task(clips(2), BOXES, labels(), is_box, SEED).loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("per", ["clip", "box"])
def test_a_step_does_not_depend_on_the_chunks_of_a_batch(per):
    """A clip with two boxes and a clip with one: only the whole batch has padding."""
    gradients = []
    for chunks in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
        task = build_task(jitter=JITTER, loss_per=per)
        for rows in chunks:
            count = int(IS_BOX[rows].sum(dim=1).max())
            clip, seed = clips(2)[rows], SEED[rows]
            output = task(clip, BOXES[rows, :count], labels()[rows, :count], IS_BOX[rows, :count], seed)
            (output.loss / len(chunks)).backward()
        gradients.append({name: parameter.grad for name, parameter in task.named_parameters()})
    assert None not in gradients[0].values()
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-4, atol=1e-7, msg=name)


def test_padding_has_no_part_in_a_step():
    steps = []
    for padding in (torch.zeros(4), torch.tensor([0.0, 0.0, 12.0, 16.0])):
        task, boxes, targets = build_task(), BOXES.clone(), labels()
        boxes[1, 1], targets[1, 1] = padding, padding.max() > 0
        loss = task(clips(2), boxes, targets, IS_BOX, SEED).loss
        loss.backward()
        steps.append((loss, task.model.head.weight.grad))
    assert torch.equal(steps[0][0], steps[1][0])
    torch.testing.assert_close(steps[0][1], steps[1][1])


def test_the_loss_falls():
    torch.manual_seed(0)
    task = DetectionTask(CONFIG.build(), jitter=JITTER, loss_per="clip", boxes_per_clip=1.5)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss = task(clips(2), BOXES, labels(), IS_BOX, SEED + step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
