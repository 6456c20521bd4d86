"""Our weights in the authors' files: exact round trips for every layout, and what has no place there is refused."""

import struct
from dataclasses import replace
from typing import Any

import pytest
import torch
from foreign_layout import translate_state_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import AMD, CLASSES, DECODER, ENCODER, METHODS, TEACHER, VIDEOMAE, as_images, built

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.export import describe_omissions, export_state_dict, write_foreign_checkpoint
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.mmaction import build_mmaction_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules, rename_tensors
from vidstill.checkpoints.layouts.stmae import build_slowfast_rules, build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.methods.amd import AMDConfig
from vidstill.methods.mvd import MVDConfig
from vidstill.methods.stmae import build_stmae_vit_config
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import BASE, ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError

CLIPS = {"sampling": {"num_frames": 4}, "size": [16, 12]}  # as the runs of METHODS see them
IMAGES = {"sampling": {"num_frames": 1}, "size": [16, 16]}
MAE, DMAE = as_images(METHODS["imagemae"]), as_images(METHODS["dmae"])
SLOWFAST, MAE_ST, MVD = METHODS["stmae"], METHODS["stmae-mae_st"], METHODS["mvd"]
OF_STMAE = replace(build_stmae_vit_config(ENCODER), learned_grid=(2, 4, 3))
LEARNED = replace(ENCODER, positions="learned", learned_grid=(2, 4, 3))
LEARNED_IMAGE = replace(MAE.encoder, positions="learned", learned_grid=(1, 4, 4))


def classifier(encoder: ViTConfig, **fields: Any) -> ClassifierConfig:
    return ClassifierConfig(encoder=encoder, num_classes=CLASSES, **fields)


def names_of(config: Any, layout: str, *, separate: bool = True) -> tuple[RenameRule, ...]:
    encoder = config.encoder
    if layout == "mmaction":
        return build_mmaction_rules(encoder)
    if isinstance(config, ClassifierConfig):
        if layout in ("stmae", "slowfast"):
            return build_stmae_classifier_rules(encoder, separate_qkv=separate, slowfast=layout == "slowfast")
        return build_classifier_rules(encoder)
    of_layout = {"videomae": build_videomae_rules, "mvd": build_mvd_rules, "maskagain": build_maskagain_rules,
                 "mae": build_mae_rules,
                 "dmae": build_mae_rules}  # fmt: skip
    if layout == "amd":
        return build_amd_rules(encoder, [layer for layer, _ in config.direct_pairs])
    if layout in of_layout:
        return of_layout[layout](encoder)
    return (build_stmae_rules if layout == "stmae" else build_slowfast_rules)(
        encoder, config.decoder, separate_qkv=separate
    )


def ours(
    config: Any, *, clips: dict[str, Any] = CLIPS, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Checkpoint:
    """What a run of this configuration leaves."""
    tensors = {name: tensor.to(dtype) for name, tensor in built(config, seed=seed).state_dict().items()}
    about = {"kind": "pretraining", "encoder": to_dict(config.encoder)}
    if isinstance(config, ClassifierConfig):
        about |= {"kind": "classifier", "classifier": to_dict(config), "recipe": {"clips": clips}}
    else:
        about |= {"recipe": {"method": to_dict(config), "clips": clips}}
    return Checkpoint(tensors, about, "runs/ours")


KINDS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "videomae": ("videomae", VIDEOMAE, CLIPS),
    "videomae, learned and scaled": ("videomae", replace(VIDEOMAE, encoder=replace(LEARNED, layer_scale=0.1)), CLIPS),
    "videomae, no biases": ("videomae", replace(VIDEOMAE, encoder=replace(ENCODER, attention_bias="none")), CLIPS),
    "videomae's classifier": ("videomae", classifier(ENCODER), CLIPS),
    "videomae's classifier, first token": ("videomae", classifier(LEARNED, pooling="first"), CLIPS),
    "mvd": ("mvd", MVD, CLIPS),
    "mvd, class token": ("mvd", METHODS["mvd-class-token"], CLIPS),
    "mvd, one teacher": ("mvd", METHODS["mvd-image-only"], CLIPS),
    "mvd's classifier": ("mvd", classifier(MVD.encoder), CLIPS),
    "amd": ("amd", AMD, CLIPS),
    "amd, pairs in another order": ("amd", replace(AMD, layer_pairs=((2, 3), (1, 2))), CLIPS),
    "amd, direct": ("amd", METHODS["amd-direct"], CLIPS),
    "amd's classifier": ("amd", classifier(ENCODER), CLIPS),
    "maskagain": ("maskagain", METHODS["maskagain-projected"], CLIPS),
    "maskagain, with a decoder": ("maskagain", METHODS["maskagain-transfer"], CLIPS),
    "maskagain's classifier": ("maskagain", classifier(ENCODER), CLIPS),
    "mae": ("mae", MAE, IMAGES),
    "mae's classifier": ("mae", classifier(LEARNED_IMAGE), IMAGES),
    "mae's classifier, computed codes": ("mae", classifier(MAE.encoder, pooling="first"), IMAGES),
    "dmae": ("dmae", DMAE, IMAGES),
    "dmae, perceptrons": ("dmae", as_images(METHODS["dmae-perceptrons"]), IMAGES),
    "stmae": ("stmae", MAE_ST, CLIPS),
    "stmae, no class token": (
        "stmae",
        replace(
            MAE_ST,
            encoder=replace(MAE_ST.encoder, class_token=False, attention_bias="none"),
            decoder=replace(MAE_ST.decoder, class_token="none"),
        ),
        CLIPS,
    ),
    "stmae, joint": (
        "stmae",
        replace(
            MAE_ST,
            encoder=replace(MAE_ST.encoder, positions="learned"),
            decoder=replace(MAE_ST.decoder, positions="learned"),
        ),
        CLIPS,
    ),
    "stmae's classifier": ("stmae", classifier(OF_STMAE, norm="pretrained"), CLIPS),
    "stmae's classifier, no class token": (
        "stmae",
        classifier(replace(OF_STMAE, class_token=False), pooling="mean_after_first"),
        CLIPS,
    ),
    "slowfast": ("slowfast", SLOWFAST, CLIPS),
    "mmaction": ("mmaction", classifier(ENCODER), CLIPS),
    "mmaction, learned": ("mmaction", classifier(LEARNED, pooling="first"), CLIPS),
    "slowfast's classifier": ("slowfast", classifier(OF_STMAE), CLIPS),
}
every_kind = pytest.mark.parametrize(("layout", "config", "clips"), KINDS.values(), ids=KINDS)


def computed(name: str) -> bool:
    """What is in their files and not in ours."""
    return "pos_embed" in name or (name.startswith("generators.") and ".norm." in name)


def hold_round_trip(layout: str, config: Any, clips: dict[str, Any], dtype: torch.dtype, *, separate: bool) -> None:
    weights = ours(config, clips=clips, dtype=dtype)
    weights = replace(weights, metadata={**weights.metadata, "separate_qkv": separate})
    theirs = export_state_dict(weights, layout)
    names = names_of(config, layout, separate=separate)
    again = translate_state_dict(theirs, names)
    assert again.keys() == weights.tensors.keys()
    for name, tensor in weights.tensors.items():
        assert again[name].dtype == dtype
        assert torch.equal(again[name], tensor), name
    back = export_state_dict(replace(weights, tensors=again), layout)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) and back[name].dtype == dtype for name, tensor in theirs.items())
    beside = [entry.foreign_name for entry in rename_tensors(theirs, names)[1] if entry.status == "ignored"]
    assert all(computed(name) for name in beside)
    sizes = {name: tensor.numel() for name, tensor in theirs.items()}
    assert sum(sizes.values()) - sum(sizes[n] for n in beside) == sum(t.numel() for t in weights.tensors.values())


@every_kind
def test_a_model_goes_into_their_file_and_comes_back_the_same(layout, config, clips):
    hold_round_trip(layout, config, clips, torch.float32, separate=True)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]),
    separate=st.booleans(),
    depth=st.integers(1, 3),
    width=st.sampled_from([16, 48]),
)
def test_so_does_one_of_any_depth_width_and_precision(kind, dtype, separate, depth, width):
    layout, config, clips = KINDS[kind]
    if not hasattr(config, "layer_pairs") and not hasattr(config, "attention_layers"):  # whose blocks are named
        config = replace(config, encoder=replace(config.encoder, depth=depth, dim=width))
    hold_round_trip(layout, config, clips, dtype, separate=separate)


@every_kind
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_file_holds_the_same_tensors_under_their_trainers_word(layout, config, clips, suffix, tmp_path):
    theirs = export_state_dict(ours(config, clips=clips), layout)
    write_foreign_checkpoint(tmp_path / f"file{suffix}", theirs, layout)
    if suffix == ".safetensors":
        found = load_file(tmp_path / "file.safetensors")
    else:
        content = torch.load(tmp_path / "file.pth", weights_only=True)
        found = content.pop({"slowfast": "model_state", "mmaction": "state_dict"}.get(layout, "model"))
        found |= {f"{module}.{name}": t for module, tensors in content.items() for name, t in tensors.items()}
        storages = {tensor.untyped_storage().data_ptr() for tensor in found.values()}
        assert len(storages) == len(found)  # none shares its memory with another
        assert (tmp_path / "file.pth").stat().st_size < 4 * sum(t.numel() for t in found.values()) + 1000 * len(found)
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.items())
    assert [each.name for each in tmp_path.iterdir()] == [f"file{suffix}"]


def test_maskagains_projections_stand_beside_its_model_as_its_trainer_writes_them(tmp_path):
    write_foreign_checkpoint(
        tmp_path / "file.pth", export_state_dict(ours(METHODS["maskagain-projected"]), "maskagain"), "maskagain"
    )
    content = torch.load(tmp_path / "file.pth", weights_only=True)
    assert content["Align_feature"].keys() == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert content["Align_valuesum"].keys() == {"fc.weight", "fc.bias"}
    assert all(name.startswith("encoder.") for name in content["model"])


def test_a_safetensors_file_begins_where_its_tensors_are_aligned(tmp_path):
    write_foreign_checkpoint(tmp_path / "a.safetensors", export_state_dict(ours(VIDEOMAE), "videomae"), "videomae")
    (length,) = struct.unpack("<Q", (tmp_path / "a.safetensors").read_bytes()[:8])
    assert length % 8 == 0


# ---- What the authors' files hold and ours do not -------------------------------------------------------------------


def test_maes_tables_are_written_with_zeros_for_the_class_token():
    theirs = export_state_dict(ours(MAE, clips=IMAGES), "mae")
    for name, width in (("pos_embed", MAE.encoder.dim), ("decoder_pos_embed", MAE.decoder.dim)):
        table = build_position_table("sincos2d", Grid(1, 4, 4), width, torch.device("cpu"))
        assert torch.equal(theirs[name], torch.cat([torch.zeros(1, width), table])[None])


def test_mvds_three_tables_are_those_of_its_clips():
    theirs = export_state_dict(ours(MVD), "mvd")
    for name, width in (("pos_embed", 32), ("pos_embed_img", 16), ("pos_embed_vid", 16)):
        assert torch.equal(
            theirs[name], build_position_table("sincos3d", Grid(2, 4, 3), width, torch.device("cpu"))[None]
        )


def test_mmaction2s_table_is_videomaes():
    theirs = export_state_dict(ours(classifier(ENCODER)), "mmaction")
    table = build_position_table("sinusoid", Grid(2, 4, 3), ENCODER.dim, torch.device("cpu"))
    assert torch.equal(theirs["backbone.pos_embed"], table[None])


def test_a_file_that_says_its_grid_needs_no_recipe():
    weights = ours(MAE, clips=IMAGES)
    about = {name: value for name, value in weights.metadata.items() if name != "recipe"}
    theirs = export_state_dict(replace(weights, metadata=about | {"grid": [1, 5, 5]}), "mae")
    assert theirs["pos_embed"].shape == (1, 26, 24)
    with pytest.raises(InputError, match="runs/ours does not say which clips its positions were computed for"):
        export_state_dict(replace(weights, metadata=about), "mae")


def full(config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes at the published sizes."""
    with torch.device("meta"):
        tensors = config.build().state_dict()
    recipe = {"method": to_dict(config), "clips": {"sampling": {"num_frames": 16}, "size": [224, 224]}}
    about = {"kind": "pretraining", "encoder": to_dict(config.encoder), "recipe": recipe}
    layout = "amd" if isinstance(config, AMDConfig) else "mvd"
    return {name: tuple(tensor.shape) for name, tensor in export_state_dict(Checkpoint(tensors, about), layout).items()}


def test_the_base_student_of_mvd_has_the_229_tensors_of_its_authors():
    found = full(MVDConfig())
    assert len(found) == 229
    assert {found[f"pos_embed{end}"] for end in ("", "_img", "_vid")} == {(1, 1568, 768)}
    assert found["mask_token_img"] == (1, 1, 768)
    assert found["decoder_vid.head.weight"] == (768, 768)


def test_the_base_student_of_amd_has_the_276_tensors_of_its_authors_and_its_trained_mask_tokens():
    found = full(AMDConfig(encoder=BASE, decoder=DecoderConfig(dim=384, depth=4, heads=6)))
    trained = {f"generator_mask_tokens.{place}" for place in (0, 1)}  # which they draw and do not save
    assert len(found.keys() - trained) == 276
    assert trained < found.keys()
    assert found["encoder.projection_heads.1.weight"] == (1024, 768)
    assert found["generators.1.norm.bias"] == (1024,)


def test_the_published_projections_of_amd_follow_the_order_of_its_pairs():
    weights = ours(replace(AMD, layer_pairs=((2, 3), (1, 2))))
    theirs = export_state_dict(weights, "amd")
    assert torch.equal(theirs["encoder.projection_heads.0.weight"], weights.tensors["projections.2.weight"])


# ---- What has no place there ----------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, Any, str]] = {
    "another method's parts": ("videomae", AMD, r"it has no name for 'projections\.1\.weight', of shape \(32, 24\)"),
    "generation of its own": (
        "amd",
        METHODS["amd-parallel"],
        r"it has no name for 'generation_projections\.1\.weight'",
    ),
    "a student of images": ("mae", DMAE, r"it has no name for 'projections\.0\.weight'"),
    "per token": ("mvd", METHODS["mvd-per-token"], r"it has no name for 'decoders\.image\.weight'"),
    "clips in code of images": ("mae", METHODS["imagemae"], "its tubelets have 2 frames, and the code is for images"),
    "images in code of clips": ("videomae", MAE, "its tubelets have 1 frames, and the code is for clips"),
    "another code of positions": (
        "mvd",
        classifier(ENCODER),
        "its positions are sinusoid, and the code knows sincos3d and learned",
    ),
    "of the decoder": (
        "videomae",
        replace(VIDEOMAE, decoder=replace(DECODER, positions="sincos3d")),
        "its decoder's positions are sincos3d, and the code knows sinusoid and learned",
    ),
    "a class token": ("videomae", classifier(replace(ENCODER, class_token=True)), "it has a class token, and the code"),
    "no class token": ("mae", classifier(replace(MAE.encoder, class_token=False)), "it lacks the code's class token"),
    "biases": (
        "videomae",
        classifier(replace(ENCODER, attention_bias="qkv")),
        "its attention bias is 'qkv', and the code's 'qv' or 'none'",
    ),
    "scaled branches": ("stmae", classifier(replace(OF_STMAE, layer_scale=0.1)), "its blocks have layer scale"),
    "relative positions": (
        "slowfast",
        classifier(replace(OF_STMAE, relative_positions=True)),
        "it has relative positions",
    ),
    "colours": (
        "videomae",
        classifier(replace(ENCODER, mean=(0.5, 0.5, 0.5))),
        r"its colour mean is \(0\.5, 0\.5, 0\.5\), and the code\'s \(0\.485, 0\.456, 0\.406\)",
    ),
    "pooling": (
        "stmae",
        classifier(replace(OF_STMAE, class_token=False)),
        "its pooling is 'mean', and the code's 'mean_after_first'",
    ),
}


@pytest.mark.parametrize(("layout", "config", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_what_their_code_would_take_for_another_model_is_refused(layout, config, sentence):
    project = LAYOUTS[layout].format.project
    with pytest.raises(InputError, match=rf"runs/ours cannot be written for {project}: {sentence}"):
        export_state_dict(ours(config), layout)


@pytest.mark.parametrize(
    ("layout", "kind", "sentence"),
    [
        ("videomae", "detector", "is a detector; files of VideoMAE are of kind pretraining, encoder, classifier"),
        ("videomae", None, "does not say what it is; files of VideoMAE"),
        ("mmaction", "pretraining", "is a pretraining; files of mmaction2 are of kind encoder, classifier"),
    ],
)
def test_only_models_that_the_authors_have_are_written(layout, kind, sentence):
    weights = ours(VIDEOMAE)
    with pytest.raises(InputError, match=f"runs/ours {sentence}"):
        export_state_dict(replace(weights, metadata={**weights.metadata, "kind": kind}), layout)


def test_a_probe_of_ours_has_no_encoder_to_be_written_with():
    weights = Checkpoint({"norm.running_mean": torch.zeros(4)}, {"kind": "probe"}, "runs/ours")
    with pytest.raises(InputError, match="runs/ours holds a probe without encoder, which files of MAE have"):
        export_state_dict(weights, "mae")


def test_a_file_without_a_known_end_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"ends with neither \.pth nor \.safetensors"):
        write_foreign_checkpoint(tmp_path / "file.bin", export_state_dict(ours(VIDEOMAE), "videomae"), "videomae")
    assert not any(tmp_path.iterdir())


def test_what_a_file_of_theirs_does_not_say_is_said():
    weights = ours(classifier(replace(ENCODER, norm_eps=1e-12)))
    about = {**weights.metadata, "classes": ["left", "right"], "licence": "CC-BY-NC-4.0"}
    assert describe_omissions(replace(weights, metadata=about), "videomae") == [
        "it does not say that there are 2 heads; tell VideoMAE's code",
        "its norm eps is 1e-12, and VideoMAE's code uses 1e-06",
        "the names of its 2 classes are left out",
        "its licence, CC-BY-NC-4.0, is left out, and still applies",
    ]
    assert describe_omissions(ours(classifier(replace(TEACHER, dim=128))), "videomae") == []
