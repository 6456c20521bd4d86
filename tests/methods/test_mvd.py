"""MVD against its equations, its ablations, and its students of images."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import CLASSES, GRID, MVD, TEACHER, built, clips
from torch import nn

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


def like(config, other):
    """A method of this configuration with the weights, and the teachers' weights, of another."""
    method = built(config, seed=1)
    method.load_state_dict({name: other.state_dict()[name] for name in method.state_dict()})
    for name, teacher in method.teachers.items():
        teacher.model.load_state_dict(other.teachers[name].model.state_dict())
    return method


# ---- The loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TORCH)
def test_the_loss_is_a_weighted_sum_of_means_over_hidden_tokens_and_channels(kind):
    image, video = replace(MVD.image, loss=kind, weight=0.7), replace(MVD.video, loss=kind, weight=1.5)
    config = replace(MVD, image=image, video=video)
    method = built(config)
    output = method(CLIP, seed=SEED)
    tokens = method.encoder(CLIP, MASK.visible).tokens

    frames = [method.teachers["image"].model(CLIP[:, :, frame, None], layers=(2,)).layers[2] for frame in (0, 2)]
    image = gather_tokens(torch.cat(frames, dim=1), MASK.masked)
    video = gather_tokens(method.teachers["video"].model(CLIP, layers=(3,)).layers[3], MASK.masked)
    for name, decoder, target in (
        ("image", method.decoders["image"], image),
        ("video", method.decoders["video"], video),
    ):
        apart = TORCH[kind](decoder(tokens, MASK.visible, MASK.masked, GRID), target)
        torch.testing.assert_close(output.parts[name], apart)
    torch.testing.assert_close(output.loss, 0.7 * output.parts["image"] + 1.5 * output.parts["video"])


@pytest.mark.parametrize("alone", ["image", "video"])
def test_one_teacher_alone_is_both_where_the_other_counts_nothing(alone):
    other = {"image": "video", "video": "image"}[alone]
    both = built(replace(MVD, **{other: replace(getattr(MVD, other), weight=0.0)}))
    single = like(replace(MVD, **{other: None}), both)
    expected, found = both(CLIP, seed=SEED), single(CLIP, seed=SEED)
    assert torch.equal(found.loss, expected.loss)
    assert found.parts.keys() == {alone}
    assert expected.parts.keys() == {"image", "video"}
    assert not [name for name in single.state_dict() if name.startswith(f"decoders.{other}")]


def test_what_counts_nothing_is_reported_and_its_decoder_is_not_moved():
    method = built(replace(MVD, video=replace(MVD.video, weight=0.0)))
    output = method(CLIP, seed=SEED)
    output.loss.backward()
    assert output.parts["video"] > 0
    assert all(not parameter.grad.any() for parameter in method.decoders["video"].parameters())
    assert all(parameter.grad.any() for parameter in method.decoders["image"].parameters())


def test_normalised_targets_do_not_know_a_tokens_mean_and_deviation():
    features = built(MVD).forward_teachers(CLIP, GRID)
    method = built(replace(MVD, normalize_targets=True))
    targets = method.select_targets(features, MASK)
    moved = method.select_targets({name: 3.0 * every + 2.0 for name, every in features.items()}, MASK)
    for name, rows in targets.items():
        # 1e-6 is added to the variance, and a mean is taken off that the numbers are rounded at
        torch.testing.assert_close(moved[name], rows, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rows.mean(dim=-1), torch.zeros(rows.shape[:2]), rtol=0, atol=1e-5)
        torch.testing.assert_close(rows.std(dim=-1, correction=0), torch.ones(rows.shape[:2]), rtol=0, atol=1e-4)


def test_a_target_is_what_a_teacher_makes_of_a_hidden_token():
    method = built(MVD)
    features = method.forward_teachers(CLIP, GRID)
    for name, rows in method.select_targets(features, MASK).items():
        assert torch.equal(rows, gather_tokens(features[name], MASK.masked))


# ---- The teachers ---------------------------------------------------------------------------------------------------


def test_each_teacher_looks_once_at_a_batch_and_without_a_graph(monkeypatch):
    calls = []
    forward = FrozenTeacher.forward
    monkeypatch.setattr(
        FrozenTeacher, "forward", lambda self, *args, **kwargs: calls.append(self) or forward(self, *args, **kwargs)
    )
    method = built(MVD)
    method(CLIP, seed=SEED)
    assert calls == list(method.teachers.values())
    assert not any(
        features.requires_grad for features in method.forward_teachers(clips().requires_grad_(), GRID).values()
    )


def test_teachers_look_in_the_runs_precision():
    method = built(MVD)
    exact = method.forward_teachers(CLIP, GRID)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = method.forward_teachers(CLIP, GRID)
    for name, features in exact.items():
        assert not torch.equal(rounded[name].float(), features)
        torch.testing.assert_close(rounded[name].float(), features, rtol=0.05, atol=0.1)  # 8 bits, three blocks


def test_the_final_norms_of_teachers_are_not_applied():
    method, other = built(MVD), built(MVD)
    with torch.no_grad():
        for teacher in other.teachers.values():
            teacher.model.norm.weight.mul_(5)
    assert torch.equal(method(CLIP, seed=SEED).loss, other(CLIP, seed=SEED).loss)


def test_of_each_tubelet_the_image_teacher_sees_the_first_frame_or_all():
    first, every = built(MVD), built(replace(MVD, image_frames="all"))
    every.teachers["image"].model.load_state_dict(first.teachers["image"].model.state_dict())
    width = MVD.image.model.dim
    assert first.forward_teachers(CLIP, GRID)["image"].shape[-1] == width
    assert every.forward_teachers(CLIP, GRID)["image"].shape[-1] == 2 * width
    assert torch.equal(
        every.forward_teachers(CLIP, GRID)["image"][..., :width], first.forward_teachers(CLIP, GRID)["image"]
    )


def test_a_video_teacher_of_longer_tubelets_teaches_each_slot_within():
    """Table 13: tubelets of 4 frames."""
    method = built(replace(MVD, video=TeacherBranch(model=replace(TEACHER, tubelet=(4, 4, 4)))))
    features = method.forward_teachers(CLIP, GRID)["video"].unflatten(1, (GRID.t, -1))
    assert torch.equal(features[:, 0], features[:, 1])
    method(CLIP, seed=SEED).loss.backward()


def test_an_image_teacher_of_other_patches_has_a_target_for_every_token():
    teacher = replace(MVD.image.model, tubelet=(1, 3, 3))
    method = built(replace(MVD, image=TeacherBranch(model=teacher)))
    shown = F.interpolate(CLIP[:, :, 0], size=(12, 9), mode="bilinear", antialias=True)[:, :, None]
    expected = method.teachers["image"].model(shown, layers=(2,)).layers[2]
    torch.testing.assert_close(method.forward_teachers(CLIP, GRID)["image"][:, : GRID.h * GRID.w], expected)


# ---- The student ----------------------------------------------------------------------------------------------------


def test_all_linear_layers_of_a_student_start_by_xaviers_rule():
    torch.manual_seed(0)
    method = replace(MVD, encoder=replace(MVD.encoder, class_token=True)).build()
    for decoder in method.decoders.values():
        bound = math.sqrt(6 / (32 + 16))  # torch's own would be 1 / sqrt(32)
        assert 0.95 * bound < decoder.embed.weight.abs().max() <= bound
        assert not decoder.embed.bias.any()
        assert decoder.trunk.mask_token.abs().max() <= 0.02
    assert 0 < method.encoder.cls_token.abs().max() < 1e-5


def test_decoders_may_take_the_encoders_class_token_and_have_none_of_their_own():
    config = replace(MVD, encoder=replace(MVD.encoder, class_token=True))
    told = built(replace(config, decoder=replace(MVD.decoder, class_token="encoder")))
    untold = like(config, told)
    assert not torch.equal(told(CLIP, seed=SEED).loss, untold(CLIP, seed=SEED).loss)
    assert told.state_dict().keys() == untold.state_dict().keys()  # it has no code


def test_a_class_token_has_no_part_in_a_classifiers_mean():
    encoder = replace(MVD.encoder, class_token=True)
    model = built(ClassifierConfig(encoder=encoder, num_classes=CLASSES))
    tokens = model.encoder(CLIP, layers=(2,)).layers[2]
    assert tokens.shape[1] == GRID.num_tokens
    torch.testing.assert_close(model.forward_features(CLIP), model.norm(tokens.mean(dim=1)))


@pytest.mark.parametrize("distill", ["visible", "full"])
def test_per_token_distillation_maps_what_is_seen_by_a_linear_layer(distill):
    """Table 11; no mask token, no decoder."""
    config = replace(MVD, distillation_tokens=distill)
    method = built(config)
    heads = dict(method.decoders)
    assert all(type(head) is nn.Linear for head in heads.values())
    assert len(list(method.parameters())) == len(list(method.encoder.parameters())) + 4
    mask = MASK if distill == "visible" else TubeMask(ratio=0.0).draw(SEED, GRID)
    features, output = method.forward_teachers(CLIP, GRID), method(CLIP, seed=SEED)
    tokens = method.encoder(CLIP, mask.visible).tokens
    for name, head in heads.items():
        guess = tokens @ head.weight.T + head.bias
        torch.testing.assert_close(
            output.parts[name], F.smooth_l1_loss(guess, gather_tokens(features[name], mask.visible))
        )


def test_a_full_input_needs_no_seed_and_is_a_mask_that_hides_nothing():
    full = built(replace(MVD, distillation_tokens="full"))
    visible = like(replace(MVD, distillation_tokens="visible", mask=TubeMask(ratio=0.0)), full)
    assert torch.equal(full(CLIP).loss, visible(CLIP, seed=SEED).loss)
    assert torch.equal(full(CLIP, mask=MASK).loss, visible(CLIP, mask=MASK).loss)


def test_masked_reconstruction_does_not_depend_on_the_teachers_features_at_seen_tokens():
    for distill, places in (("masked", MASK.visible), ("visible", MASK.masked)):
        method = built(replace(MVD, distillation_tokens=distill))
        features = method.forward_teachers(CLIP, GRID)
        changed = {
            name: every.scatter(1, places[..., None].expand(-1, -1, every.shape[-1]), 0.0)
            for name, every in features.items()
        }
        guesses = method.forward_student(CLIP, MASK)
        outputs = [method.forward_loss(guesses, method.select_targets(each, MASK)) for each in (features, changed)]
        assert torch.equal(outputs[0].loss, outputs[1].loss), distill


def test_a_student_of_images_rebuilds_what_the_image_teacher_makes_of_hidden_patches():
    """Table 14."""
    method, images = built(IMAGES), clips(frames=1)
    grid = method.encoder.grid(images)
    mask = IMAGES.mask.draw(SEED, grid)
    seen = method.encoder(images, mask.visible)
    assert seen.cls_token.shape[1] == 1
    guess = method.decoders["image"](seen.tokens, mask.visible, mask.masked, grid, seen.cls_token)
    target = gather_tokens(method.teachers["image"].model(images, layers=(2,)).layers[2], mask.masked)
    assert target.shape[1] == 9  # of 12
    output = method(images, seed=SEED)
    torch.testing.assert_close(output.loss, F.smooth_l1_loss(guess, target))
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


# ---- What cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None, "video": None}, "nothing to learn"),
        ({"image": replace(MVD.image, weight=0.0), "video": UNWEIGHTED}, "whose weight is not 0"),
        ({"image": None, "video": UNWEIGHTED}, "nothing to learn"),
        ({"image": replace(MVD.image, weight=-1.0)}, "weight is -1.0"),
        ({"video": MVD.image}, "this model sees single frames; give it as --method.image"),
        ({"image": MVD.video}, "this model sees clips; give it as --method.video"),
    ],
)
def test_teachers_from_whom_nothing_can_be_learned(options, message):
    with pytest.raises(InputError, match=message):
        replace(MVD, **options).build()


def test_a_decoder_cannot_take_a_class_token_that_the_encoder_has_not():
    with pytest.raises(InputError, match=r"give --method.encoder.class-token"):
        built(replace(MVD, decoder=replace(MVD.decoder, class_token="encoder")))(CLIP, seed=SEED)
