"""Loaded encoders: their features of clips and videos are what their parts compute."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_layout import to_foreign
from samples import view_sample
from tiny_encoders import FRAMES, NAMES, RATE, VIEWS, WITH_CLASS_TOKEN, make_videos, write_classifier, write_encoder
from tiny_models import CLASSES, ENCODER, built, clips

from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.decode.reader import iter_frames
from vidstill.data.manifest.open import open_manifest
from vidstill.data.transforms.crop import crop_views
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.models.vit import ViTConfig
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError

CLIPS = clips(5, rows=16, columns=16)
T, H, W = 2, 4, 4  # tokens of a clip

POOLED = {  # of tokens (b, t h w, d), written out
    "mean": lambda tokens: sum(tokens[:, n] for n in range(T * H * W)) / (T * H * W),
    "max": lambda tokens: tokens.max(dim=1).values,
    "space": lambda tokens: torch.stack([tokens[:, t * H * W : (t + 1) * H * W].mean(1) for t in range(T)], 1),
    "time": lambda tokens: ((tokens[:, : H * W] + tokens[:, H * W :]) / 2).reshape(-1, H, W, ENCODER.dim),
    "tokens": lambda tokens: tokens.reshape(-1, T, H, W, ENCODER.dim),
}

TINY = ViTConfig(dim=192, depth=12, heads=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos") / "made")


def write_and_load(folder, config=ENCODER):
    """Write a run's encoder, and return it and what is loaded."""
    return write_encoder(folder, config), load_encoder(str(folder), precision="fp32")


# ---- Clips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("config", [ENCODER, WITH_CLASS_TOKEN], ids=["no class token", "class token"])
def test_features_are_what_the_encoder_gives_pooled(tmp_path, config, pool):
    model, encoder = write_and_load(tmp_path, config)
    with torch.inference_mode():
        whole = model(CLIPS, layers=(1, 2))
    final = encoder.extract_features(CLIPS, pool=pool)
    layers = encoder.extract_features(CLIPS, layers=(1, -1), pool=pool)
    torch.testing.assert_close(final["final"], POOLED[pool](whole.tokens))
    torch.testing.assert_close(layers["block_1"], POOLED[pool](whole.layers[1]))
    torch.testing.assert_close(layers["block_2"], POOLED[pool](whole.layers[2]))
    assert set(final) | set(layers) == {"final", "block_1", "block_2"}


def test_the_class_token_is_given_where_there_is_one(tmp_path):
    model, encoder = write_and_load(tmp_path / "with", WITH_CLASS_TOKEN)
    with torch.inference_mode():
        whole = model(CLIPS, layers=(1,))
    torch.testing.assert_close(encoder.extract_features(CLIPS, pool="class")["final"], whole.cls_token[:, 0])
    layer = encoder.extract_features(CLIPS, layers=[1], pool="class")["block_1"]
    torch.testing.assert_close(layer, whole.cls_layers[1][:, 0])
    write_encoder(tmp_path / "without")
    with pytest.raises(InputError, match="without has no class token; choose mean"):
        load_encoder(str(tmp_path / "without"), precision="fp32").extract_features(CLIPS, pool="class")


@pytest.mark.parametrize("layers", [(-1, -2), (2, 1), (2, -1, 1)])
def test_blocks_are_counted_from_either_end_and_named_from_the_first(tmp_path, layers):
    _, encoder = write_and_load(tmp_path)
    assert tuple(encoder.extract_features(CLIPS, layers=layers)) == ("block_2", "block_1")


@pytest.mark.parametrize("layer", [0, 3, -3, 12])
def test_a_block_that_is_not_there_is_said(tmp_path, layer):
    _, encoder = write_and_load(tmp_path)
    with pytest.raises(InputError, match=f"block {layer} does not exist in an encoder of 2 blocks; give 1 to 2"):
        encoder.extract_features(CLIPS, layers=(layer,))


def test_bytes_are_colours_times_255(tmp_path):
    _, encoder = write_and_load(tmp_path)
    whole = (255 * CLIPS).round()
    torch.testing.assert_close(encoder.extract_features(whole.byte()), encoder.extract_features(whole / 255))


@pytest.mark.parametrize(
    ("config", "pooling"),
    [(ENCODER, "mean"), (ENCODER, "first"), (WITH_CLASS_TOKEN, "first"), (WITH_CLASS_TOKEN, "mean")],
)
def test_the_final_mean_of_a_classifier_is_what_enters_its_head(tmp_path, config, pooling):
    model = write_classifier(tmp_path, ClassifierConfig(encoder=config, num_classes=CLASSES, pooling=pooling))
    encoder = load_encoder(str(tmp_path), precision="fp32")
    entered = []
    model.head.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    with torch.inference_mode():
        logits = model(CLIPS)
    torch.testing.assert_close(encoder.extract_features(CLIPS)["final"], entered[0])
    torch.testing.assert_close(encoder.predict_logits(CLIPS), logits)
    assert encoder.classes == NAMES


# ---- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pretraining", "classifier"])
def test_a_foreign_file_is_known_by_its_width(tmp_path, kind):
    model = built(TINY).eval()
    tensors = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    rules = (build_classifier_rules if kind == "classifier" else build_videomae_rules)(TINY)
    torch.save({"model": to_foreign(tensors, rules)}, tmp_path / "theirs.pth")
    encoder = load_encoder(str(tmp_path / "theirs.pth"), precision="fp32")
    clip = clips(1, frames=4, rows=32, columns=32)
    with torch.inference_mode():
        block = model(clip, layers=(11,)).layers[11]
    layer = encoder.extract_features(clip, layers=(-2,), pool="tokens")["block_11"]
    torch.testing.assert_close(layer.reshape(block.shape), block)
    assert (encoder.views.sampling, encoder.views.size) == (DenseSampling(num_frames=16, stride=4), (224, 224))
    assert encoder.clip_seconds(32.0) == 2.0


def test_a_width_that_the_family_does_not_have_is_said(tmp_path):
    tensors = {f"encoder.{name}": tensor for name, tensor in built(ENCODER).state_dict().items()}
    torch.save({"model": to_foreign(tensors, build_videomae_rules(ENCODER))}, tmp_path / "theirs.pth")
    with pytest.raises(InputError, match="its encoder has a width of 24, which is no size of the family"):
        load_encoder(str(tmp_path / "theirs.pth"), precision="fp32")


# ---- Videos ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("views", "crops"), [(1, 1), (2, 3)])
def test_the_features_of_a_video_are_the_mean_over_its_views(tmp_path, videos, views, crops):
    model, encoder = write_and_load(tmp_path)
    video = videos / "train/000001.mp4"
    dataset = ViewClips(open_manifest(video), replace(VIEWS, temporal_clips=views, spatial_crops=crops))
    clip = view_sample(dataset, 0).clip.float() / 255
    with torch.inference_mode():
        each = [model(one[None]).tokens.mean(1)[0] for one in clip]
    torch.testing.assert_close(encoder.embed(video, temporal_clips=views, spatial_crops=crops), sum(each) / len(each))


def expected_windows(video: Path, window: float, hop: float) -> list[torch.Tensor]:
    """Clips of 4 frames, which stand evenly in the window: of each moment the nearest frame, at the end the last."""
    pictures = list(iter_frames(video))
    features, start = [], 0.0
    while start < FRAMES / RATE:
        moments = [start + n * window / 4 for n in range(4)]
        inside = [moment for moment in moments if moment <= (FRAMES - 0.5) / RATE]
        if start == 0 or len(inside) > 2:
            numbers = [min(range(FRAMES), key=lambda n: (abs(n / RATE - moment), n)) for moment in inside]
            numbers += [FRAMES - 1] * (4 - len(numbers))
            crop = crop_views(
                torch.stack([torch.from_numpy(pictures[n].copy()) for n in numbers]).numpy(), 16, (16, 16), 1
            )
            features.append(torch.from_numpy(crop[0]).permute(3, 0, 1, 2).float() / 255)
        start += hop
    return features


@pytest.mark.parametrize(
    ("window", "hop", "count"), [(0.5, 0.25, 3), (0.5, None, 2), (1.0, 0.125, 4), (8.0, 1.0, 1), (0.25, 0.5, 2)]
)
def test_windows_are_embedded_from_the_start_of_a_video_to_its_end(tmp_path, videos, window, hop, count):
    model, encoder = write_and_load(tmp_path)
    video = videos / "val/000000.mp4"
    with torch.inference_mode():
        expected = model(torch.stack(expected_windows(video, window, hop or window))).tokens.mean(1)
    features = encoder.embed(video, window=window, hop=hop)
    assert features.shape == (count, 24)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(encoder.embed(video, window=window, hop=hop, batch=1), expected)


def test_several_layers_are_named_and_several_videos_are_in_order(tmp_path, videos):
    _, encoder = write_and_load(tmp_path)
    names = [videos / "val/000001.mp4", str(videos / "val/000000.mp4")]
    first, second = encoder.embed(names, layers=(1, 2), pool="tokens", window=0.5)
    assert {name: each.shape for name, each in first.items()} == dict.fromkeys(("block_1", "block_2"), (2, T, H, W, 24))
    assert torch.equal(first["block_2"], encoder.embed(names[0], layers=(2,), pool="tokens", window=0.5))
    assert not torch.equal(first["block_2"], second["block_2"])


def test_what_cannot_be_embedded_is_said(tmp_path, videos):
    _, encoder = write_and_load(tmp_path / "run")
    (tmp_path / "broken.mp4").write_bytes(b"no frame in here")
    for window in (None, 1.0):
        with pytest.raises(InputError, match=r"broken\.mp4 does not decode"):
            encoder.embed(tmp_path / "broken.mp4", window=window)
        with pytest.raises(InputError, match=r"nowhere\.mp4"):
            encoder.embed(tmp_path / "nowhere.mp4", window=window)
    video = videos / "val/000001.mp4"
    with pytest.raises(InputError, match="batch is 0; take 1 or more"):
        encoder.embed(video, window=1.0, batch=0)
