"""The model card of an export to `transformers`: what it is, how it is loaded, where it comes from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vidstill.folder import version_of

_KNOWN = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
"""Licences that the Hub has a word for."""

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
