"""Encoders of images as encoders of clips: a picture that stands still is seen as before."""

from dataclasses import replace

import pytest
import torch
from einops import repeat
from foreign_layout import to_foreign
from tiny_models import ENCODER, IMAGEMAE, built, clips

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.inflate import inflate_encoder
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_state_dict_strict, merge_encoder_config
from vidstill.models.position_embeddings import build_position_table, resize_position_table
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError

IMAGE = replace(ENCODER, tubelet=(1, 4, 4), positions="sincos2d", class_token=True, attention_bias="qkv")
LEARNED = replace(IMAGE, positions="learned", learned_grid=(1, 4, 3))
SEPARABLE = replace(LEARNED, positions="separable")
CLIPS = replace(IMAGE, tubelet=(2, 4, 4), positions="separable", learned_grid=(2, 4, 3))
PICTURE = clips(frames=1)


def still(picture, frames: int = 2):
    return repeat(picture, "b c 1 h w -> b c t h w", t=frames)


def file_of(module, config) -> Checkpoint:
    """As one of our runs writes it."""
    return Checkpoint(module.state_dict(), {"encoder": to_dict(config)}, "ours")


@pytest.mark.parametrize(
    ("image", "positions"),
    [
        (IMAGE, "separable"),
        (IMAGE, "learned"),
        (IMAGE, "sincos2d"),
        (LEARNED, "separable"),
        (LEARNED, "learned"),
        (SEPARABLE, "separable"),
    ],
    ids=lambda value: getattr(value, "positions", value),
)
def test_a_picture_that_stands_still_gives_the_same_features(image, positions):
    wanted = replace(CLIPS, positions=positions)
    module, encoder = built(image), wanted.build()
    load_state_dict_strict(encoder, inflate_encoder(module.state_dict(), image, wanted), "the image's")
    expected, found = module(PICTURE), encoder(still(PICTURE))
    torch.testing.assert_close(found.tokens, expected.tokens)
    torch.testing.assert_close(found.cls_token, expected.cls_token)
    slots = encoder(still(PICTURE, frames=4)).tokens.unflatten(1, (2, 12))
    torch.testing.assert_close(slots[:, 0], slots[:, 1])  # time is not known yet


def test_codes_of_slots_start_at_zero_and_the_class_tokens_as_the_image_has_it():
    module = built(LEARNED)
    ours = inflate_encoder(module.state_dict(), LEARNED, CLIPS)
    assert ours["positions.time"].shape == (2, 24)
    assert not ours["positions.time"].any()
    assert torch.equal(ours["positions.space"], module.positions.joint)
    assert torch.equal(ours["positions.cls_embedding"], module.positions.cls_embedding)
    assert not inflate_encoder(built(IMAGE).state_dict(), IMAGE, CLIPS)["positions.cls_embedding"].any()


def test_the_kernel_is_repeated_and_divided():
    module = built(IMAGE)
    kernel = inflate_encoder(module.state_dict(), IMAGE, CLIPS)["patch_embed.weight"].unflatten(1, (3, 2, 16))
    plain = module.patch_embed.weight.unflatten(1, (3, 16))
    torch.testing.assert_close(kernel[:, :, 0], plain / 2)
    torch.testing.assert_close(kernel[:, :, 1], plain / 2)


def test_codes_are_made_for_the_grid_that_is_asked_for():
    wanted = replace(CLIPS, learned_grid=(2, 6, 5))
    table = built(LEARNED).positions.joint
    found = inflate_encoder({"patch_embed.weight": torch.ones(24, 48), "positions.joint": table}, LEARNED, wanted)
    torch.testing.assert_close(found["positions.space"], resize_position_table(table, Grid(1, 4, 3), Grid(1, 6, 5)))
    found = inflate_encoder({"patch_embed.weight": torch.ones(24, 48)}, IMAGE, wanted)
    assert torch.equal(found["positions.space"], build_position_table("sincos2d", Grid(1, 6, 5), 24, PICTURE.device))


def test_what_an_encoder_of_clips_has_not_is_left_out_without_moving_its_attention():
    image = replace(IMAGE, class_token=False)
    wanted = replace(image, tubelet=(2, 4, 4), attention_bias="qv", positions="sincos3d", dim=32)
    image = replace(image, dim=32, positions="sincos3d")
    module, encoder = built(image), wanted.build()
    load_state_dict_strict(encoder, inflate_encoder(module.state_dict(), image, wanted), "the image's")
    torch.testing.assert_close(encoder(still(PICTURE)).tokens, module(PICTURE).tokens)
    with_class = built(replace(image, class_token=True))
    load_state_dict_strict(
        encoder, inflate_encoder(with_class.state_dict(), replace(image, class_token=True), wanted), "the image's"
    )


# ---- From files -----------------------------------------------------------------------------------------------------


def test_a_model_of_clips_goes_on_from_an_image_run():
    module = built(IMAGE)
    asked = replace(CLIPS, dim=96, depth=12, drop_path=0.1, mean=(0.45, 0.45, 0.45))
    config = merge_encoder_config(file_of(module, IMAGE), asked)
    assert config == replace(CLIPS, drop_path=0.1)
    encoder = config.build().eval()
    init_encoder(encoder, file_of(_wrapped(module), IMAGE), config)
    torch.testing.assert_close(encoder(still(PICTURE)).tokens, module(PICTURE).tokens)


def test_patches_stay_as_large_as_the_images():
    coarse = replace(CLIPS, tubelet=(4, 8, 8))
    assert merge_encoder_config(file_of(built(IMAGE), IMAGE), coarse).tubelet == (4, 4, 4)


def a_pre_training():
    """Image MAE's file, with the table that it computes, and the encoder in it."""
    method = built(replace(IMAGEMAE, encoder=IMAGE))
    theirs = to_foreign(method.state_dict(), build_mae_rules(IMAGE))
    table = build_position_table("sincos2d", Grid(1, 4, 4), 24, PICTURE.device)
    return theirs | {"pos_embed": torch.cat([torch.zeros(1, 24), table])[None]}, method.encoder


def an_encoder_alone():
    encoder = built(replace(LEARNED, learned_grid=(1, 4, 4)))
    names = build_classifier_rules(encoder.config)
    return to_foreign(_wrapped(encoder).state_dict(), names), encoder


@pytest.mark.parametrize("made", [a_pre_training, an_encoder_alone])
def test_a_model_of_clips_goes_on_from_an_authors_image_file(made):
    theirs, encoder = made()
    asked = replace(CLIPS, learned_grid=(2, 4, 4))
    weights, _ = import_checkpoint(Checkpoint(theirs, source="theirs.pth"), asked)
    assert merge_encoder_config(weights, asked) == asked
    found, square = asked.build(), clips(frames=1, columns=16)
    init_encoder(found, weights, asked)
    torch.testing.assert_close(found(still(square)).tokens, encoder(square).tokens)


def test_an_authors_image_file_is_told_from_one_of_clips_by_its_kernel():
    theirs, encoder = an_encoder_alone()
    found = infer_encoder_config(import_checkpoint(Checkpoint(theirs), ENCODER)[0])
    assert found == encoder.config
    assert (found.tubelet, found.positions, found.learned_grid) == ((1, 4, 4), "learned", (1, 4, 4))
    with pytest.raises(
        InputError, match=r"positions are of another kind: learned, and sincos2d \(MAE's\) are expected"
    ):
        import_checkpoint(Checkpoint(theirs), IMAGE)


def test_computed_codes_are_learned_from_then_on_where_a_recipe_says_so():
    module = built(IMAGE)
    weights = file_of(_wrapped(module), IMAGE)
    config = merge_encoder_config(weights, replace(IMAGE, positions="learned", learned_grid=(1, 4, 3)))
    assert config.positions == "learned"
    encoder = config.build()
    init_encoder(encoder, weights, config)
    torch.testing.assert_close(encoder(PICTURE).tokens, module(PICTURE).tokens)
    assert encoder.positions.joint.requires_grad
    assert not encoder.positions.cls_embedding.any()


def test_an_encoder_of_clips_is_not_stretched():
    module = built(ENCODER)
    longer = replace(ENCODER, tubelet=(4, 4, 4))
    assert merge_encoder_config(file_of(module, ENCODER), longer).tubelet == (2, 4, 4)
    with pytest.raises(InputError, match="take the size that the file was made with"):
        init_encoder(longer.build(), file_of(_wrapped(module), ENCODER), longer)


def _wrapped(encoder) -> torch.nn.Module:
    """The encoder as a part of a method, as files have it."""
    return torch.nn.ModuleDict({"encoder": encoder})
