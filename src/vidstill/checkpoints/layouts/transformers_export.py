"""Our weights as a folder of `transformers`: VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vidstill.checkpoints.convert import rename_to_foreign
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.transformers import (
    FINAL_NORM_EPS,
    TRANSFORMERS_PREFIX,
    VIDSTILL_KEY,
    build_transformers_rules,
)
from vidstill.checkpoints.licences import find_licence
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.files import check_output_dir, get_package_version, write_bytes
from vidstill.utils.types import InputError

TRANSFORMERS_CONFIG_FILE, TRANSFORMERS_WEIGHTS_FILE, TRANSFORMERS_PROCESSOR_FILE, MODEL_CARD_FILE = (
    "config.json", "model.safetensors", "preprocessor_config.json", "README.md"
)  # fmt: skip
_RESAMPLE_CODES = {"bilinear": 2, "bicubic": 3}  # PIL's numbers
_DEFAULT_FRAMES, _DEFAULT_SIZE = 16, (224, 224)  # of clips, where our file does not say it


@dataclass(frozen=True)
class TransformersExport:
    """
    Args:
        architecture: the class of transformers that loads the folder.
        notes: what differs there, and what was left out.
    """

    architecture: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _ModelSpec:
    """What our file holds, as far as transformers has words for it."""

    encoder: ViTConfig
    decoder: DecoderConfig | None
    target: str  # of a pre-training
    classifier: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    omitted_modules: tuple[str, ...]

    @property
    def architecture(self) -> str:
        if self.classifier:
            return "VideoMAEForVideoClassification"
        return "VideoMAEModel" if self.decoder is None else "VideoMAEForPreTraining"

    @property
    def final_norm_eps(self) -> float:
        """Of the norm before the head, where transformers has torch's own."""
        if self.classifier.get("pooling") == "mean":
            return float(self.classifier.get("norm_eps", 1e-6))
        return FINAL_NORM_EPS if self.decoder is None else self.decoder.final_norm_eps


def export_to_transformers(checkpoint: Checkpoint, directory: Path) -> TransformersExport:
    """Writes config.json, model.safetensors, preprocessor_config.json and a model card into a folder.

    A classifier becomes a VideoMAEForVideoClassification; a pre-training that rebuilds pixels, with its decoder, a
    VideoMAEForPreTraining; an encoder alone, and the student of a method without a decoder, a VideoMAEModel.

    Args:
        checkpoint: of ours, or a foreign file's that was imported.
        directory: a new one, or an earlier export, which is written over.

    Raises:
        InputError: transformers has no such model, or the folder holds something else; nothing was written then.
    """
    about = checkpoint.metadata
    model = _read_model_spec(checkpoint)
    _check_model(model, checkpoint.source)
    names = build_transformers_rules(
        model.encoder, model.decoder, prefix="" if model.architecture == "VideoMAEModel" else TRANSFORMERS_PREFIX
    )
    theirs = rename_to_foreign(model.tensors, names, f"{checkpoint.source} cannot be written for transformers")
    licence = find_licence(checkpoint)
    config, processor = _build_config(model, about, licence), _build_processor_config(model.encoder, about)
    notes = _describe_differences(model)
    check_output_dir(directory, "an export to transformers", TRANSFORMERS_CONFIG_FILE)
    texts = {
        TRANSFORMERS_PROCESSOR_FILE: json.dumps(processor, indent=2) + "\n",
        MODEL_CARD_FILE: build_model_card(
            model.architecture, config, checkpoint.source, licence, about.get("provenance") or (), notes
        ),
        TRANSFORMERS_CONFIG_FILE: json.dumps(config, indent=2) + "\n",  # the last one: without it nothing is loaded
    }
    write_bytes(
        directory / TRANSFORMERS_WEIGHTS_FILE,
        save({n: t.contiguous() for n, t in theirs.items()}, metadata={"format": "pt"}),
    )
    for name, text in texts.items():
        write_bytes(directory / name, text.encode())
    return TransformersExport(model.architecture, notes)


def _read_model_spec(checkpoint: Checkpoint) -> _ModelSpec:
    about, tensors = checkpoint.metadata, dict(checkpoint.tensors)
    kind = about.get("kind")
    if kind not in ("pretraining", "encoder", "classifier"):
        what = f"is a {kind}" if kind else "does not say what it is"
        raise InputError(f"{checkpoint.source} {what}; only pre-trainings, encoders and classifiers have a place there")
    classifier = about.get("classifier", {}) if kind == "classifier" else {}
    encoder = from_dict(ViTConfig, about["encoder"] if "encoder" in about else classifier["encoder"])
    method = about.get("method") or about.get("recipe", {}).get("method") or {}
    stated = about.get("decoder") or method.get("decoder")
    decodes = kind == "pretraining" and stated is not None and "decoder.head.weight" in tensors
    beginnings = (
        ("encoder.", "decoder.") if decodes else ("encoder.", "norm.", "head.") if classifier else ("encoder.",)
    )
    left_out = sorted({name.partition(".")[0] for name in tensors if not name.startswith(beginnings)})
    return _ModelSpec(
        encoder=encoder,
        decoder=from_dict(DecoderConfig, stated) if decodes else None,
        target=str(method.get("target", "per_channel")),
        classifier=classifier,
        tensors={name: tensor for name, tensor in tensors.items() if name.startswith(beginnings)},
        omitted_modules=tuple(left_out),
    )


def _check_model(model: _ModelSpec, source: str) -> None:
    """Raises an InputError where transformers has no such model: another would be loaded there, and be wrong."""
    encoder, decoder = model.encoder, model.decoder
    wrong = ["it has a class token"] if encoder.class_token else []
    wrong += ["it has relative positions"] if encoder.relative_positions else []
    for whose, part in (("its", encoder), ("its decoder's", decoder)):
        if part is None:
            continue
        if part.positions != "sinusoid" or part.learned_grid is not None:
            how = ", resized from another grid" if part.positions == "sinusoid" else ""
            wrong.append(f"{whose} positions are {part.positions}{how}, and transformers computes VideoMAE's sinusoid")
        if part.attention_bias == "qkv":
            wrong.append(f"{whose} attention has biases of keys")
        if part.layer_scale:
            wrong.append(f"{whose} branches are scaled")
    if decoder is not None:
        wrong += _find_decoder_differences(model, decoder)
    if (pooling := model.classifier.get("pooling", "mean")) not in ("mean", "first"):
        wrong.append(f"it pools its tokens by {pooling!r}")
    if wrong:
        raise InputError(f"{source} is no VideoMAE as transformers has it: {wrong[0]}")


def _find_decoder_differences(model: _ModelSpec, decoder: DecoderConfig) -> list[str]:
    encoder, wrong = model.encoder, []
    if decoder.class_token != "none":
        wrong.append("its decoder takes a class token")
    if decoder.embed_bias:
        wrong.append("the layer before its decoder has a bias")
    if "encoder.norm.weight" not in model.tensors:
        wrong.append("it decodes what has gone through no last norm")
    if decoder.norm_eps != encoder.norm_eps:
        wrong.append(
            f"its encoder's LayerNorms have an eps of {encoder.norm_eps:g} and its decoder's of {decoder.norm_eps:g}, "
            "for which config.json has one word"
        )
    if decoder.attention_bias != encoder.attention_bias:
        wrong.append("the attention of its encoder and of its decoder have other biases")
    if encoder.tubelet[1] != encoder.tubelet[2]:
        wrong.append("its tubelets are not square")
    if model.target not in ("per_channel", "raw"):
        wrong.append(f"what it guesses is {model.target!r}, and there it is 'per_channel' or 'raw'")
    if model.target == "raw" and (encoder.mean, encoder.std) != (IMAGENET_MEAN, IMAGENET_STD):
        wrong.append("it guesses raw pixels, whose mean and deviation are ImageNet's there")
    return wrong


def _build_config(model: _ModelSpec, metadata: Mapping[str, Any], licence: str | None) -> dict[str, Any]:
    """What stands in config.json; under our own word what transformers does not look at."""
    encoder, decoder = model.encoder, model.decoder
    frames, size = _read_clip_shape(metadata)
    t, h, w = encoder.tubelet
    config: dict[str, Any] = {
        "architectures": [model.architecture],
        "model_type": "videomae",
        "num_channels": 3,
        "num_frames": frames,
        "image_size": _collapse_pair(size),
        "tubelet_size": t,
        "patch_size": _collapse_pair((h, w)),
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": int(encoder.dim * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": encoder.norm_eps,
        "qv_bias": encoder.attention_bias == "qv",
        "use_mean_pooling": "encoder.norm.weight" not in model.tensors,
        "dtype": str(next(iter(model.tensors.values())).dtype).removeprefix("torch."),
    }
    if decoder is not None:
        config |= {
            "decoder_hidden_size": decoder.dim,
            "decoder_num_hidden_layers": decoder.depth,
            "decoder_num_attention_heads": decoder.heads,
            "decoder_intermediate_size": int(decoder.dim * decoder.mlp_ratio),
            "norm_pix_loss": model.target == "per_channel",
        }
    if model.classifier:
        numbers = range(metadata["classifier"]["num_classes"])
        classes = [str(name) for name in metadata.get("classes", numbers)]  # the authors' files name none
        config |= {
            "id2label": {str(number): name for number, name in enumerate(classes)},
            "label2id": {name: number for number, name in enumerate(classes)},
            "problem_type": _get_problem_type(model.classifier),
        }
    past = {"licence": licence, "provenance": metadata.get("provenance")}
    ours = {"version": get_package_version("vidstill"), "last_norm_eps": model.final_norm_eps}
    return config | {VIDSTILL_KEY: ours | {word: value for word, value in past.items() if value is not None}}


def _get_problem_type(classifier: Mapping[str, Any]) -> str:
    return "multi_label_classification" if classifier.get("multi_label") else "single_label_classification"


def _read_clip_shape(metadata: Mapping[str, Any]) -> tuple[int, tuple[int, int]]:
    """Frames of a clip, and their rows and columns, as our file says."""
    said = metadata.get("views") or metadata.get("recipe", {}).get("clips") or {}
    frames = said.get("sampling", {}).get("num_frames", _DEFAULT_FRAMES)
    rows, columns = said.get("size", _DEFAULT_SIZE)
    return frames, (rows, columns)


def _build_processor_config(encoder: ViTConfig, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """VideoMAEImageProcessor: bytes to what enters the model, as our test looks at the middle of a frame.

    Where our test enlarges a frame further, so that a crop has room in it, theirs would pad it: it is enlarged
    there too.
    """
    views = metadata.get("views") or {}
    _, (rows, columns) = _read_clip_shape(metadata)
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": max(views.get("short_side", 1), rows, columns)},
        "resample": _RESAMPLE_CODES[views.get("interpolation", "bilinear")],
        "do_center_crop": True,
        "crop_size": {"height": rows, "width": columns},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }


def _describe_differences(model: _ModelSpec) -> tuple[str, ...]:
    notes = []
    if model.omitted_modules:
        notes.append(f"left out, as a {model.architecture} has no place for it: {', '.join(model.omitted_modules)}")
    if model.final_norm_eps != FINAL_NORM_EPS:
        norm = "fc_norm" if model.classifier else "decoder.norm"
        notes.append(
            f"transformers gives {norm} torch's eps of {FINAL_NORM_EPS:g}, where this model has {model.final_norm_eps:g}, and "
            f"config.json has no word for it: what leaves the norm differs by a share of "
            f"{abs(FINAL_NORM_EPS - model.final_norm_eps) / 2:g} / (variance of what enters it); "
            f"`model.{norm}.eps = {model.final_norm_eps:g}` after loading makes it equal"
        )
    return tuple(notes)


def _collapse_pair(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


_HUB_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}


_ARCHITECTURE_DESCRIPTIONS = {
    "VideoMAEModel": "An encoder of videos.",
    "VideoMAEForPreTraining": "A masked autoencoder of videos: an encoder, and the decoder it was pre-trained with.",
    "VideoMAEForVideoClassification": "A classifier of videos.",
}


def build_model_card(
    architecture: str,
    config: Mapping[str, Any],
    source: str,
    licence: str | None,
    provenance: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> str:
    """
    Args:
        config: as config.json has it.
        licence: by its SPDX name, or an expression of several; None: none is stated.
        provenance: of our file: what the weights learned from.
        notes: what differs from our model, in sentences.
    """
    name = source.rstrip("/").rpartition("/")[2] or "model"
    size = config["image_size"] if isinstance(config["image_size"], list) else 2 * [config["image_size"]]
    parts = [
        _format_front_matter(architecture, licence),
        f"# {name}",
        f"{_ARCHITECTURE_DESCRIPTIONS[architecture]} Clips have {config['num_frames']} frames of {size[0]} × {size[1]} pixels. "
        f"Exported by vidstill {get_package_version('vidstill')}.",
        _format_usage(architecture),
    ]
    if notes:
        parts.append("## What differs\n\n" + "\n".join(f"- {note}" for note in notes))
    parts.append("## Licence and provenance\n\n" + _format_card_provenance(licence, provenance))
    return "\n\n".join(parts) + "\n"


def _format_front_matter(architecture: str, licence: str | None) -> str:
    lines = ["---", "library_name: transformers", "tags:", "- videomae", "- video", "- vidstill"]
    if architecture == "VideoMAEForVideoClassification":
        lines.append("pipeline_tag: video-classification")
    if licence:
        word = licence.lower()
        lines += (
            [f"license: {word}"]
            if word in _HUB_LICENCES
            else ["license: other", f"license_name: {json.dumps(licence)}"]
        )
    return "\n".join([*lines, "---"])


def _format_usage(architecture: str) -> str:
    return f"""```python
from transformers import {architecture}, VideoMAEImageProcessor

processor = VideoMAEImageProcessor.from_pretrained(".")  # this folder
model = {architecture}.from_pretrained(".")
inputs = processor(frames, return_tensors="pt")  # the frames of one clip: a list of (h, w, 3) bytes
```

Frames that are made smaller are smoothed by this processor, and were not in training: shrink them before, or expect a
slightly different picture."""


def _format_card_provenance(licence: str | None, provenance: Sequence[Mapping[str, Any]]) -> str:
    stated = f"Licence: {licence}." if licence else "No licence is stated by what these weights were made from."
    lines = [
        f"- {each.get('role', 'from')}: `{each.get('source', '')}`"
        + (f", {each['layout']}" if each.get("layout") else "")
        + (f", licence {each['licence']}" if each.get("licence") else "")
        for each in provenance
    ]
    return "\n".join([stated, *(["", *lines] if lines else [])])
