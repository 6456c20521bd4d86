"""Image encoders as video encoders: a still clip gives the features of its image."""

from dataclasses import replace

import pytest
import torch
from einops import repeat
from foreign_files import make_checkpoint, remove_prefix
from tiny_models import ENCODER, IMAGEMAE, built, clips

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.inflate import inflate_encoder
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_state_dict_strict, merge_encoder_config
from vidstill.models.position_embeddings import build_position_table, resize_position_table
from vidstill.utils.types import Grid, InputError

IMAGE = replace(ENCODER, tubelet=(1, 4, 4), positions="sincos2d", class_token=True, attention_bias="qkv")
LEARNED = replace(IMAGE, positions="learned", learned_grid=(1, 4, 3))
SEPARABLE = replace(LEARNED, positions="separable")
VIDEO = replace(IMAGE, tubelet=(2, 4, 4), positions="separable", learned_grid=(2, 4, 3))
FRAME = clips(frames=1)


def repeat_frame(frame, frames: int = 2):
    return repeat(frame, "b c 1 h w -> b c t h w", t=frames)


def build_inflated(module, image_config, video_config):
    encoder = video_config.build()
    state = inflate_encoder(module.state_dict(), image_config, video_config)
    load_state_dict_strict(encoder, state, "the image's")
    return encoder


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
def test_a_still_clip_gives_the_features_of_its_image(image, positions):
    module = built(image)
    encoder = build_inflated(module, image, replace(VIDEO, positions=positions))
    features, expected = encoder(repeat_frame(FRAME)), module(FRAME)
    torch.testing.assert_close(features.tokens, expected.tokens)
    torch.testing.assert_close(features.cls_token, expected.cls_token)
    steps = encoder(repeat_frame(FRAME, frames=4)).tokens.unflatten(1, (2, 12))
    torch.testing.assert_close(steps[:, 0], steps[:, 1])  # temporal positions are zero


def test_temporal_positions_start_at_zero_and_the_kernel_is_repeated_and_divided():
    module = built(LEARNED)
    state = inflate_encoder(module.state_dict(), LEARNED, VIDEO)
    assert state["positions.time"].shape == (2, 24)
    assert not state["positions.time"].any()
    assert torch.equal(state["positions.space"], module.positions.joint)
    assert torch.equal(state["positions.cls_embedding"], module.positions.cls_embedding)
    kernel = state["patch_embed.weight"].unflatten(1, (3, 2, 16))
    expected = module.patch_embed.weight.unflatten(1, (3, 1, 16)) / 2
    torch.testing.assert_close(kernel, expected.expand_as(kernel))
    assert not inflate_encoder(built(IMAGE).state_dict(), IMAGE, VIDEO)["positions.cls_embedding"].any()


def test_positions_are_made_for_the_grid_of_the_video_encoder():
    larger, kernel = replace(VIDEO, learned_grid=(2, 6, 5)), {"patch_embed.weight": torch.ones(24, 48)}
    table = built(LEARNED).positions.joint
    state = inflate_encoder(kernel | {"positions.joint": table}, LEARNED, larger)
    torch.testing.assert_close(state["positions.space"], resize_position_table(table, Grid(1, 4, 3), Grid(1, 6, 5)))
    state = inflate_encoder(kernel, IMAGE, larger)
    assert torch.equal(state["positions.space"], build_position_table("sincos2d", Grid(1, 6, 5), 24, FRAME.device))


@pytest.mark.parametrize("class_token", [False, True])
def test_what_a_video_encoder_lacks_is_left_out_without_changing_its_attention(class_token):
    image = replace(IMAGE, class_token=class_token, dim=32, positions="sincos3d")
    module = built(image)
    video = replace(image, class_token=False, tubelet=(2, 4, 4), attention_bias="qv")
    encoder = build_inflated(module, image, video)
    if not class_token:
        torch.testing.assert_close(encoder(repeat_frame(FRAME)).tokens, module(FRAME).tokens)


# ---- From files -----------------------------------------------------------------------------------------------------


def test_a_video_model_starts_from_an_image_run():
    checkpoint, module = make_checkpoint(IMAGE), built(IMAGE)
    recipe = replace(VIDEO, dim=96, depth=12, drop_path=0.1, mean=(0.45, 0.45, 0.45))
    config = merge_encoder_config(checkpoint, recipe)
    assert config == replace(VIDEO, drop_path=0.1)
    encoder = config.build().eval()
    init_encoder(encoder, checkpoint, config)
    torch.testing.assert_close(encoder(repeat_frame(FRAME)).tokens, module(FRAME).tokens)
    assert merge_encoder_config(checkpoint, replace(VIDEO, tubelet=(4, 8, 8))).tubelet == (4, 4, 4)


FOREIGN_IMAGE = replace(LEARNED, learned_grid=(1, 4, 4))


def export_image_encoder() -> dict[str, torch.Tensor]:
    return remove_prefix(export_state_dict(make_checkpoint(FOREIGN_IMAGE), "mae"))


def export_image_pretraining() -> dict[str, torch.Tensor]:
    return export_state_dict(make_checkpoint(replace(IMAGEMAE, encoder=IMAGE)), "mae")


@pytest.mark.parametrize("is_pretraining", [True, False])
def test_a_video_model_starts_from_an_image_file_of_the_authors(is_pretraining):
    tensors = export_image_pretraining() if is_pretraining else export_image_encoder()
    module = built(replace(IMAGEMAE, encoder=IMAGE)).encoder if is_pretraining else built(FOREIGN_IMAGE)
    recipe = replace(VIDEO, learned_grid=(2, 4, 4))
    checkpoint, _ = import_checkpoint(Checkpoint(tensors, source="foreign.pth"), recipe)
    assert merge_encoder_config(checkpoint, recipe) == recipe
    encoder, square = recipe.build(), clips(frames=1, columns=16)
    init_encoder(encoder, checkpoint, recipe)
    torch.testing.assert_close(encoder(repeat_frame(square)).tokens, module(square).tokens)


def test_an_image_file_is_distinguished_from_a_video_file_by_its_kernel():
    tensors = export_image_encoder()
    assert infer_encoder_config(import_checkpoint(Checkpoint(tensors), ENCODER)[0]) == FOREIGN_IMAGE
    message = r"positions are of another kind: learned, and sincos2d \(MAE's\) are expected"
    with pytest.raises(InputError, match=message):
        import_checkpoint(Checkpoint(tensors), IMAGE)


def test_fixed_positions_become_learned_ones_where_a_recipe_says_so():
    checkpoint, module = make_checkpoint(IMAGE), built(IMAGE)
    config = merge_encoder_config(checkpoint, replace(IMAGE, positions="learned", learned_grid=(1, 4, 3)))
    assert config.positions == "learned"
    encoder = config.build()
    init_encoder(encoder, checkpoint, config)
    torch.testing.assert_close(encoder(FRAME).tokens, module(FRAME).tokens)
    assert encoder.positions.joint.requires_grad
    assert not encoder.positions.cls_embedding.any()


def test_a_video_encoder_is_not_inflated():
    checkpoint, longer = make_checkpoint(ENCODER), replace(ENCODER, tubelet=(4, 4, 4))
    assert merge_encoder_config(checkpoint, longer).tubelet == (2, 4, 4)
    with pytest.raises(InputError, match="take the size that the file was made with"):
        init_encoder(longer.build(), checkpoint, longer)
