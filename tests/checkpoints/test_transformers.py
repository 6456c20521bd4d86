"""VideoMAE of transformers: read, written, and equal to what the installed library makes of the same directory."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from foreign_files import make_checkpoint
from safetensors.torch import load_file, save_file
from tiny_models import AMD, CLASSES, ENCODER, IMAGEMAE, MASKAGAIN, MVD, STMAE, VIDEOMAE, built, clips
from torch import Tensor, nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.transformers_export import export_to_transformers
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_checkpoint, load_state_dict_strict
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.decode.reader import read_frames
from vidstill.data.transforms.crop import crop_views
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.methods.common.masking import Mask
from vidstill.methods.videomae import VideoMAE, VideoMAEConfig
from vidstill.models.vit import ViT
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.pipelines.trained_models import load_classifier
from vidstill.recipes.auto.choose import choose_recipe
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.synthetic.dataset import SyntheticClipsConfig, make_dataset
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

SIZE = (16, 12)
VIEWS = ViewsConfig(sampling=DenseSampling(num_frames=4), temporal_clips=1, spatial_crops=1, short_side=12, size=SIZE)
CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, head_init_scale=1.0)
NAMES = [f"class {number}" for number in range(CLASSES)]
CLIP = clips()


def library() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install 'vidstill[teachers]'")


def make(config: Any, **metadata: Any) -> Checkpoint:
    """Return a checkpoint of a pre-training, a classifier or an encoder for clips of 4 frames."""
    classes = {"classes": NAMES} if isinstance(config, ClassifierConfig) else {}
    return make_checkpoint(config, views=to_dict(VIEWS), **classes, **metadata)


def export_and_load(config: Any, directory: Path, **metadata: Any) -> tuple[Any, Any]:
    """Return our model, and what transformers loads from its export."""
    architecture = export_to_transformers(make(config, **metadata), directory)[0].removeprefix("it is a ")
    return built(config).eval(), getattr(library(), architecture).from_pretrained(directory).eval()


def to_library_pixels(clip: Tensor, model: ViT) -> Tensor:
    """A clip of colours as transformers takes it: without this model's mean, frames before colours."""
    mean, std = (each.view(3, 1, 1, 1) for each in (model.mean, model.std))
    return rearrange((clip - mean) / std, "b c t h w -> b t c h w")


def draw_mask(method: VideoMAE) -> tuple[Mask, Tensor]:
    """A mask, and which tokens it hides, as transformers takes it."""
    grid = method.encoder.grid(CLIP)
    mask = method.config.mask.draw(torch.arange(len(CLIP)), grid)
    masked = torch.zeros(len(CLIP), grid.num_tokens, dtype=torch.bool)
    return mask, masked.scatter(1, mask.masked, torch.ones_like(mask.masked, dtype=torch.bool))


def measure_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


# ---- The recipe auto ------------------------------------------------------------------------------------------------


def choose_auto_recipe(*, is_images: bool) -> FinetuneRecipe:
    counts = {
        "num_clips": 74,
        "class_counts": (40, 34),
        "median_frames": 1 if is_images else 29,
        "median_short_side": 64,
    }
    stats = DatasetStats(**counts, is_images=is_images, median_seconds=None, frame_rate=None, aspect_ratio=1.0,
                         has_left_right_classes=False)  # fmt: skip
    hardware = Hardware(device_kind="cpu", count=2)
    return choose_recipe(stats, None, hardware, num_validation_clips=25, is_tested_on_validation=True).recipe


@torch.no_grad()
def test_the_model_of_clips_that_auto_makes_is_exported_as_it_is(tmp_path: Path) -> None:
    recipe = choose_auto_recipe(is_images=False)
    views, clip = recipe.views, clips(frames=recipe.views.sampling.num_frames, rows=48, columns=48)
    assert views.size == (48, 48)
    checkpoint = make_checkpoint(recipe.build_classifier_config(CLASSES), views=to_dict(views), classes=NAMES)
    assert export_to_transformers(checkpoint, tmp_path / "out")[0] == "it is a VideoMAEForVideoClassification"
    exported = library().VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    exported.fc_norm.eps = 1e-6
    model = built(recipe.build_classifier_config(CLASSES)).eval()
    assert measure_difference(model(clip), exported(to_library_pixels(clip, model.encoder)).logits) < 1e-5


@pytest.mark.parametrize(
    ("is_images", "changes", "advice"),
    [
        (True, {}, "the code is for clips; export it with --to onnx or --to torch"),
        (
            False,
            {"encoder": replace(ENCODER, positions="sincos3d")},
            "the code knows sinusoid; train it again with --encoder.positions sinusoid, or export it with --to onnx",
        ),
    ],
)
def test_what_transformers_does_not_have_says_what_to_do(
    is_images: bool, changes: dict[str, Any], advice: str, tmp_path: Path
) -> None:
    recipe = replace(choose_auto_recipe(is_images=is_images), **changes)
    checkpoint = make_checkpoint(recipe.build_classifier_config(CLASSES), views=to_dict(recipe.views), classes=NAMES)
    with pytest.raises(InputError, match=re.escape(advice)):
        export_to_transformers(checkpoint, tmp_path / "out")


# ---- Export ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_transformers_loads_an_exported_pre_training_and_agrees(tmp_path: Path) -> None:
    method, exported = export_and_load(VIDEOMAE, tmp_path / "out")
    assert type(exported).__name__ == "VideoMAEForPreTraining"
    mask, masked = draw_mask(method)
    features = method.encoder(CLIP, mask.visible)
    expected = method.decoder(features, mask.visible, mask.masked, method.encoder.grid(CLIP))
    pixels = to_library_pixels(CLIP, method.encoder)
    result = exported(pixels, bool_masked_pos=masked)
    assert measure_difference(method(CLIP, mask=mask).loss, result.loss) < 1e-5
    tolerance = 1e-5 * (1 + expected.abs().max().item())  # the eps of its last norm is 1e-5
    assert measure_difference(expected, result.logits) < tolerance
    exported.decoder.norm.eps = method.config.decoder.final_norm_eps  # as the model card says
    assert measure_difference(expected, exported(pixels, bool_masked_pos=masked).logits) < 2e-6


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_transformers_loads_an_exported_classifier_and_agrees(pooling: str, tmp_path: Path) -> None:
    model, exported = export_and_load(replace(CLASSIFIER, pooling=pooling), tmp_path / "out")
    assert type(exported).__name__ == "VideoMAEForVideoClassification"
    assert exported.config.id2label == dict(enumerate(NAMES))
    logits, pixels = model(CLIP), to_library_pixels(CLIP, model.encoder)
    assert measure_difference(logits, exported(pixels).logits) < 1e-5 * (1 + logits.abs().max().item())
    if pooling == "mean":
        exported.fc_norm.eps = model.config.norm_eps
    assert measure_difference(logits, exported(pixels).logits) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("bias", ["qv", "none"])
def test_transformers_loads_an_exported_encoder_and_agrees(bias: str, tmp_path: Path) -> None:
    model, exported = export_and_load(replace(ENCODER, attention_bias=bias), tmp_path / "out")
    assert type(exported).__name__ == "VideoMAEModel"
    assert exported.config.layer_norm_eps == 1e-6
    tokens = exported(to_library_pixels(CLIP, model)).last_hidden_state
    assert measure_difference(model(CLIP).tokens, tokens) < 2e-6


@torch.no_grad()
def test_a_model_with_the_eps_of_transformers_is_equal_as_loaded(tmp_path: Path) -> None:
    config = replace(CLASSIFIER, encoder=replace(ENCODER, norm_eps=1e-12), norm_eps=1e-5)
    assert export_to_transformers(make(config), tmp_path / "out") == ["it is a VideoMAEForVideoClassification"]
    model, exported = export_and_load(config, tmp_path / "out")
    assert measure_difference(model(CLIP), exported(to_library_pixels(CLIP, model.encoder)).logits) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(("short_side", "step"), [(16, 0), (24, 1)])  # as they are; enlarged, and rounded to bytes
def test_a_video_gives_the_same_logits_through_the_exported_processor(
    short_side: int, step: int, tmp_path: Path
) -> None:
    grey = replace(ENCODER, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    config, views = replace(CLASSIFIER, encoder=grey), to_dict(replace(VIEWS, short_side=short_side))
    export_to_transformers(replace(make(config), metadata={**make(config).metadata, "views": views}), tmp_path / "out")
    model = built(config).eval()
    clips_config = SyntheticClipsConfig(train=1, val=1, unlabelled=0, frames=8, size=(16, 20))
    videos = make_dataset(tmp_path / "videos", clips_config, workers=1)
    frames = read_frames(next(videos.rglob("*.mp4")), [0, 2, 4, 6])
    crop = crop_views(frames, short_side, SIZE, 1)[0]
    clip = rearrange(torch.from_numpy(crop).float() / 255, "t h w c -> 1 c t h w")
    processor = library().VideoMAEImageProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(list(frames), return_tensors="pt")["pixel_values"]
    assert measure_difference(to_library_pixels(clip, model.encoder), pixels) < 1e-6 + step / 255 / 0.25
    exported = library().VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    exported.fc_norm.eps = model.config.norm_eps
    assert measure_difference(model(clip), exported(pixels).logits) < 1e-5 if not step else 0.05


def test_a_model_card_states_licence_and_provenance_and_how_to_load(tmp_path: Path) -> None:
    provenance = [{"role": "teacher", "source": "teacher.pth", "licence": "CC-BY-NC-4.0"}]
    export_to_transformers(make(CLASSIFIER, licence="CC-BY-NC-4.0", provenance=provenance), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "\nlicense: cc-by-nc-4.0\n" in card
    assert "\n- teacher: teacher.pth, licence: CC-BY-NC-4.0\n" in card
    assert "VideoMAEForVideoClassification.from_pretrained" in card
    assert "model.fc_norm.eps = 1e-06" in card
    metadata = load_checkpoint(tmp_path / "out").metadata
    assert metadata["licence"] == "CC-BY-NC-4.0"
    assert metadata["provenance"] == provenance


REFUSED: dict[str, Any] = {
    "it has a class token": replace(ENCODER, class_token=True),
    "positions are sincos2d": replace(ENCODER, positions="sincos2d"),
    "positions are learned": replace(ENCODER, positions="learned", learned_grid=(2, 4, 3)),
    "resized from another grid": replace(ENCODER, learned_grid=(2, 4, 3)),
    "attention bias is 'qkv'": replace(ENCODER, attention_bias="qkv"),
    "blocks have layer scale": replace(ENCODER, layer_scale=0.1),
    "relative positions": replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 3)),
    "its pooling is 'mean_after_first'": replace(CLASSIFIER, pooling="mean_after_first"),
    "has one key": replace(VIDEOMAE, decoder=replace(VIDEOMAE.decoder, norm_eps=1e-5)),
    "its target is 'per_patch'": replace(VIDEOMAE, target="per_patch"),
    "raw pixels": replace(VIDEOMAE, target="raw", encoder=replace(ENCODER, mean=(0.5, 0.5, 0.5))),
    "has a bias": replace(VIDEOMAE, decoder=replace(VIDEOMAE.decoder, embed_bias=True)),
    "positions are sincos3d": MVD,
    "a class token, and": IMAGEMAE,
    "class token": STMAE,
    "is a detector": Checkpoint({}, {"kind": "detector"}, "x"),
    "does not say what it is": Checkpoint({}, {}, "x"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_transformers_does_not_have_is_refused(message: str, tmp_path: Path) -> None:
    config = REFUSED[message]
    with pytest.raises(InputError, match=message):
        export_to_transformers(config if isinstance(config, Checkpoint) else make(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_described(tmp_path: Path) -> None:
    architecture, omission, *_ = export_to_transformers(make(AMD), tmp_path / "amd")
    assert architecture == "it is a VideoMAEForPreTraining"
    assert "generators, projections" in omission
    assert export_to_transformers(make(MASKAGAIN), tmp_path / "maskagain")[0] == "it is a VideoMAEModel"
    assert json.loads((tmp_path / "maskagain" / "config.json").read_text())["use_mean_pooling"]
    export_to_transformers(make_checkpoint(ENCODER, recipe={}), tmp_path / "encoder")  # it does not state its clips
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert (config["num_frames"], config["image_size"]) == (16, 224)


def test_a_directory_with_other_files_is_not_overwritten_and_an_export_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        export_to_transformers(make(CLASSIFIER), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    for config in (CLASSIFIER, VIDEOMAE):
        export_to_transformers(make(config), tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").metadata["kind"] == "pretraining"


# ---- Import ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [VIDEOMAE, CLASSIFIER, ENCODER])
def test_an_export_is_read_back_equal(config: Any, tmp_path: Path) -> None:
    expected = make(config)
    export_to_transformers(expected, tmp_path / "out")
    checkpoint = load_checkpoint(tmp_path / "out")
    metadata = checkpoint.metadata
    assert (metadata["kind"], metadata["encoder"]) == (expected.metadata["kind"], expected.metadata["encoder"])
    assert checkpoint.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert from_dict(ViewsConfig, metadata["views"]).size == SIZE
    if config is VIDEOMAE:
        method = from_dict(VideoMAEConfig, metadata["method"])
        assert (method.encoder, method.decoder, method.target) == (ENCODER, VIDEOMAE.decoder, VIDEOMAE.target)
    if config is CLASSIFIER:
        assert from_dict(ClassifierConfig, metadata["classifier"]) == replace(CLASSIFIER, head_init_scale=0.001)
        assert metadata["classes"] == NAMES


def save_library_model(kind: str, directory: Path, **settings: Any) -> nn.Module:
    """Save a model of transformers with random weights, and return it."""
    module = library()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50}
    decoder = {f"decoder_{name}": size for name, size in (sizes | {"hidden_size": 16, "intermediate_size": 33}).items()}
    clip = {"image_size": list(SIZE), "patch_size": 4, "num_frames": 4, "num_labels": CLASSES}
    torch.manual_seed(0)
    model = getattr(module, kind)(module.VideoMAEConfig(**{**sizes, **decoder, **clip, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return model


@torch.no_grad()
@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("qv_bias", [True, False])
def test_a_classifier_that_the_library_saved_agrees_with_it(mean_pooling: bool, qv_bias: bool, tmp_path: Path) -> None:
    settings = {"use_mean_pooling": mean_pooling, "qv_bias": qv_bias}
    expected = save_library_model("VideoMAEForVideoClassification", tmp_path, **settings)
    model, checkpoint = load_classifier(str(tmp_path))
    assert checkpoint.metadata["classes"] == [f"LABEL_{number}" for number in range(CLASSES)]
    logits = expected(to_library_pixels(CLIP, model.encoder)).logits
    assert measure_difference(model.eval()(CLIP), logits) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_a_pre_training_that_the_library_saved_agrees_with_it(norm_pix_loss: bool, tmp_path: Path) -> None:
    settings = {"use_mean_pooling": False, "norm_pix_loss": norm_pix_loss}
    expected = save_library_model("VideoMAEForPreTraining", tmp_path, **settings)
    checkpoint = load_checkpoint(tmp_path)
    method = from_dict(VideoMAEConfig, checkpoint.metadata["method"]).build().eval()
    load_state_dict_strict(method, checkpoint.tensors, checkpoint.source)
    mask, masked = draw_mask(method)
    result = expected(to_library_pixels(CLIP, method.encoder), bool_masked_pos=masked)
    assert measure_difference(method(CLIP, mask=mask).loss, result.loss) < 1e-5
    encoder = load_encoder(str(tmp_path), precision="fp32")
    assert (encoder.views.size, encoder.views.sampling.num_frames) == (SIZE, 4)
    assert encoder.extract_features(CLIP)["final"].shape == (len(CLIP), ENCODER.dim)


@torch.no_grad()
def test_an_encoder_that_the_library_saved_starts_ours(tmp_path: Path) -> None:
    expected = save_library_model("VideoMAEModel", tmp_path, use_mean_pooling=False)
    checkpoint = load_checkpoint(tmp_path)
    config = infer_encoder_config(checkpoint, ENCODER)
    model = config.build().eval()
    init_encoder(model, checkpoint, config)
    assert config.norm_eps == 1e-12
    tokens = expected(to_library_pixels(CLIP, model)).last_hidden_state
    assert measure_difference(model(CLIP).tokens, tokens) < 2e-6


def test_a_decoder_of_tokens_without_a_final_norm_is_left_out(tmp_path: Path) -> None:
    save_library_model("VideoMAEForPreTraining", tmp_path, use_mean_pooling=True)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.metadata["kind"] == "encoder"
    assert not any(name.startswith("decoder.") for name in checkpoint.tensors)


def export_changed(
    directory: Path, *, config: Mapping[str, Any] = {}, tensors: Mapping[str, Tensor | None] = {}
) -> Path:
    """An exported classifier with another config.json, with other tensors, or without some (None)."""
    export_to_transformers(make(CLASSIFIER), directory)
    path, file = directory / "config.json", directory / "model.safetensors"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    changed = {name: tensor for name, tensor in {**load_file(file), **tensors}.items() if tensor is not None}
    save_file(changed, file, metadata={"format": "pt"})
    return directory


ATTENTION = "videomae.encoder.layer.1.attention.attention."
CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Tensor | None]]] = {
    "hidden_size 48": ({"hidden_size": 48}, {}),
    "num_hidden_layers 3": ({"num_hidden_layers": 3}, {}),
    "patch_size 8": ({"patch_size": 8}, {}),
    "hidden_act 'relu'": ({"hidden_act": "relu"}, {}),
    "qv_bias False": ({"qv_bias": False}, {}),
    "num_attention_heads 'two'": ({"num_attention_heads": "two"}, {}),
    "names 2 classes": ({"id2label": {"0": "a", "1": "b"}}, {}),
    "lacks videomae.layernorm.": ({"use_mean_pooling": False}, {}),
    "lacks fc_norm.": ({}, {"fc_norm.weight": None, "fc_norm.bias": None}),
    "lacks 1 tensor .*q_bias": ({}, {f"{ATTENTION}q_bias": None}),
    "2 of 3 parts": ({}, {f"{ATTENTION}key.weight": None}),
    "nothing explains": ({}, {f"{ATTENTION}key.bias": torch.zeros(24)}),
    "fixed table": ({}, {"videomae.embeddings.position_embeddings": torch.rand(1, 24, 24)}),
}


@pytest.mark.parametrize("message", CONTRADICTIONS)
def test_a_file_that_contradicts_itself_is_refused(message: str, tmp_path: Path) -> None:
    config, tensors = CONTRADICTIONS[message]
    with pytest.raises(InputError, match=message):
        load_checkpoint(export_changed(tmp_path / "out", config=config, tensors=tensors))


def test_stored_fixed_positions_are_left_out(tmp_path: Path) -> None:
    table = built(ENCODER).positions(ENCODER.grid(CLIP), CLIP.device)[None]
    directory = export_changed(tmp_path / "out", tensors={"videomae.embeddings.position_embeddings": table})
    assert "encoder.patch_embed.weight" in load_checkpoint(directory).tensors


def test_a_bare_file_needs_a_hint_for_its_heads(tmp_path: Path) -> None:
    directory = export_changed(tmp_path / "out")
    (directory / "config.json").unlink()
    with pytest.raises(InputError, match="heads"):
        load_checkpoint(directory / "model.safetensors")
    checkpoint = load_checkpoint(directory / "model.safetensors", ENCODER)
    assert infer_encoder_config(checkpoint, ENCODER).heads == ENCODER.heads
