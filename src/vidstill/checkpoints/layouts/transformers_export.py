"""Our weights as a folder of `transformers`: VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vidstill.checkpoints.convert import in_their_words
from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.layouts.transformers import LAST_EPS, OURS, PREFIX, transformers_names
from vidstill.checkpoints.licences import licence_of
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.config_io import from_plain
from vidstill.utils.files import check_folder, version_of, write_below
from vidstill.utils.types import InputError

CONFIG_FILE, TENSORS_FILE, PROCESSOR_FILE, CARD_FILE = (
    "config.json", "model.safetensors", "preprocessor_config.json", "README.md"
)  # fmt: skip
_FILTERS = {"bilinear": 2, "bicubic": 3}  # PIL's numbers
_FRAMES, _SIZE = 16, (224, 224)  # of clips, where our file does not say it


@dataclass(frozen=True)
class Written:
    """
    Args:
        architecture: the class of transformers that loads the folder.
        notes: what differs there, and what was left out.
    """

    architecture: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What our file holds, as far as transformers has words for it."""

    encoder: ViTConfig
    decoder: DecoderConfig | None
    target: str  # of a pre-training
    classifier: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]

    @property
    def architecture(self) -> str:
        if self.classifier:
            return "VideoMAEForVideoClassification"
        return "VideoMAEModel" if self.decoder is None else "VideoMAEForPreTraining"

    @property
    def last_norm_eps(self) -> float:
        """Of the norm before the head, where transformers has torch's own."""
        if self.classifier.get("pooling") == "mean":
            return float(self.classifier.get("norm_eps", 1e-6))
        return LAST_EPS if self.decoder is None else self.decoder.final_norm_eps


def to_transformers(weights: Weights, folder: Path) -> Written:
    """Writes config.json, model.safetensors, preprocessor_config.json and a model card into a folder.

    A classifier becomes a VideoMAEForVideoClassification; a pre-training that rebuilds pixels, with its decoder, a
    VideoMAEForPreTraining; an encoder alone, and the student of a method without a decoder, a VideoMAEModel.

    Args:
        weights: of ours, or a foreign file's that was imported.
        folder: a new one, or an earlier export, which is written over.

    Raises:
        InputError: transformers has no such model, or the folder holds something else; nothing was written then.
    """
    about = weights.about
    model = _model_of(weights)
    _check(model, weights.source)
    names = transformers_names(
        model.encoder, model.decoder, prefix="" if model.architecture == "VideoMAEModel" else PREFIX
    )
    theirs = in_their_words(model.tensors, names, f"{weights.source} cannot be written for transformers")
    licence = licence_of(weights)
    config, processor = _config(model, about, licence), _processor(model.encoder, about)
    notes = _notes(model)
    check_folder(folder, CONFIG_FILE, "an export to transformers")
    texts = {
        PROCESSOR_FILE: json.dumps(processor, indent=2) + "\n",
        CARD_FILE: card(model.architecture, config, weights.source, licence, about.get("provenance") or (), notes),
        CONFIG_FILE: json.dumps(config, indent=2) + "\n",  # the last one: without it nothing is loaded
    }
    write_below(folder / TENSORS_FILE, save({n: t.contiguous() for n, t in theirs.items()}, metadata={"format": "pt"}))
    for name, text in texts.items():
        write_below(folder / name, text.encode())
    return Written(model.architecture, notes)


def _model_of(weights: Weights) -> _Model:
    about, tensors = weights.about, dict(weights.tensors)
    kind = about.get("kind")
    if kind not in ("pretraining", "encoder", "classifier"):
        what = f"is a {kind}" if kind else "does not say what it is"
        raise InputError(f"{weights.source} {what}; only pre-trainings, encoders and classifiers have a place there")
    classifier = about.get("classifier", {}) if kind == "classifier" else {}
    encoder = from_plain(ViTConfig, about["encoder"] if "encoder" in about else classifier["encoder"])
    method = about.get("method") or about.get("recipe", {}).get("method") or {}
    stated = about.get("decoder") or method.get("decoder")
    decodes = kind == "pretraining" and stated is not None and "decoder.head.weight" in tensors
    beginnings = (
        ("encoder.", "decoder.") if decodes else ("encoder.", "norm.", "head.") if classifier else ("encoder.",)
    )
    left_out = sorted({name.partition(".")[0] for name in tensors if not name.startswith(beginnings)})
    return _Model(
        encoder=encoder,
        decoder=from_plain(DecoderConfig, stated) if decodes else None,
        target=str(method.get("target", "per_channel")),
        classifier=classifier,
        tensors={name: tensor for name, tensor in tensors.items() if name.startswith(beginnings)},
        left_out=tuple(left_out),
    )


def _check(model: _Model, source: str) -> None:
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
        wrong += _of_decoder(model, decoder)
    if (pooling := model.classifier.get("pooling", "mean")) not in ("mean", "first"):
        wrong.append(f"it pools its tokens by {pooling!r}")
    if wrong:
        raise InputError(f"{source} is no VideoMAE as transformers has it: {wrong[0]}")


def _of_decoder(model: _Model, decoder: DecoderConfig) -> list[str]:
    encoder, wrong = model.encoder, []
    if decoder.class_token != "none":
        wrong.append("its decoder takes a class token")
    if decoder.project_bias:
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


def _config(model: _Model, about: Mapping[str, Any], licence: str | None) -> dict[str, Any]:
    """What stands in config.json; under our own word what transformers does not look at."""
    encoder, decoder = model.encoder, model.decoder
    frames, size = _clips(about)
    t, h, w = encoder.tubelet
    config: dict[str, Any] = {
        "architectures": [model.architecture],
        "model_type": "videomae",
        "num_channels": 3,
        "num_frames": frames,
        "image_size": _one_or_both(size),
        "tubelet_size": t,
        "patch_size": _one_or_both((h, w)),
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
        numbers = range(about["classifier"]["classes"])
        classes = [str(name) for name in about.get("classes", numbers)]  # the authors' files name none
        config |= {
            "id2label": {str(number): name for number, name in enumerate(classes)},
            "label2id": {name: number for number, name in enumerate(classes)},
            "problem_type": _problem(model.classifier),
        }
    past = {"licence": licence, "provenance": about.get("provenance")}
    ours = {"version": version_of("vidstill"), "last_norm_eps": model.last_norm_eps}
    return config | {OURS: ours | {word: value for word, value in past.items() if value is not None}}


def _problem(classifier: Mapping[str, Any]) -> str:
    return "multi_label_classification" if classifier.get("several") else "single_label_classification"


def _clips(about: Mapping[str, Any]) -> tuple[int, tuple[int, int]]:
    """Frames of a clip, and their rows and columns, as our file says."""
    said = about.get("views") or about.get("recipe", {}).get("clips") or {}
    frames = said.get("sampling", {}).get("frames", _FRAMES)
    rows, columns = said.get("size", _SIZE)
    return frames, (rows, columns)


def _processor(encoder: ViTConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    """VideoMAEImageProcessor: bytes to what enters the model, as our test looks at the middle of a frame.

    Where our test enlarges a frame further, so that a crop has room in it, theirs would pad it: it is enlarged
    there too.
    """
    views = about.get("views") or {}
    _, (rows, columns) = _clips(about)
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": max(views.get("short_side", 1), rows, columns)},
        "resample": _FILTERS[views.get("interpolation", "bilinear")],
        "do_center_crop": True,
        "crop_size": {"height": rows, "width": columns},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }


def _notes(model: _Model) -> tuple[str, ...]:
    notes = []
    if model.left_out:
        notes.append(f"left out, as a {model.architecture} has no place for it: {', '.join(model.left_out)}")
    if model.last_norm_eps != LAST_EPS:
        norm = "fc_norm" if model.classifier else "decoder.norm"
        notes.append(
            f"transformers gives {norm} torch's eps of {LAST_EPS:g}, where this model has {model.last_norm_eps:g}, and "
            f"config.json has no word for it: what leaves the norm differs by a share of "
            f"{abs(LAST_EPS - model.last_norm_eps) / 2:g} / (variance of what enters it); "
            f"`model.{norm}.eps = {model.last_norm_eps:g}` after loading makes it equal"
        )
    return tuple(notes)


def _one_or_both(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


_KNOWN = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}


_WHAT = {
    "VideoMAEModel": "An encoder of videos.",
    "VideoMAEForPreTraining": "A masked autoencoder of videos: an encoder, and the decoder it was pre-trained with.",
    "VideoMAEForVideoClassification": "A classifier of videos.",
}


def card(
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
        _header(architecture, licence),
        f"# {name}",
        f"{_WHAT[architecture]} Clips have {config['num_frames']} frames of {size[0]} × {size[1]} pixels. "
        f"Exported by vidstill {version_of('vidstill')}.",
        _usage(architecture),
    ]
    if notes:
        parts.append("## What differs\n\n" + "\n".join(f"- {note}" for note in notes))
    parts.append("## Licence and provenance\n\n" + _past(licence, provenance))
    return "\n\n".join(parts) + "\n"


def _header(architecture: str, licence: str | None) -> str:
    lines = ["---", "library_name: transformers", "tags:", "- videomae", "- video", "- vidstill"]
    if architecture == "VideoMAEForVideoClassification":
        lines.append("pipeline_tag: video-classification")
    if licence:
        word = licence.lower()
        lines += [f"license: {word}"] if word in _KNOWN else ["license: other", f"license_name: {json.dumps(licence)}"]
    return "\n".join([*lines, "---"])


def _usage(architecture: str) -> str:
    return f"""```python
from transformers import {architecture}, VideoMAEImageProcessor

processor = VideoMAEImageProcessor.from_pretrained(".")  # this folder
model = {architecture}.from_pretrained(".")
inputs = processor(frames, return_tensors="pt")  # the frames of one clip: a list of (h, w, 3) bytes
```

Frames that are made smaller are smoothed by this processor, and were not in training: shrink them before, or expect a
slightly different picture."""


def _past(licence: str | None, provenance: Sequence[Mapping[str, Any]]) -> str:
    stated = f"Licence: {licence}." if licence else "No licence is stated by what these weights were made from."
    lines = [
        f"- {each.get('role', 'from')}: `{each.get('source', '')}`"
        + (f", {each['layout']}" if each.get("layout") else "")
        + (f", licence {each['licence']}" if each.get("licence") else "")
        for each in provenance
    ]
    return "\n".join([stated, *(["", *lines] if lines else [])])
