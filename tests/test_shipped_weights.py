"""The weights that come with the package: small, described by their card, made by its commands, and worth something."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from einops import reduce

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.licences import find_licence
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.checkpoints.shipped import ASSETS, TEACHER, list_shipped_starts
from vidstill.cli.main import main
from vidstill.models.vit import ViT, ViTConfig
from vidstill.synthetic.drawing import MOTION_CLASSES, draw_clips
from vidstill.tasks.probes.linear import evaluate_linear_probe
from vidstill.utils.config_io import from_dict

CARD = ASSETS / "README.md"
COMMANDS = re.findall(r"^(vidstill pretrain .*|python scripts/ship_weights.py .*)$", CARD.read_text(), re.MULTILINE)


def load_encoder(source: str) -> ViT:
    checkpoint = read_checkpoint(source)
    encoder = from_dict(ViTConfig, checkpoint.metadata["encoder"]).build()
    tensors = {name.removeprefix("encoder."): each.float() for name, each in checkpoint.tensors.items()}
    load_state_dict_strict(encoder, tensors, source)
    return encoder.eval()


def extract_features(encoder: ViT, clips: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([reduce(encoder(each / 255).tokens, "b n d -> b d", "mean") for each in clips.split(100)])


def test_all_together_take_at_most_8_mb():
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 8e6


@pytest.mark.parametrize("address", list_shipped_starts())
def test_each_is_half_precision_under_a_free_licence_and_has_a_card_and_a_log(address):
    checkpoint = read_checkpoint(address)
    assert {each.dtype for each in checkpoint.tensors.values()} == {torch.float16}
    assert find_licence(checkpoint) == "Apache-2.0"
    assert f"`{Path(checkpoint.source).stem}`" in CARD.read_text()
    assert len(Path(checkpoint.source).with_suffix(".csv").read_text().splitlines()) == 101


def test_the_teachers_frozen_features_tell_motions_apart():
    """Top-1 of a linear probe with 800 labels on 400 clips of eight classes; chance is 12.5 %."""
    labels = torch.arange(1200) % 8
    clips = draw_clips([MOTION_CLASSES[label] for label in labels], torch.arange(1200) + 10**12, 8, (32, 32))

    def probe(encoder: ViT) -> float:
        features = extract_features(encoder, clips)
        return evaluate_linear_probe(features[:800], labels[:800], features[800:], labels[800:], 8).top1

    torch.manual_seed(0)
    teacher = load_encoder(TEACHER)
    assert probe(teacher) > 45 > 35 > probe(teacher.config.build().eval())


def test_the_commands_of_the_card_make_such_files(tmp_path, monkeypatch):
    """At the smallest setting: the same tensors, of the same sizes."""
    repository = ASSETS.parents[2]
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", [*words[1:3], Path(words[3]).name])
            runpy.run_path(str(repository / words[1]), run_name="__main__")
            made, shipped = read_checkpoint(tmp_path / Path(words[3]).name), read_checkpoint(repository / words[3])
            assert {name: each.shape for name, each in made.tensors.items()} == {
                name: each.shape for name, each in shipped.tensors.items()
            }
            assert made.metadata["encoder"] == shipped.metadata["encoder"]
        else:
            words = [re.sub(r"unlabelled=\d+", "unlabelled=16", word) for word in words[1:]]
            smallest = {"--schedule.epochs": "1", "--schedule.warmup-epochs": "0", "--batch": "8", "--workers": "0"}
            assert main([*words, *(word for option in smallest.items() for word in option)]) == 0
    assert len(COMMANDS) == 2 * len(list_shipped_starts())
