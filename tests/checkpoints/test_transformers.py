"""VideoMAE of transformers: read, written, and equal to what the installed library makes of the same folder."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
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
from vidstill.methods.videomae import VideoMAE, VideoMAEConfig
from vidstill.models.vit import ViT, ViTConfig
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.pipelines.trained_models import load_classifier
from vidstill.synthetic.dataset import SyntheticClipsConfig, make_dataset
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

SIZE = (16, 12)
VIEWS = ViewsConfig(sampling=DenseSampling(num_frames=4), temporal_clips=1, spatial_crops=1, short_side=12, size=SIZE)
CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, head_init_scale=1.0)
NAMES = [f"class {number}" for number in range(CLASSES)]
CLIP = clips()


def library() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install 'vidstill[teachers]'")


def exported(checkpoint: Checkpoint, folder: Path) -> Any:
    """The model that transformers loads from an export of a checkpoint."""
    architecture = export_to_transformers(checkpoint, folder)[0].removeprefix("it is a ")
    return getattr(library(), architecture).from_pretrained(folder).eval()


def pre_training(config: Any = VIDEOMAE, **about: Any) -> tuple[Any, Checkpoint]:
    method = built(config).eval()
    said = {"kind": "pretraining", "encoder": to_dict(config.encoder), "recipe": {"method": to_dict(config)}}
    return method, Checkpoint(method.state_dict(), said | {"views": to_dict(VIEWS)} | about, "runs/pre-training")


def classifier(config: ClassifierConfig = CLASSIFIER, **about: Any) -> tuple[Classifier, Checkpoint]:
    model = built(config).eval()
    said = {"kind": "classifier", "encoder": to_dict(config.encoder), "classifier": to_dict(config)}
    return model, Checkpoint(
        model.state_dict(), said | {"classes": NAMES, "views": to_dict(VIEWS)} | about, "runs/classifier"
    )


def encoder(config: ViTConfig = ENCODER) -> tuple[ViT, Checkpoint]:
    model = built(config).eval()
    tensors = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    return model, Checkpoint(tensors, {"kind": "encoder", "encoder": to_dict(config)}, "encoder.safetensors")


def entering(clip: Tensor, model: ViT) -> Tensor:
    """A clip of colours as transformers takes it: without this model's mean, frames before colours."""
    mean, std = (each.view(3, 1, 1, 1) for each in (model.mean, model.std))
    return rearrange((clip - mean) / std, "b c t h w -> b t c h w")


def hidden_places(method: VideoMAE, masked: Tensor) -> Tensor:
    hidden = torch.zeros(len(masked), method.encoder.grid(CLIP).num_tokens, dtype=torch.bool)
    return hidden.scatter(1, masked, torch.ones_like(masked, dtype=torch.bool))


def apart(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


# --- the way out


@torch.no_grad()
def test_transformers_loads_an_exported_pre_training_and_agrees(tmp_path: Path) -> None:
    method, weights = pre_training()
    theirs = exported(weights, tmp_path / "out")
    mask = method.config.mask.draw(torch.arange(len(CLIP)), method.encoder.grid(CLIP))
    seen = method.encoder(CLIP, mask.visible)
    rebuilt = method.forward_decoder(CLIP, seen, mask)
    loss = method(CLIP, mask=mask).loss

    def ask() -> Any:
        return theirs(entering(CLIP, method.encoder), bool_masked_pos=hidden_places(method, mask.masked))

    assert type(theirs).__name__ == "VideoMAEForPreTraining"
    as_loaded = ask()
    assert apart(loss, as_loaded.loss) < 1e-5
    assert apart(rebuilt, as_loaded.logits) < 1e-5 * (1 + rebuilt.abs().max().item())  # its last norm's eps is 1e-5
    theirs.decoder.norm.eps = method.config.decoder.final_norm_eps  # as the model card says
    assert apart(rebuilt, ask().logits) < 2e-6


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_transformers_loads_an_exported_classifier_and_agrees(pooling: str, tmp_path: Path) -> None:
    model, weights = classifier(replace(CLASSIFIER, pooling=pooling))
    theirs = exported(weights, tmp_path / "out")
    assert type(theirs).__name__ == "VideoMAEForVideoClassification"
    assert theirs.config.id2label == dict(enumerate(NAMES))
    logits, pixels = model(CLIP), entering(CLIP, model.encoder)
    assert apart(logits, theirs(pixels).logits) < 1e-5 * (1 + logits.abs().max().item())
    if pooling == "mean":
        theirs.fc_norm.eps = model.config.norm_eps
    assert apart(logits, theirs(pixels).logits) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("bias", ["qv", "none"])
def test_transformers_loads_an_exported_encoder_and_agrees(bias: str, tmp_path: Path) -> None:
    model, weights = encoder(replace(ENCODER, attention_bias=bias))
    assert export_to_transformers(weights, tmp_path / "out") == ["it is a VideoMAEModel"]
    config = tmp_path / "out" / "config.json"
    said = json.loads(config.read_text())
    assert said["layer_norm_eps"] == 1e-6
    config.write_text(json.dumps(said | {"num_frames": 4, "image_size": SIZE}))  # our file did not say the clips' size
    theirs = library().VideoMAEModel.from_pretrained(tmp_path / "out").eval()
    assert apart(model(CLIP).tokens, theirs(entering(CLIP, model)).last_hidden_state) < 2e-6


@torch.no_grad()
def test_a_model_that_has_the_librarys_own_eps_is_equal_as_it_is_loaded(tmp_path: Path) -> None:
    model, weights = classifier(replace(CLASSIFIER, encoder=replace(ENCODER, norm_eps=1e-12), norm_eps=1e-5))
    assert export_to_transformers(weights, tmp_path / "out") == ["it is a VideoMAEForVideoClassification"]
    theirs = library().VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    assert apart(model(CLIP), theirs(entering(CLIP, model.encoder)).logits) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(("short_side", "step"), [(16, 0), (24, 1)])  # as they are; enlarged, and rounded to bytes
def test_a_made_video_means_the_same_through_the_exported_processor(short_side: int, step: int, tmp_path: Path) -> None:
    grey = replace(ENCODER, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    views = to_dict(replace(VIEWS, short_side=short_side))
    model, weights = classifier(replace(CLASSIFIER, encoder=grey), views=views)
    export_to_transformers(weights, tmp_path / "out")
    made = make_dataset(
        tmp_path / "made", SyntheticClipsConfig(train=1, val=1, unlabelled=0, frames=8, size=(16, 20)), workers=1
    )
    frames = read_frames(next(made.rglob("*.mp4")), [0, 2, 4, 6])
    ours = crop_views(frames, short_side, SIZE, 1)[0]
    clip = rearrange(torch.from_numpy(ours).float() / 255, "t h w c -> 1 c t h w")
    processor = library().VideoMAEImageProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(list(frames), return_tensors="pt")["pixel_values"]
    assert apart(entering(clip, model.encoder), pixels) < 1e-6 + step / 255 / 0.25
    theirs = library().VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    theirs.fc_norm.eps = model.config.norm_eps
    assert apart(model(clip), theirs(pixels).logits) < 1e-5 if not step else 0.05


def test_a_model_card_says_licence_and_provenance_and_how_to_load(tmp_path: Path) -> None:
    past = [{"role": "teacher", "source": "their.pth", "licence": "CC-BY-NC-4.0"}]
    _, weights = classifier(licence="CC-BY-NC-4.0", provenance=past)
    export_to_transformers(weights, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "\nlicense: cc-by-nc-4.0\n" in text
    assert "their.pth" in text
    assert "VideoMAEForVideoClassification.from_pretrained" in text
    assert "model.fc_norm.eps = 1e-06" in text
    again = load_checkpoint(tmp_path / "out").metadata
    assert again["licence"] == "CC-BY-NC-4.0"
    assert again["provenance"] == past


REFUSED = {
    "class token": encoder(replace(ENCODER, class_token=True))[1],
    "positions are sincos2d": encoder(replace(ENCODER, positions="sincos2d"))[1],
    "positions are learned": encoder(replace(ENCODER, positions="learned", learned_grid=(2, 4, 3)))[1],
    "resized from another grid": encoder(replace(ENCODER, learned_grid=(2, 4, 3)))[1],
    "attention bias is 'qkv'": encoder(replace(ENCODER, attention_bias="qkv"))[1],
    "blocks have layer scale": encoder(replace(ENCODER, layer_scale=0.1))[1],
    "relative positions": encoder(replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 3)))[1],
    "its pooling is 'mean_after_first'": classifier(replace(CLASSIFIER, pooling="mean_after_first"))[1],
    "has one key": pre_training(replace(VIDEOMAE, decoder=replace(VIDEOMAE.decoder, norm_eps=1e-5)))[1],
    "its target is 'per_patch'": pre_training(replace(VIDEOMAE, target="per_patch"))[1],
    "raw pixels": pre_training(
        replace(VIDEOMAE, target="raw", encoder=replace(ENCODER, mean=(0.5, 0.5, 0.5)))
    )[1],
    "has a bias": pre_training(replace(VIDEOMAE, decoder=replace(VIDEOMAE.decoder, embed_bias=True)))[1],
    "is a detector": Checkpoint({}, {"kind": "detector"}, "x"),
    "does not say what it is": Checkpoint({}, {}, "x"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_transformers_has_no_word_for_is_refused(why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        export_to_transformers(REFUSED[why], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("config", "why"), [(MVD, "positions are"), (IMAGEMAE, "class token"), (STMAE, "class token")])
def test_methods_with_other_encoders_are_refused(config: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        export_to_transformers(pre_training(config)[1], tmp_path / "out")


def test_what_has_no_place_there_is_said(tmp_path: Path) -> None:
    student = export_to_transformers(pre_training(AMD)[1], tmp_path / "amd")
    assert student[0] == "it is a VideoMAEForPreTraining"
    assert "generators, projections" in student[1]
    alone = export_to_transformers(pre_training(MASKAGAIN)[1], tmp_path / "maskagain")
    assert alone[0] == "it is a VideoMAEModel"
    assert json.loads((tmp_path / "maskagain" / "config.json").read_text())["use_mean_pooling"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        export_to_transformers(classifier()[1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    export_to_transformers(classifier()[1], tmp_path / "out")
    export_to_transformers(pre_training()[1], tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").metadata["kind"] == "pretraining"


# --- the way in


@pytest.mark.parametrize("make", [pre_training, classifier, encoder])
def test_our_export_comes_back_equal(make: Any, tmp_path: Path) -> None:
    _, weights = make()
    export_to_transformers(weights, tmp_path / "out")
    again = load_checkpoint(tmp_path / "out")
    assert again.metadata["kind"] == weights.metadata["kind"]
    assert again.tensors.keys() == weights.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in weights.tensors.items())
    assert again.metadata["encoder"] == weights.metadata["encoder"]
    if make is pre_training:
        ours = VIDEOMAE.encoder, VIDEOMAE.decoder, VIDEOMAE.target
        found = from_dict(VideoMAEConfig, again.metadata["method"])
        assert (found.encoder, found.decoder, found.target) == ours
    if make is classifier:
        assert from_dict(ClassifierConfig, again.metadata["classifier"]) == replace(CLASSIFIER, head_init_scale=0.001)
        assert again.metadata["classes"] == NAMES
        assert from_dict(ViewsConfig, again.metadata["views"]).size == SIZE


def of_library(kind: str, folder: Path, *, seed: int = 0, **settings: Any) -> nn.Module:
    """A model of transformers with random weights, and its folder."""
    module = library()
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50}
    decoder = {f"decoder_{word}": size for word, size in (sizes | {"hidden_size": 16, "intermediate_size": 33}).items()}
    clip = {"image_size": list(SIZE), "patch_size": 4, "num_frames": 4, "num_labels": CLASSES}
    torch.manual_seed(seed)
    model = getattr(module, kind)(module.VideoMAEConfig(**{**sizes, **decoder, **clip, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


@torch.no_grad()
@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("qv_bias", [True, False])
def test_a_classifier_that_the_library_saved_agrees_with_it(mean_pooling: bool, qv_bias: bool, tmp_path: Path) -> None:
    theirs = of_library("VideoMAEForVideoClassification", tmp_path, use_mean_pooling=mean_pooling, qv_bias=qv_bias)
    weights = load_checkpoint(tmp_path)
    model = from_dict(ClassifierConfig, weights.metadata["classifier"]).build().eval()
    load_state_dict_strict(model, weights.tensors, weights.source)
    assert apart(model(CLIP), theirs(entering(CLIP, model.encoder)).logits) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_a_pre_training_that_the_library_saved_agrees_with_it(norm_pix_loss: bool, tmp_path: Path) -> None:
    theirs = of_library("VideoMAEForPreTraining", tmp_path, use_mean_pooling=False, norm_pix_loss=norm_pix_loss)
    weights = load_checkpoint(tmp_path)
    method = from_dict(VideoMAEConfig, weights.metadata["method"]).build().eval()
    load_state_dict_strict(method, weights.tensors, weights.source)
    mask = method.config.mask.draw(torch.arange(len(CLIP)), method.encoder.grid(CLIP))
    found = theirs(entering(CLIP, method.encoder), bool_masked_pos=hidden_places(method, mask.masked))
    assert apart(method(CLIP, mask=mask).loss, found.loss) < 1e-5


@torch.no_grad()
def test_whatever_takes_weights_takes_a_folder_of_the_library(tmp_path: Path) -> None:
    theirs = of_library("VideoMAEForVideoClassification", tmp_path / "classifier")
    model, weights = load_classifier(str(tmp_path / "classifier"))
    assert weights.metadata["classes"] == [f"LABEL_{number}" for number in range(CLASSES)]
    pixels = entering(CLIP, model.encoder)
    assert apart(model.eval()(CLIP), theirs(pixels).logits) < 1e-6
    of_library("VideoMAEForPreTraining", tmp_path / "encoder", use_mean_pooling=False)
    asked = load_encoder(str(tmp_path / "encoder"), precision="fp32")
    assert (asked.views.size, asked.views.sampling.num_frames) == (SIZE, 4)
    assert asked.extract_features(CLIP)["final"].shape == (len(CLIP), ENCODER.dim)


@torch.no_grad()
def test_an_encoder_that_the_library_saved_starts_ours(tmp_path: Path) -> None:
    theirs = of_library("VideoMAEModel", tmp_path, use_mean_pooling=False)
    weights = load_checkpoint(tmp_path)
    config = infer_encoder_config(weights, ENCODER)
    model = config.build().eval()
    init_encoder(model, weights, config)
    assert config.norm_eps == 1e-12
    assert apart(model(CLIP).tokens, theirs(entering(CLIP, model)).last_hidden_state) < 2e-6


def test_a_decoder_behind_no_last_norm_is_left_out_and_said(tmp_path: Path) -> None:
    of_library("VideoMAEForPreTraining", tmp_path, use_mean_pooling=True)
    weights = load_checkpoint(tmp_path)
    assert weights.metadata["kind"] == "encoder"
    assert not any(name.startswith("decoder.") for name in weights.tensors)


def changed(folder: Path, *, config: Mapping[str, Any] = {}, tensors: Mapping[str, Tensor | None] = {}) -> Path:
    """An exported classifier with other words in its config.json, other tensors, or without some (None)."""
    export_to_transformers(classifier()[1], folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    file = folder / "model.safetensors"
    found = {**load_file(file), **tensors}
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, file, metadata={"format": "pt"})
    return folder


LAYER = "videomae.encoder.layer.1."
WRONG: dict[str, tuple[dict[str, Any], dict[str, Tensor | None]]] = {
    "hidden_size 48": ({"hidden_size": 48}, {}),
    "num_hidden_layers 3": ({"num_hidden_layers": 3}, {}),
    "patch_size 8": ({"patch_size": 8}, {}),
    "hidden_act 'relu'": ({"hidden_act": "relu"}, {}),
    "num_attention_heads 'two'": ({"num_attention_heads": "two"}, {}),
    "names 2 classes": ({"id2label": {"0": "a", "1": "b"}}, {}),
    "lacks videomae.layernorm.": ({"use_mean_pooling": False}, {}),
    "lacks fc_norm.": ({}, {"fc_norm.weight": None, "fc_norm.bias": None}),
    "lacks 1 tensor .*q_bias": ({}, {f"{LAYER}attention.attention.q_bias": None}),
    "2 of 3 parts": ({}, {f"{LAYER}attention.attention.key.weight": None}),
    "nothing explains": ({}, {f"{LAYER}attention.attention.key.bias": torch.zeros(24)}),
    "fixed table": ({}, {"videomae.embeddings.position_embeddings": torch.rand(1, 24, 24)}),
}


@pytest.mark.parametrize("why", WRONG)
def test_a_file_that_contradicts_itself_is_refused(why: str, tmp_path: Path) -> None:
    config, tensors = WRONG[why]
    with pytest.raises(InputError, match=why):
        load_checkpoint(changed(tmp_path / "out", config=config, tensors=tensors))


def test_stored_codes_of_positions_are_left_out_where_they_are_the_computed_ones(tmp_path: Path) -> None:
    table = classifier()[0].encoder.positions(ENCODER.grid(CLIP), CLIP.device)[None]
    folder = changed(tmp_path / "out", tensors={"videomae.embeddings.position_embeddings": table})
    assert "encoder.patch_embed.weight" in load_checkpoint(folder).tensors


def test_a_bare_file_needs_the_heads_from_somewhere(tmp_path: Path) -> None:
    folder = changed(tmp_path / "out")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="heads"):
        load_checkpoint(folder / "model.safetensors")
    found = load_checkpoint(folder / "model.safetensors", ENCODER)
    assert infer_encoder_config(found, ENCODER).heads == ENCODER.heads
