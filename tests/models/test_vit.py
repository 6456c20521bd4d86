"""The ViT on visible tokens against a plain convolution over the whole clip, and the features that it returns."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import ENCODER, GRID, built, clips

from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig, patchify
from vidstill.utils.types import Grid, InputError, gather_tokens

sizes = st.integers(1, 3)
CLIP = clips()
VISIBLE = torch.tensor([[0, 3, 7, 12, 23], [1, 2, 11, 13, 20]])
RELATIVE = replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 3), class_token=True)


def embed_by_convolution(encoder, clip):
    """Embed all tubelets as the papers do, by a 3-D convolution whose kernel is its stride."""
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (encoder.config.mean, encoder.config.std))
    t, h, w = encoder.config.tubelet
    kernel = rearrange(encoder.patch_embed.weight, "d (c t h w) -> d c t h w", c=3, t=t, h=h, w=w)
    maps = F.conv3d((clip - mean) / std, kernel, encoder.patch_embed.bias, stride=(t, h, w))
    return rearrange(maps, "b d t h w -> b (t h w) d")


@given(sizes, sizes, sizes, st.sampled_from([(1, 4, 4), (2, 4, 2), (3, 2, 4)]), st.randoms(use_true_random=False))
def test_embedding_the_visible_tubelets_is_a_convolution_of_the_whole_clip(t, h, w, tubelet, random):
    encoder = built(replace(ENCODER, tubelet=tubelet))
    clip = clips(frames=t * tubelet[0], rows=h * tubelet[1], columns=w * tubelet[2])
    grid = encoder.grid(clip)
    count = random.randint(1, grid.num_tokens)
    visible = torch.tensor([sorted(random.sample(range(grid.num_tokens), count)) for _ in range(2)])
    expected = embed_by_convolution(encoder, clip) + encoder.positions(grid, clip.device)
    torch.testing.assert_close(encoder.embed_tokens(clip), expected)
    torch.testing.assert_close(encoder.embed_tokens(clip, visible), gather_tokens(expected, visible))


@given(sizes, sizes, sizes)
def test_tubelets_by_number_are_those_of_the_whole_clip(t, h, w):
    clip = clips(frames=2 * t, rows=4 * h, columns=2 * w)
    grid = Grid(t, h, w)
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(grid.num_tokens, generator=generator) for _ in range(2)])
    assert torch.equal(patchify(clip, (2, 4, 2), indices), gather_tokens(patchify(clip, (2, 4, 2)), indices))


def test_a_tubelet_is_its_part_of_the_clip():
    step, row, column = 1, 2, 1
    index = (step * GRID.h + row) * GRID.w + column
    assert torch.equal(patchify(CLIP, (2, 4, 4))[:, index], CLIP[:, :, 2:4, 8:12, 4:8].flatten(1))


@pytest.mark.parametrize("config", [ENCODER, RELATIVE], ids=["plain", "relative"])
def test_tokens_by_number_are_those_of_the_whole_clip_in_any_order_and_batch(config):
    encoder, order = built(config), torch.tensor([3, 0, 4, 1, 2])
    indices = torch.arange(GRID.num_tokens).expand(2, -1)
    torch.testing.assert_close(encoder(CLIP, indices).tokens, encoder(CLIP).tokens)
    tokens = encoder(CLIP, VISIBLE).tokens
    torch.testing.assert_close(encoder(CLIP, VISIBLE[:, order]).tokens, tokens[:, order])
    alone = torch.cat([encoder(CLIP[k : k + 1], VISIBLE[k : k + 1]).tokens for k in range(2)])
    torch.testing.assert_close(tokens, alone)


def test_the_encoder_normalizes_its_input_by_mean_and_std():
    plain = built(replace(ENCODER, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    encoder = built(ENCODER)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(encoder((CLIP * std) + mean).tokens, plain(CLIP).tokens)


def test_layers_are_the_outputs_of_the_blocks():
    encoder = built(ENCODER)
    features = encoder(CLIP, VISIBLE, layers=(1, 2), attention=(2,))
    tokens = encoder.embed_tokens(CLIP, VISIBLE)
    for number, block in enumerate(encoder.blocks, start=1):
        tokens = block(tokens)
        torch.testing.assert_close(features.layers[number], tokens)  # a materialised attention rounds otherwise
    torch.testing.assert_close(features.tokens, encoder.norm(tokens))
    assert set(features.layers) == {1, 2}
    assert set(features.attention) == {2}
    expected = encoder.blocks[1].compute_attention_map(features.layers[1])
    assert torch.equal(features.attention[2].logits, expected.logits)


@pytest.mark.parametrize(("kind", "number"), [("layers", 1), ("attention", 2)])
def test_intermediates_alone_are_the_same_and_later_blocks_do_not_run(kind, number):
    encoder = built(ENCODER)
    complete = encoder(CLIP, VISIBLE, **{kind: (number,)})
    torch.testing.assert_close(complete.tokens, encoder(CLIP, VISIBLE).tokens)
    encoder.blocks[1].register_forward_pre_hook(lambda *_: pytest.fail("a later block ran"))
    expected = getattr(complete, kind)
    features = getattr(encoder(CLIP, VISIBLE, intermediates_only=True, **{kind: (number,)}), kind)
    assert features.keys() == {number}
    assert all(map(torch.equal, features[number], expected[number]))


def test_the_class_token_is_separate_from_the_tokens():
    encoder = built(replace(ENCODER, class_token=True))
    features = encoder(CLIP, VISIBLE, layers=(1,), attention=(2,))
    v = VISIBLE.shape[1]
    assert features.tokens.shape == features.layers[1].shape == (2, v, 24)
    assert features.cls_token.shape == features.cls_layers[1].shape == (2, 1, 24)
    assert features.attention[2].logits.shape == (2, 2, v + 1, v + 1)
    features.tokens.square().sum().backward()
    assert encoder.cls_token.grad.any()  # the others attend to it
    assert built(ENCODER)(CLIP, VISIBLE).cls_token.shape == (2, 0, 24)


def test_a_learned_class_embedding_is_the_class_tokens_alone():
    for kind in ("learned", "separable"):
        encoder = built(replace(ENCODER, class_token=True, positions=kind, learned_grid=(2, 4, 3)))
        before = encoder.embed_tokens(CLIP)
        cls_token = encoder(CLIP).cls_token
        with torch.no_grad():
            encoder.positions.cls_embedding.add_(1)
        assert torch.equal(encoder.embed_tokens(CLIP), before)
        assert not torch.equal(encoder(CLIP).cls_token, cls_token)


def test_separable_positions_are_the_sum_of_space_and_time_and_follow_the_grid():
    encoder = built(replace(ENCODER, positions="separable", learned_grid=(2, 4, 3)))
    positions = encoder.positions(GRID, CLIP.device)
    assert torch.equal(positions[12 + 5], encoder.positions.time[1] + encoder.positions.space[5])
    assert encoder(clips(frames=8, rows=8)).tokens.shape == (2, 4 * 2 * 3, 24)


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_block_that_does_not_exist_is_an_error(number):
    with pytest.raises(InputError, match=f"an encoder of 2 blocks has no block {number}; take 1 to 2"):
        built(ENCODER)(CLIP, layers=(number,))


@pytest.mark.parametrize("positions", ["sincos2d", "sinusoid"])
def test_an_image_is_a_clip_of_one_frame(positions):
    encoder = built(ViTConfig(dim=24, depth=1, heads=2, tubelet=(1, 4, 4), positions=positions))
    image = clips(frames=1)
    assert encoder.grid(image) == Grid(1, 4, 3)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    kernel = rearrange(encoder.patch_embed.weight, "d (c h w) -> d c h w", c=3, h=4, w=4)
    patches = F.conv2d((image[:, :, 0] - mean) / std, kernel, encoder.patch_embed.bias, stride=4)
    expected = rearrange(patches, "b d h w -> b (h w) d") + encoder.positions(Grid(1, 4, 3), image.device)
    torch.testing.assert_close(encoder.embed_tokens(image), expected)


def test_learned_positions_are_trained_and_follow_the_grid():
    encoder = built(replace(ENCODER, positions="learned", learned_grid=(2, 4, 3)))
    assert torch.equal(encoder.positions(GRID, CLIP.device), encoder.positions.joint)
    encoder(CLIP, VISIBLE).tokens.square().sum().backward()
    is_trained = encoder.positions.joint.grad.abs().sum(dim=1) > 0
    assert set(is_trained.nonzero().flatten().tolist()) == set(VISIBLE.flatten().tolist())
    assert encoder(clips(frames=8, rows=8)).tokens.shape == (2, 4 * 2 * 3, 24)


def test_learned_positions_without_their_grid_are_an_error():
    with pytest.raises(InputError, match="give its learned-grid"):
        replace(ENCODER, positions="learned").build()


def test_fixed_positions_mean_and_std_are_no_weights():
    names = set(built(ENCODER).state_dict())
    assert not {name for name in names if {"positions", "mean", "std"} & set(name.split("."))}


def test_half_precision_weights_take_a_clip_of_their_precision():
    encoder = built(ENCODER)
    low = built(ENCODER).bfloat16()
    assert low(CLIP.bfloat16(), VISIBLE).tokens.shape == encoder(CLIP, VISIBLE).tokens.shape
