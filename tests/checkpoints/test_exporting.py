"""Our weights in the authors' files: the fixed tables that they store, and the models that they do not have."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from foreign_files import DMAE, MAE, MVD, classifier, make_checkpoint
from tiny_models import AMD, DECODER, ENCODER, METHODS, TEACHER, VIDEOMAE

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.export import describe_omissions, export_state_dict, write_foreign_checkpoint
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.methods.amd import AMDConfig
from vidstill.methods.mvd import MVDConfig
from vidstill.methods.stmae import build_stmae_vit_config
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import BASE
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError

STMAE_ENCODER = replace(build_stmae_vit_config(ENCODER), learned_grid=(2, 4, 3))


@pytest.mark.parametrize(
    ("layout", "config", "kind", "grid", "widths"),
    [
        ("mae", MAE, "sincos2d", Grid(1, 4, 4), {"pos_embed": 24, "decoder_pos_embed": 16}),
        ("mvd", MVD, "sincos3d", Grid(2, 4, 3), {"pos_embed": 32, "pos_embed_img": 16, "pos_embed_vid": 16}),
        ("mmaction", classifier(ENCODER), "sinusoid", Grid(2, 4, 3), {"backbone.pos_embed": 24}),
    ],
)
def test_fixed_tables_are_those_of_the_training_clips(layout, config, kind, grid, widths):
    foreign = export_state_dict(make_checkpoint(config), layout)
    for name, width in widths.items():
        table = build_position_table(kind, grid, width, torch.device("cpu"))
        class_row = torch.zeros(int(layout == "mae"), width)
        assert torch.equal(foreign[name], torch.cat([class_row, table])[None])


def test_a_file_that_states_its_grid_needs_no_recipe():
    checkpoint = make_checkpoint(MAE)
    metadata = {name: value for name, value in checkpoint.metadata.items() if name != "recipe"}
    metadata["decoder"] = to_dict(MAE.decoder)
    foreign = export_state_dict(replace(checkpoint, metadata=metadata | {"grid": [1, 5, 5]}), "mae")
    assert foreign["pos_embed"].shape == (1, 26, 24)
    with pytest.raises(InputError, match="runs/ours does not say which clips its positions were computed for"):
        export_state_dict(replace(checkpoint, metadata=metadata), "mae")


def compute_full_size_shapes(config: Any, layout: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        tensors = config.build().state_dict()
    recipe = {"method": to_dict(config), "clips": {"sampling": {"num_frames": 16}, "size": [224, 224]}}
    metadata = {"kind": "pretraining", "encoder": to_dict(config.encoder), "recipe": recipe}
    foreign = export_state_dict(Checkpoint(tensors, metadata), layout)
    return {name: tuple(tensor.shape) for name, tensor in foreign.items()}


def test_the_base_student_of_mvd_has_the_229_tensors_of_its_authors():
    shapes = compute_full_size_shapes(MVDConfig(), "mvd")
    assert len(shapes) == 229
    assert {shapes[f"pos_embed{suffix}"] for suffix in ("", "_img", "_vid")} == {(1, 1568, 768)}
    assert shapes["mask_token_img"] == (1, 1, 768)
    assert shapes["decoder_vid.head.weight"] == (768, 768)


def test_the_base_student_of_amd_has_the_276_tensors_of_its_authors_and_its_trained_mask_tokens():
    config = AMDConfig(encoder=BASE, decoder=DecoderConfig(dim=384, depth=4, heads=6))
    shapes = compute_full_size_shapes(config, "amd")
    mask_tokens = {f"generator_mask_tokens.{index}" for index in (0, 1)}  # which the authors do not save
    assert len(shapes.keys() - mask_tokens) == 276
    assert mask_tokens < shapes.keys()
    assert shapes["encoder.projection_heads.1.weight"] == (1024, 768)
    assert shapes["generators.1.norm.bias"] == (1024,)


def test_the_published_projections_of_amd_follow_the_order_of_its_pairs():
    checkpoint = make_checkpoint(replace(AMD, layer_pairs=((2, 3), (1, 2))))
    foreign = export_state_dict(checkpoint, "amd")
    assert torch.equal(foreign["encoder.projection_heads.0.weight"], checkpoint.tensors["projections.2.weight"])
    assert torch.equal(foreign["encoder.projection_heads.1.weight"], checkpoint.tensors["projections.1.weight"])


DIFFERENCES: dict[str, tuple[str, Any]] = {
    r"it has no name for 'projections\.1\.weight', of shape \(32, 24\)": ("videomae", AMD),
    r"it has no name for 'generation_projections\.1\.weight'": ("amd", METHODS["amd-parallel"]),
    r"it has no name for 'projections\.0\.weight'": ("mae", DMAE),
    r"it has no name for 'decoders\.image\.weight'": ("mvd", METHODS["mvd-per-token"]),
    "its tubelets have 2 frames, and the code is for images": ("mae", METHODS["imagemae"]),
    "its tubelets have 1 frames, and the code is for clips": ("videomae", MAE),
    "its positions are sinusoid, and the code knows sincos3d and learned": ("mvd", classifier(ENCODER)),
    "its decoder's positions are sincos3d, and the code knows sinusoid and learned": (
        "videomae",
        replace(VIDEOMAE, decoder=replace(DECODER, positions="sincos3d")),
    ),
    "it has a class token, and the code": ("videomae", classifier(replace(ENCODER, class_token=True))),
    "it lacks the code's class token": ("mae", classifier(replace(MAE.encoder, class_token=False))),
    "its attention bias is 'qkv', and the code's 'qv' or 'none'": (
        "videomae",
        classifier(replace(ENCODER, attention_bias="qkv")),
    ),
    "its blocks have layer scale": ("stmae", classifier(replace(STMAE_ENCODER, layer_scale=0.1))),
    "it has relative positions": ("slowfast", classifier(replace(STMAE_ENCODER, relative_positions=True))),
    r"its colour mean is \(0\.5, 0\.5, 0\.5\), and the code\'s \(0\.485, 0\.456, 0\.406\)": (
        "videomae",
        classifier(replace(ENCODER, mean=(0.5, 0.5, 0.5))),
    ),
    "its pooling is 'mean', and the code's 'mean_after_first'": (
        "stmae",
        classifier(replace(STMAE_ENCODER, class_token=False)),
    ),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_model_that_the_authors_code_would_take_for_another_is_refused(difference):
    layout, config = DIFFERENCES[difference]
    project = LAYOUTS[layout].format.project
    with pytest.raises(InputError, match=rf"runs/ours cannot be written for {project}: {difference}"):
        export_state_dict(make_checkpoint(config), layout)


@pytest.mark.parametrize(
    ("layout", "metadata", "message"),
    [
        ("videomae", {"kind": "detector"}, "is a detector; files of VideoMAE are of kind pretraining, encoder, class"),
        ("videomae", {}, "does not say what it is; files of VideoMAE"),
        ("mmaction", {"kind": "pretraining"}, "is a pretraining; files of mmaction2 are of kind encoder, classifier"),
        ("mae", {"kind": "probe"}, "holds a probe without encoder, which files of MAE have"),
    ],
)
def test_only_models_that_the_authors_have_are_written(layout, metadata, message):
    with pytest.raises(InputError, match=f"runs/ours {message}"):
        export_state_dict(Checkpoint({"norm.running_mean": torch.zeros(4)}, metadata, "runs/ours"), layout)


def test_a_file_of_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"ends with neither \.pth nor \.safetensors"):
        write_foreign_checkpoint(tmp_path / "file.bin", {}, "videomae")
    assert not any(tmp_path.iterdir())


def test_what_a_foreign_file_omits_is_described():
    config = classifier(replace(ENCODER, norm_eps=1e-12))
    checkpoint = make_checkpoint(config, classes=["left", "right"], licence="CC-BY-NC-4.0")
    assert describe_omissions(checkpoint, "videomae") == [
        "it does not say that there are 2 heads; tell VideoMAE's code",
        "its norm eps is 1e-12, and VideoMAE's code uses 1e-06",
        "the names of its 2 classes are left out",
        "its licence, CC-BY-NC-4.0, is left out, and still applies",
    ]
    assert describe_omissions(make_checkpoint(classifier(replace(TEACHER, dim=128))), "videomae") == []
