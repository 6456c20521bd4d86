"""MVD against its equations, its ablations, and its students of images."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import CLASSES, GRID, MVD, TEACHER, built, clips
from torch import nn

from vidstill.engine.distributed import Runtime
from vidstill.methods.common.masking import RandomMask, TubeMask
from vidstill.methods.common.teacher import FrozenTeacher
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.models.decoder import Decoder
from vidstill.models.vit import IMAGE_BASE
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError, gather_tokens

CLIP = clips()
SEED = torch.tensor([11, 12])
UNWEIGHTED = replace(MVD.video, weight=0.0)
MASK = MVD.mask.draw(SEED, GRID)
TORCH = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
IMAGES = replace(  # masked feature modelling of images, by the sizes of MAE: table 14
    MVD,
    encoder=replace(MVD.encoder, tubelet=(1, 4, 4), positions="sincos2d", class_token=True, attention_bias="qkv"),
    decoder=replace(MVD.decoder, positions="sincos2d", class_token="encoder", attention_bias="qkv"),
    video=None,
    mask=RandomMask(ratio=0.75),
)


def build_like(config, other):
    """Build a method with the weights, and the teachers' weights, of another."""
    method = built(config, seed=1)
    method.load_state_dict({name: other.state_dict()[name] for name in method.state_dict()})
    for name, teacher in method.teachers.items():
        teacher.model.load_state_dict(other.teachers[name].model.state_dict())
    return method


# ---- The loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TORCH)
def test_the_loss_is_a_weighted_sum_of_means_over_masked_tokens_and_channels(kind):
    image, video = replace(MVD.image, loss=kind, weight=0.7), replace(MVD.video, loss=kind, weight=1.5)
    method = built(replace(MVD, image=image, video=video))
    output = method(CLIP, seed=SEED)
    features = method.encoder(CLIP, MASK.visible)
    frames = [method.teachers["image"].model(CLIP[:, :, frame, None], layers=(2,)).layers[2] for frame in (0, 2)]
    targets = {"image": torch.cat(frames, dim=1), "video": method.teachers["video"].model(CLIP, layers=(3,)).layers[3]}
    for name, target in targets.items():
        prediction = method.decoders[name](features, MASK.visible, MASK.masked, GRID)
        torch.testing.assert_close(output.parts[name], TORCH[kind](prediction, gather_tokens(target, MASK.masked)))
    torch.testing.assert_close(output.loss, 0.7 * output.parts["image"] + 1.5 * output.parts["video"])


@pytest.mark.parametrize(("name", "other"), [("image", "video"), ("video", "image")])
def test_a_teacher_of_weight_0_is_reported_and_changes_nothing(name, other):
    both = built(replace(MVD, **{other: replace(getattr(MVD, other), weight=0.0)}))
    single = build_like(replace(MVD, **{other: None}), both)
    expected, output = both(CLIP, seed=SEED), single(CLIP, seed=SEED)
    assert torch.equal(output.loss, expected.loss)
    assert output.parts.keys() == {name}
    assert expected.parts.keys() == {"image", "video"}
    assert expected.parts[other] > 0
    assert not [key for key in single.state_dict() if key.startswith(f"decoders.{other}")]
    expected.loss.backward()
    assert all(not parameter.grad.any() for parameter in both.decoders[other].parameters())
    assert all(parameter.grad.any() for parameter in both.decoders[name].parameters())


def test_targets_are_the_teachers_features_of_masked_tokens_and_may_be_normalized():
    features = built(MVD).forward_teachers(CLIP, GRID)
    for name, target in built(MVD).select_targets(features, MASK).items():
        assert torch.equal(target, gather_tokens(features[name], MASK.masked))
    method = built(replace(MVD, normalize_targets=True))
    moved = method.select_targets({name: 3.0 * each + 2.0 for name, each in features.items()}, MASK)
    for name, target in method.select_targets(features, MASK).items():
        # 1e-6 is added to the variance, and a mean is subtracted that the numbers are rounded at
        torch.testing.assert_close(moved[name], target, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(target.mean(dim=-1), torch.zeros(target.shape[:2]), rtol=0, atol=1e-5)
        torch.testing.assert_close(target.std(dim=-1, correction=0), torch.ones(target.shape[:2]), rtol=0, atol=1e-4)


# ---- The teachers ---------------------------------------------------------------------------------------------------


def test_each_teacher_runs_once_per_batch_and_without_a_graph(monkeypatch):
    calls, forward = [], FrozenTeacher.forward
    monkeypatch.setattr(
        FrozenTeacher, "forward", lambda self, *args, **kwargs: calls.append(self) or forward(self, *args, **kwargs)
    )
    method = built(MVD)
    method(CLIP, seed=SEED)
    assert calls == list(method.teachers.values())
    features = method.forward_teachers(clips().requires_grad_(), GRID)
    assert not any(each.requires_grad for each in features.values())


def test_teachers_run_in_the_runs_precision():
    method = built(MVD)
    exact = method.forward_teachers(CLIP, GRID)
    with Runtime("bf16").compute(method):
        rounded = method.forward_teachers(CLIP, GRID)
    for name, features in exact.items():
        assert not torch.equal(rounded[name].float(), features)
        torch.testing.assert_close(rounded[name].float(), features, rtol=0.05, atol=0.1)  # 8 bits, three blocks


def test_a_model_that_teaches_keeps_its_precision_where_else_it_is_used():
    method = built(MVD)
    model = method.teachers["video"].model
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    with Runtime("bf16").compute(method):
        method(CLIP, seed=SEED)
    assert {each.dtype for each in method.teachers["video"].model.parameters()} == {torch.bfloat16}
    assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())


def test_the_image_teacher_sees_the_first_frame_of_each_tubelet_or_all():
    first, every = built(MVD), built(replace(MVD, image_frames="all"))
    every.teachers["image"].model.load_state_dict(first.teachers["image"].model.state_dict())
    width = MVD.image.model.dim
    expected, features = (method.forward_teachers(CLIP, GRID)["image"] for method in (first, every))
    assert (expected.shape[-1], features.shape[-1]) == (width, 2 * width)
    assert torch.equal(features[..., :width], expected)


def test_each_time_step_of_longer_tubelets_teaches_all_within_it():
    """Table 13: tubelets of 4 frames."""
    method = built(replace(MVD, video=TeacherBranch(model=replace(TEACHER, tubelet=(4, 4, 4)))))
    features = method.forward_teachers(CLIP, GRID)["video"].unflatten(1, (GRID.t, -1))
    assert torch.equal(features[:, 0], features[:, 1])
    method(CLIP, seed=SEED).loss.backward()


def test_an_image_teacher_of_other_patches_has_a_target_for_every_token():
    teacher = replace(MVD.image.model, tubelet=(1, 3, 3))
    method = built(replace(MVD, image=TeacherBranch(model=teacher)))
    resized = F.interpolate(CLIP[:, :, 0], size=(12, 9), mode="bilinear", antialias=True)[:, :, None]
    expected = method.teachers["image"].model(resized, layers=(2,)).layers[2]
    torch.testing.assert_close(method.forward_teachers(CLIP, GRID)["image"][:, : GRID.h * GRID.w], expected)


# ---- The student ----------------------------------------------------------------------------------------------------


def test_all_linear_layers_of_a_student_have_xavier_weights():
    torch.manual_seed(0)
    method = replace(MVD, encoder=replace(MVD.encoder, class_token=True)).build()
    for decoder in method.decoders.values():
        bound = math.sqrt(6 / (32 + 16))  # torch's own would be 1 / sqrt(32)
        assert 0.95 * bound < decoder.embed.weight.abs().max() <= bound
        assert not decoder.embed.bias.any()
        assert decoder.trunk.mask_token.abs().max() <= 0.02
    assert 0 < method.encoder.cls_token.abs().max() < 1e-5


def test_decoders_may_use_the_encoders_class_token_and_have_none_of_their_own():
    config = replace(MVD, encoder=replace(MVD.encoder, class_token=True))
    method = built(replace(config, decoder=replace(MVD.decoder, class_token="encoder")))
    without = build_like(config, method)
    assert not torch.equal(method(CLIP, seed=SEED).loss, without(CLIP, seed=SEED).loss)
    assert method.state_dict().keys() == without.state_dict().keys()  # it has no position embedding


def test_the_class_token_is_not_part_of_a_classifiers_mean():
    model = built(ClassifierConfig(encoder=replace(MVD.encoder, class_token=True), num_classes=CLASSES))
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]
    assert tokens.shape[1] == GRID.num_tokens
    torch.testing.assert_close(model.forward_features(CLIP), model.norm(tokens.mean(dim=1)))


@pytest.mark.parametrize("kind", ["visible", "full"])
def test_per_token_distillation_maps_visible_tokens_by_a_linear_layer(kind):
    """Table 11; no mask token, no decoder."""
    method = built(replace(MVD, distillation_tokens=kind))
    assert all(type(head) is nn.Linear for head in method.decoders.values())
    assert len(list(method.parameters())) == len(list(method.encoder.parameters())) + 4
    mask = MASK if kind == "visible" else TubeMask(ratio=0.0).draw(SEED, GRID)
    features, output = method.forward_teachers(CLIP, GRID), method(CLIP, seed=SEED)
    tokens = method.encoder(CLIP, mask.visible).tokens
    for name, head in method.decoders.items():
        prediction, target = tokens @ head.weight.T + head.bias, gather_tokens(features[name], mask.visible)
        torch.testing.assert_close(output.parts[name], F.smooth_l1_loss(prediction, target))


def test_full_input_needs_no_seed_and_is_a_mask_that_masks_nothing():
    full = built(replace(MVD, distillation_tokens="full"))
    visible = build_like(replace(MVD, distillation_tokens="visible", mask=TubeMask(ratio=0.0)), full)
    assert torch.equal(full(CLIP).loss, visible(CLIP, seed=SEED).loss)
    assert torch.equal(full(CLIP, mask=MASK).loss, visible(CLIP, mask=MASK).loss)


@pytest.mark.parametrize(("kind", "unused"), [("masked", MASK.visible), ("visible", MASK.masked)])
def test_the_loss_does_not_depend_on_the_teachers_features_at_other_tokens(kind, unused):
    method = built(replace(MVD, distillation_tokens=kind))
    features, predictions = method.forward_teachers(CLIP, GRID), method.forward_student(CLIP, MASK)
    changed = {
        name: each.scatter(1, unused[..., None].expand(-1, -1, each.shape[-1]), 0.0) for name, each in features.items()
    }
    losses = [method.forward_loss(predictions, method.select_targets(each, MASK)).loss for each in (features, changed)]
    assert torch.equal(*losses)


def test_a_student_of_images_predicts_the_image_teachers_features_of_masked_patches():
    """Table 14."""
    method, images = built(IMAGES), clips(frames=1)
    grid = method.encoder.grid(images)
    mask = IMAGES.mask.draw(SEED, grid)
    features = method.encoder(images, mask.visible)
    assert features.cls_token.shape[1] == 1
    prediction = method.decoders["image"](features, mask.visible, mask.masked, grid)
    target = gather_tokens(method.teachers["image"].model(images, layers=(2,)).layers[2], mask.masked)
    assert target.shape[1] == 9  # of 12
    output = method(images, seed=SEED)
    torch.testing.assert_close(output.loss, F.smooth_l1_loss(prediction, target))
    output.loss.backward()
    assert all(parameter.grad.any() for parameter in method.parameters())


def test_a_full_size_student_of_images_has_maes_encoder_and_a_shallow_decoder():
    decoder = replace(MVDConfig().decoder, positions="sincos2d", class_token="encoder", attention_bias="qkv")
    config = MVDConfig(encoder=IMAGE_BASE, decoder=decoder, video=None, mask=RandomMask(ratio=0.75))
    with torch.device("meta"):
        method = config.build()
        output = method(torch.rand(2, 3, 1, 224, 224), seed=torch.zeros(2, dtype=torch.long))
    assert isinstance(method.decoders["image"], Decoder)
    assert output.loss.shape == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None, "video": None}, "nothing to learn"),
        ({"image": replace(MVD.image, weight=0.0), "video": UNWEIGHTED}, "whose weight is not 0"),
        ({"image": None, "video": UNWEIGHTED}, "nothing to learn"),
        ({"image": replace(MVD.image, weight=-1.0)}, "weight is -1.0"),
        ({"extra": (replace(MVD.video, weight=-1.0),)}, r"weight is -1\.0; take 0 or more"),
        ({"video": MVD.image}, "this model sees single frames; give it as --method.image"),
        ({"image": MVD.video}, "this model sees clips; give it as --method.video"),
    ],
)
def test_teachers_from_whom_nothing_can_be_learned_are_an_error(options, message):
    with pytest.raises(InputError, match=message):
        replace(MVD, **options).build()
