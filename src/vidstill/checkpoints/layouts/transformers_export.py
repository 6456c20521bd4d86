"""Export to a directory of `transformers`: VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidstill.checkpoints.io import Checkpoint, write_safetensors
from vidstill.checkpoints.layouts.layout import (
    CHECKPOINT_KINDS,
    ForeignFormat,
    Layout,
    get_method_metadata,
    read_decoder_config,
)
from vidstill.checkpoints.layouts.rename import rename_to_foreign
from vidstill.checkpoints.layouts.transformers import (
    FINAL_NORM_EPS,
    TRANSFORMERS_PREFIX,
    VIDSTILL_KEY,
    build_transformers_rules,
    match_transformers,
)
from vidstill.checkpoints.licences import find_licence, format_provenance
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import get_package_version, write_bytes
from vidstill.utils.output_dir import check_output_dir
from vidstill.utils.types import InputError

_CONFIG_FILE, _WEIGHTS_FILE = "config.json", "model.safetensors"
_PROCESSOR_FILE, _CARD_FILE = "preprocessor_config.json", "README.md"
_PIL_RESAMPLING = {"bilinear": 2, "bicubic": 3}
_DEFAULT_FRAMES, _DEFAULT_SIZE = 16, (224, 224)  # where the checkpoint does not say it
_HUB_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
_ARCHITECTURE_DESCRIPTIONS = {
    "VideoMAEModel": "An encoder of videos.",
    "VideoMAEForPreTraining": "A masked autoencoder of videos: an encoder, and the decoder it was pre-trained with.",
    "VideoMAEForVideoClassification": "A video classifier.",
}


class _ModelSpec:
    """The parts of a checkpoint that transformers has."""

    def __init__(self, checkpoint: Checkpoint):
        metadata, kind = checkpoint.metadata, checkpoint.metadata.get("kind")
        if kind not in CHECKPOINT_KINDS:
            description = f"is a {kind}" if kind else "does not say what it is"
            raise InputError(
                f"{checkpoint.source} {description}; only pre-trainings, encoders and classifiers can be exported"
            )
        self.classifier: Mapping[str, Any] = metadata.get("classifier", {}) if kind == "classifier" else {}
        has_decoder = kind == "pretraining" and "decoder.head.weight" in checkpoint.tensors
        self.decoder = read_decoder_config(metadata) if has_decoder else None
        self.encoder = from_dict(ViTConfig, metadata.get("encoder") or self.classifier["encoder"])
        self.target = str(get_method_metadata(metadata).get("target", "per_channel"))  # of a pre-training
        prefixes = [
            "encoder.",
            *(["decoder."] if self.decoder else []),
            *(["norm.", "head."] if self.classifier else []),
        ]
        tensors = checkpoint.tensors.items()
        self.tensors = {name: tensor for name, tensor in tensors if name.startswith(tuple(prefixes))}
        self.omitted_modules = sorted(
            {name.partition(".")[0] for name in checkpoint.tensors.keys() - self.tensors.keys()}
        )
        self.architecture = "VideoMAEModel" if self.decoder is None else "VideoMAEForPreTraining"
        # Of the norm before the head, where transformers has torch's default
        self.final_norm_eps = FINAL_NORM_EPS if self.decoder is None else self.decoder.final_norm_eps
        if self.classifier:
            self.architecture = "VideoMAEForVideoClassification"
        if self.classifier.get("pooling") == "mean":
            self.final_norm_eps = float(self.classifier.get("norm_eps", 1e-6))


def export_to_transformers(checkpoint: Checkpoint, directory: Path) -> list[str]:
    """Write config.json, model.safetensors, preprocessor_config.json and a model card.

    A classifier becomes a VideoMAEForVideoClassification; a pre-training that reconstructs pixels becomes a
    VideoMAEForPreTraining with its decoder; an encoder, or a student without decoder, becomes a VideoMAEModel.

    Args:
        checkpoint: Ours, or an imported one.
        directory: A new one, or an earlier export, which is overwritten.

    Returns:
        Sentences: which class of transformers loads the directory, what was left out, and what differs there.

    Raises:
        InputError: transformers has no such model, or the directory holds something else; nothing is written then.
    """
    model = _ModelSpec(checkpoint)
    if difference := next(_find_differences(model, checkpoint.metadata), None):
        advice = "export it with --to onnx or --to torch"
        if model.encoder.positions not in _FORMAT.position_kinds and model.encoder.tubelet[0] > 1:
            option = (
                "--method.encoder.positions"
                if checkpoint.metadata.get("kind") == "pretraining"
                else "--encoder.positions"
            )
            advice = f"train it again with {option} {_FORMAT.position_kinds[0]}, or {advice}"
        raise InputError(f"{checkpoint.source} is no VideoMAE as transformers has it: {difference}; {advice}")
    prefix = "" if model.architecture == "VideoMAEModel" else TRANSFORMERS_PREFIX
    rules = build_transformers_rules(model.encoder.tubelet, prefix=prefix)
    tensors = rename_to_foreign(model.tensors, rules, f"{checkpoint.source} cannot be written for transformers")
    licence, notes = find_licence(checkpoint), _describe_differences(model)
    config = _build_config(model, checkpoint.metadata, licence)
    card = _build_model_card(config, checkpoint, licence, notes)
    check_output_dir(directory, "an export to transformers", _CONFIG_FILE)
    write_safetensors(directory / _WEIGHTS_FILE, tensors)
    _write_json(directory / _PROCESSOR_FILE, _build_processor_config(model.encoder, checkpoint.metadata))
    write_bytes(directory / _CARD_FILE, card.encode())
    _write_json(directory / _CONFIG_FILE, config)  # last: nothing loads without it
    return [f"it is a {model.architecture}", *notes]


def _write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def _find_differences(model: _ModelSpec, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield what transformers' VideoMAE does not have: it would load there, and be wrong."""
    encoder, decoder = model.encoder, model.decoder
    yield from _FORMAT.find_differences(encoder, metadata if decoder or model.classifier else {})
    for owner, part in (("its", encoder), ("its decoder's", decoder)):
        if part is not None and part.learned_grid is not None:
            yield f"{owner} positions are resized from another grid"
    if decoder is None:
        return
    is_imagenet = (encoder.mean, encoder.std) == (IMAGENET_MEAN, IMAGENET_STD)
    differences = {
        "its decoder takes a class token": decoder.class_token != "none",
        "the layer before its decoder has a bias": decoder.embed_bias,
        "its decoder takes tokens that went through no final norm": "encoder.norm.weight" not in model.tensors,
        f"the norm eps of its encoder is {encoder.norm_eps:g} and of its decoder {decoder.norm_eps:g}, and config.json "
        "has one key for both": decoder.norm_eps != encoder.norm_eps,
        "the attention biases of its encoder and decoder differ": decoder.attention_bias != encoder.attention_bias,
        "its tubelets are not square": encoder.tubelet[1] != encoder.tubelet[2],
        f"its target is {model.target!r}, not 'per_channel' or 'raw'": model.target not in ("per_channel", "raw"),
        "its target is raw pixels, normalized by ImageNet's mean there": model.target == "raw" and not is_imagenet,
    }
    yield from (difference for difference, is_there in differences.items() if is_there)


def _build_config(model: _ModelSpec, metadata: Mapping[str, Any], licence: str | None) -> dict[str, Any]:
    """Return the content of config.json; what transformers has no key for stands under VIDSTILL_KEY."""
    encoder, decoder = model.encoder, model.decoder
    frames, size = _read_clip_shape(metadata)
    config: dict[str, Any] = {
        "architectures": [model.architecture],
        "model_type": "videomae",
        "num_frames": frames,
        "image_size": _collapse_pair(size),
        "tubelet_size": encoder.tubelet[0],
        "patch_size": _collapse_pair(encoder.tubelet[1:]),
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.norm_eps,
        "qv_bias": encoder.attention_bias == "qv",
        "use_mean_pooling": "encoder.norm.weight" not in model.tensors,
        "dtype": str(next(iter(model.tensors.values())).dtype).removeprefix("torch."),
    }
    for prefix, part in (("", encoder), ("decoder_", decoder)):
        if part is not None:
            config |= {f"{prefix}hidden_size": part.dim, f"{prefix}num_hidden_layers": part.depth}
            config |= {f"{prefix}num_attention_heads": part.heads}
            config |= {f"{prefix}intermediate_size": int(part.dim * part.mlp_ratio)}
    if decoder is not None:
        config["norm_pix_loss"] = model.target == "per_channel"
    if model.classifier:
        classes = metadata.get("classes", range(model.classifier["num_classes"]))  # the authors' files have no names
        problem = "multi_label" if model.classifier.get("multi_label") else "single_label"
        config |= {
            "id2label": {str(index): str(name) for index, name in enumerate(classes)},
            "label2id": {str(name): index for index, name in enumerate(classes)},
            "problem_type": f"{problem}_classification",
        }
    native: dict[str, Any] = {"version": get_package_version("vidstill"), "last_norm_eps": model.final_norm_eps}
    passed_on = {"licence": licence, "provenance": metadata.get("provenance")}
    return config | {VIDSTILL_KEY: native | {key: value for key, value in passed_on.items() if value is not None}}


def _read_clip_shape(metadata: Mapping[str, Any]) -> tuple[int, tuple[int, int]]:
    """Return the frames of a clip, and its rows and columns."""
    clips = metadata.get("views") or metadata.get("recipe", {}).get("clips") or {}
    rows, columns = clips.get("size", _DEFAULT_SIZE)
    return clips.get("sampling", {}).get("num_frames", _DEFAULT_FRAMES), (rows, columns)


def _build_processor_config(encoder: ViTConfig, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of VideoMAEImageProcessor: the centre crop of our evaluation.

    Its short side is at least the crop: where ours enlarges a frame further, theirs would pad it.
    """
    views = metadata.get("views") or {}
    _, (rows, columns) = _read_clip_shape(metadata)
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": max(views.get("short_side", 1), rows, columns)},
        "resample": _PIL_RESAMPLING[views.get("interpolation", "bilinear")],
        "do_center_crop": True,
        "crop_size": {"height": rows, "width": columns},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }


def _describe_differences(model: _ModelSpec) -> list[str]:
    """Return what is left out, and what differs there."""
    sentences = []
    if model.omitted_modules:
        sentences.append(f"left out, as a {model.architecture} does not have it: {', '.join(model.omitted_modules)}")
    if (eps := model.final_norm_eps) != FINAL_NORM_EPS:
        norm = "fc_norm" if model.classifier else "decoder.norm"
        sentences.append(
            f"the eps of {norm} is {FINAL_NORM_EPS:g} in transformers and {eps:g} in this model, and config.json has "
            f"no key for it: the relative difference of its output is {abs(FINAL_NORM_EPS - eps) / 2:g} / (variance of "
            f"its input); `model.{norm}.eps = {eps:g}` after loading removes it"
        )
    return sentences


def _collapse_pair(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _build_model_card(
    config: Mapping[str, Any], checkpoint: Checkpoint, licence: str | None, differences: Sequence[str]
) -> str:
    from huggingface_hub import ModelCardData

    (architecture,) = config["architectures"]
    is_hub_licence = (licence or "").lower() in _HUB_LICENCES
    front_matter = ModelCardData(
        library_name="transformers",
        tags=["videomae", "video", "vidstill"],
        pipeline_tag="video-classification" if config.get("id2label") else None,
        license=None if licence is None else licence.lower() if is_hub_licence else "other",
        license_name=None if is_hub_licence else licence,
    )
    frames, (rows, columns) = _read_clip_shape(checkpoint.metadata)
    sections = [
        f"---\n{front_matter.to_yaml()}\n---",
        f"# {checkpoint.source.rstrip('/').rpartition('/')[2] or 'model'}",
        f"{_ARCHITECTURE_DESCRIPTIONS[architecture]} Clips have {frames} frames of {rows} × {columns} pixels. Exported "
        f"by vidstill {get_package_version('vidstill')}.",
        f"""```python
from transformers import {architecture}, VideoMAEImageProcessor

processor = VideoMAEImageProcessor.from_pretrained(".")  # this directory
model = {architecture}.from_pretrained(".")
inputs = processor(frames, return_tensors="pt")  # the frames of one clip: a list of (h, w, 3) bytes
```

This processor antialiases frames that it shrinks; training did not. Shrink them beforehand, or expect slightly
different pixels.""",
    ]
    if differences:
        sections.append("## What differs\n\n" + "\n".join(f"- {sentence}" for sentence in differences))
    licence_line = f"Licence: {licence}." if licence else "No licence is stated for what these weights were made from."
    sections.append(f"## Licence and provenance\n\n{licence_line}")
    if provenance := format_provenance(checkpoint.metadata.get("provenance") or [], "- "):
        sections.append("\n".join(provenance))
    return "\n\n".join(sections) + "\n"


_FORMAT = ForeignFormat(
    project="transformers",
    build_rules=lambda config, _: build_transformers_rules(config.tubelet),
    position_kinds=("sinusoid",),
    supports_layer_scale=False,
    mean_std=None,
)
TRANSFORMERS = Layout(
    key="transformers", name="transformers", matchers=(match_transformers,), write=export_to_transformers
)
