"""VideoMAE's checkpoints of transformers agree with that library: file on disk → recognised → model → outputs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from foreign_layout import to_foreign
from reference_cases import Case, cases
from reference_models import colours, list_tokens
from safetensors.torch import save_file
from torch import Tensor, nn

from vidstill.checkpoints.layouts.transformers import build_transformers_rules
from vidstill.checkpoints.load import load_checkpoint, load_state_dict_strict
from vidstill.methods.common.masking import Mask
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict

pytestmark = pytest.mark.reference


def in_memory(name: str) -> str:
    """Biases as recent versions of the library name them."""
    return name.replace("attention.q_bias", "attention.query.bias").replace("attention.v_bias", "attention.value.bias")


def as_saved(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def of_new_names(folder: Path, tensors: dict[str, Tensor]) -> Path:
    return as_saved(folder, {in_memory(name): tensor for name, tensor in tensors.items()})


def as_pickle(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def as_bare_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    return as_saved(folder, tensors) / "model.safetensors"


Saved = Callable[[Path, dict[str, Tensor]], Path]
SAVED: list[Saved] = [as_saved, of_new_names, as_pickle, as_bare_file]


def on_disk(case: Case, folder: Path, saved: Saved) -> str:
    (folder / "config.json").write_text(json.dumps(case.json["config"]["hf_config"]))
    return str(saved(folder, case.under("weights")))


def clip_of(case: Case) -> Tensor:
    return colours(rearrange(case.tensors["input/pixel_values"], "b t c h w -> b c t h w"))


def hold_gradients(case: Case, module: nn.Module, encoder: ViTConfig) -> None:
    """Every gradient that the reference has equals ours; of queries, keys and values it is some rows of ours."""
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    foreign = to_foreign(gradients, build_transformers_rules(encoder.tubelet))
    foreign |= {in_memory(name): gradient for name, gradient in foreign.items()}
    case.hold_under("grad", foreign, "gradients", whole=True)


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("case", cases(method="videomae_hf", kind="hf_classification"))
def test_a_classifier_of_transformers_agrees_with_it(case: Case, saved: Saved, tmp_path: Path) -> None:
    stored = case.json["config"]["hf_config"]
    weights = load_checkpoint(on_disk(case, tmp_path, saved))
    model = from_dict(ClassifierConfig, weights.metadata["classifier"]).build()
    load_state_dict_strict(model, weights.tensors, weights.source)
    names = stored.get("id2label") or {}
    assert weights.metadata["classes"] == [names.get(str(n), f"LABEL_{n}") for n in range(model.config.num_classes)]
    assert model.config.encoder.norm_eps == stored["layer_norm_eps"]
    clip = clip_of(case)

    encoded = model.encoder(clip, layers=range(1, model.config.encoder.depth + 1))
    for block, tokens in encoded.layers.items():
        case.hold(tokens, f"out/encoder_layer.{block - 1}")
    case.hold(model.forward_features(clip), "out/features")
    logits = model(clip)
    case.hold(logits, "out/logits")
    loss = F.cross_entropy(logits, case.tensors["input/labels"])
    case.hold_loss(loss, "total")
    loss.backward()
    hold_gradients(case, model, model.config.encoder)


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("case", cases(method="videomae_hf", kind="hf_pretrain"))
def test_a_pre_training_of_transformers_agrees_with_it(case: Case, saved: Saved, tmp_path: Path) -> None:
    weights = load_checkpoint(on_disk(case, tmp_path, saved))
    config = from_dict(VideoMAEConfig, weights.metadata["method"])
    method = config.build()
    load_state_dict_strict(method, weights.tensors, weights.source)
    clip, hidden = clip_of(case), case.tensors["input/bool_masked_pos"]
    mask = Mask(list_tokens(hidden, 0), list_tokens(hidden, 1))

    encoded = method.encoder(clip, mask.visible, layers=range(1, config.encoder.depth + 1))
    for block, tokens in encoded.layers.items():
        case.hold(tokens, f"out/encoder_layer.{block - 1}")
    case.hold(encoded.tokens, "out/encoder")
    case.hold(method.forward_decoder(clip, encoded, mask), "out/logits")
    output = method(clip, mask=mask)
    case.hold_loss(output.loss, "total")
    output.loss.backward()
    hold_gradients(case, method, config.encoder)
