"""Files that are deliberately wrong are refused, and the sentence says what is wrong with them."""

from dataclasses import replace

import pytest
import torch
from foreign_files import FILES

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.models.position_embeddings import build_position_table
from vidstill.utils.types import Grid, InputError


def rename(tensors, old, new):
    for name in [name for name in tensors if old in name]:
        tensors[name.replace(old, new)] = tensors.pop(name)


def drop(tensors, *parts):
    names = [name for name in tensors if any(part in name for part in parts)]
    assert names
    for name in names:
        del tensors[name]


def transpose(tensors, name):
    tensors[name] = tensors[name].T.contiguous()


def build_table(kind, dim):
    return build_position_table(kind, Grid(2, 4, 3), dim, torch.device("cpu"))[None]


WRONG = {
    "a tensor renamed": (
        "videomae",
        lambda t: rename(t, "encoder.blocks.1.norm1.bias", "encoder.blocks.1.norm1.beta"),
        r"lacks 1 tensor \(encoder.blocks.1.norm1.bias\); it has 1 tensor \(encoder.blocks.1.norm1.beta\) that nothing",
    ),
    "all of one kind renamed": (
        "classifier",
        lambda t: rename(t, "mlp.fc1", "mlp.c_fc"),
        r"lacks 4 tensors \(encoder.blocks.0.mlp.fc1.weight, .*\); it has 4 tensors \(blocks.0.mlp.c_fc.weight, ",
    ),
    "no bias of values": (
        "videomae",
        lambda t: drop(t, "encoder.blocks.0.attn.v_bias"),
        r"lacks 1 tensor \(encoder.blocks.0.attn.v_bias\); it was cut, renamed or changed",
    ),
    "no bias of values at all": ("classifier", lambda t: drop(t, "v_bias"), r"lacks 2 tensors \(encoder.blocks.0.attn"),
    "no bias of queries and values at all": (
        "classifier",
        lambda t: drop(t, "v_bias", "q_bias"),
        "it has no biases of queries and values, which the expected encoder has",
    ),
    "no bias of attention's output": (
        "mvd",
        lambda t: drop(t, "blocks.1.attn.proj.bias"),
        r"lacks 1 tensor \(encoder.blocks.1.attn.proj.bias\)",
    ),
    "no bias of a head": ("classifier", lambda t: drop(t, "head.bias"), r"lacks 1 tensor \(head.bias\)"),
    "no last norm": ("mvd", lambda t: drop(t, "norm.weight", "norm.bias"), r"lacks \d+ tensors \(encoder"),
    "keys without their bias": (
        "mae_st",
        lambda t: drop(t, "decoder_blocks.0.attn.k.bias"),
        r"decoder.trunk.blocks.0.attn.qkv.bias \(2 of 3 parts are there\)",
    ),
    "a weight transposed": (
        "videomae",
        lambda t: transpose(t, "encoder.blocks.0.attn.qkv.weight"),
        r"encoder.blocks.0.attn.qkv.weight as \(24, 72\) instead of \(72, 24\)",
    ),
    "a perceptron transposed": (
        "classifier",
        lambda t: transpose(t, "blocks.0.mlp.fc1.weight"),
        r"blocks.0.mlp.fc1.weight as \(24, 96\) instead of \(96, 24\)",
    ),
    "a head transposed": (
        "classifier",
        lambda t: transpose(t, "head.weight"),
        r"head.bias as \(5,\) instead of \(24,\)",
    ),
    "a decoder of other pixels": (
        "videomae",
        lambda t: t.update({"decoder.head.weight": torch.ones(48, 16), "decoder.head.bias": torch.ones(48)}),
        r"decoder.head.weight as \(48, 16\) instead of \(96, 16\)",
    ),
    "a block less than is asked for": (
        "classifier",
        lambda t: drop(t, "blocks.1."),
        r"has a depth of 1, and 2 is expected; take the size that the file was made with, or another file",
    ),
    "a block missing between others": (
        "videomae",
        lambda t: rename(t, "encoder.blocks.1.", "encoder.blocks.2."),
        r"it has a block blocks.2 and no blocks.1: it is incomplete",
    ),
    "a block of the decoder missing": (
        "mae",
        lambda t: drop(t, "decoder_blocks."),
        "it has no blocks decoder_blocks.0",
    ),
    "a generator missing between others": (
        "amd",
        lambda t: drop(t, "generators.0."),
        r"it has generators \[1\], and one between them is missing",
    ),
    "positions of another kind": (
        "mvd",
        lambda t: t.update(pos_embed=build_table("sincos2d", 32)),
        r"positions are of another kind: sincos2d \(MAE's\), and sincos3d \(MVD's\) are expected",
    ),
    "positions of no kind": (
        "mae, encoder",
        lambda t: t.update(pos_embed=torch.randn(1, 17, 24, generator=torch.Generator().manual_seed(0))),
        r"positions are of another kind: learned, and sincos2d \(MAE's\) are expected",
    ),
    "a decoder's positions of another kind": (
        "mvd",
        lambda t: t.update(pos_embed_img=build_table("sinusoid", 16)),
        r"positions are of another kind: sinusoid \(VideoMAE's\), and sincos3d \(MVD's\) are expected",
    ),
    "positions of another width": (
        "mvd",
        lambda t: t.update(pos_embed=torch.ones(1, 24, 16)),
        r"'pos_embed' is \(1, 24, 16\); a position table is \(1, tokens, 32\)",
    ),
    "places without slots": ("mae_st", lambda t: drop(t, "pos_embed_temporal"), "it has no 'pos_embed_temporal'"),
    "no positions where they are learned": (
        "mae_st",
        lambda t: drop(t, "pos_embed"),
        "it has no 'pos_embed', which every file of its layout has",
    ),
    "no class token": ("mae, encoder", lambda t: drop(t, "cls_token"), "it has no class token, which the expected"),
    "no factors of branches": (
        "classifier, learned",
        lambda t: drop(t, "gamma_"),
        "it has no layer scale .gamma_1, gamma_2., which the expected",
    ),
    "pictures of one colour": (
        "classifier",
        lambda t: t.update({"patch_embed.proj.weight": torch.ones(24, 1, 2, 4, 4)}),
        r"'patch_embed.proj.weight' is \(24, 1, 2, 4, 4\); a kernel is \(dim, 3, frames, rows, columns\)",
    ),
    "a decoder without its first layer": (
        "videomae",
        lambda t: drop(t, "encoder_to_decoder"),
        "it has no 'encoder_to_decoder.weight', which every file of its layout has",
    ),
    "a head dropped": ("classifier", lambda t: drop(t, "head."), "it has no 'head.weight', which every file"),
    "of another program": (
        "classifier",
        lambda t: (t.clear(), t.update({"conv1.weight": torch.ones(2)})),
        "neither vidstill's nor of a known layout .* its first tensor is 'conv1.weight'",
    ),
    "many faults": (
        "classifier",
        lambda t: t.update({f"layers.{name}": tensor for name, tensor in t.items()}),
        r"\d\d tensors \(.* and \d+ more\) that nothing explains",
    ),
    "a block with an immense number": (
        "classifier",
        lambda t: t.update({"blocks.999999999.norm1.bias": torch.ones(24)}),
        r"1 tensor \(blocks.999999999.norm1.bias\) that nothing explains",
    ),
    "empty": ("classifier", lambda t: t.clear(), "its first tensor is 'missing'"),
}


@pytest.mark.parametrize(("file", "change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_with_the_reason(file, change, message):
    tensors, encoder = FILES[file].tensors(), FILES[file].encoder
    import_checkpoint(Checkpoint(tensors), encoder)  # before, it is right
    change(tensors)
    with pytest.raises(InputError, match=message) as error:
        import_checkpoint(Checkpoint(tensors, source="foreign.pth"), encoder)
    assert str(error.value).startswith("foreign.pth")
    assert "\n" not in str(error.value)


def test_positions_of_another_kind_are_refused_without_a_recipe_of_mvd_too():
    message = r"positions are of another kind: sincos3d \(MVD's\), and sinusoid \(VideoMAE's\)"
    with pytest.raises(InputError, match=message):
        import_checkpoint(Checkpoint(FILES["mvd"].tensors()), replace(FILES["mvd"].encoder, positions="sinusoid"))
