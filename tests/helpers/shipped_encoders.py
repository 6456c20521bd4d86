"""Encoders in the place of those that come with the package: one knows the drawn motions, one sees nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import run

from vidstill.checkpoints import shipped
from vidstill.checkpoints.io import write_checkpoint
from vidstill.recipes import quickstart
from vidstill.utils.config_io import to_dict

CLIPS = "size=32x32,frames=8,classes=2"
DATA = f"made:train=48,val=16,{CLIPS},seed=3"
AUTO = f"finetune auto --data {DATA} --workers 0 --precision fp32"

_SIZE = {"dim": 48, "depth": 2, "heads": 3}


def train_encoder(folder: Path) -> Path:
    """Fine-tune a tiny encoder on other clips of the same two motions, and return its file."""
    size = " ".join(f"--encoder.{name} {value}" for name, value in _SIZE.items())
    command = f"finetune quickstart.finetune {size} --workers 0 --precision fp32 --schedule.epochs 14"
    run(command, data=f"made:train=480,val=8,{CLIPS}", out=folder)
    return folder / "model.safetensors"


def write_blind_encoder(path: Path) -> None:
    """Write an encoder whose tokens do not depend on the clip, and which no training changes."""
    recipe = quickstart.videomae
    config = replace(recipe.method.encoder, **_SIZE)
    tensors = {f"encoder.{name}": torch.zeros_like(tensor) for name, tensor in config.build().state_dict().items()}
    write_checkpoint(path, tensors, {"kind": "pretraining", "encoder": to_dict(config), "recipe": to_dict(recipe)})


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: Path | None) -> None:
    """Make these the encoders of the package, by `student` and `teacher`; None: the blind one."""
    folder.mkdir()
    for name, file in files.items():
        path = folder / f"quickstart-{name}.safetensors"
        if file is None:
            write_blind_encoder(path)
        else:
            path.write_bytes(file.read_bytes())
    monkeypatch.setattr(shipped, "ASSETS", folder)
