"""`vidstill weights inspect`: what a file is, and what becomes of its tensors, ours and others'."""

import json
import re

import pytest
import torch
from foreign_layout import to_foreign
from tiny_models import CLASSES, ENCODER, VIDEOMAE, built

from vidstill.checkpoints.io import write_checkpoint
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.cli.main import main
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict

WIDE = ViTConfig(dim=64, depth=1, heads=1, tubelet=(2, 4, 4))


@pytest.fixture
def theirs(tmp_path):
    module = built(ClassifierConfig(encoder=WIDE, num_classes=CLASSES))
    tensors = to_foreign(module.state_dict(), build_classifier_rules(WIDE)) | {"ema": torch.ones(1)}
    torch.save({"module": tensors}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def said(capsys, *words) -> str:
    assert main(["weights", "inspect", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_foreign_file_is_told_of_with_its_signs_its_sizes_and_its_notes(theirs, capsys):
    found = said(capsys, theirs, "--ignore-keys", "ema")
    assert "a classifier of VideoMAE, MVD, AMD or MaskAgain (fc_norm and head, 5 classes)" in found
    assert "1 heads of 64 channels, as usual in the family" in found
    assert "classifiers of MVD look the same" in found
    assert "(2, 4, 4)" in found
    assert "licence: LicenseRef-unknown" in found
    lines = [line.split() for line in found.splitlines()]
    assert ["reshaped", "patch_embed.proj.weight", "encoder.patch_embed.weight", "64", "×", "3", "×", "2"] in [
        line[:8] for line in lines
    ]
    assert not any(line[:2] == ["renamed", "fc_norm.weight"] for line in lines)
    assert "more tensors: --all shows every one" in found
    every = said(capsys, theirs, "--ignore-keys", "ema", "--all")
    assert any(line.split()[:3] == ["renamed", "fc_norm.weight", "norm.weight"] for line in every.splitlines())
    assert any(line.startswith("ignored") and line.endswith("left out by --ignore-keys") for line in every.splitlines())


def test_programs_are_told_every_tensor(theirs, capsys):
    found = json.loads(said(capsys, theirs, "--ignore-keys", "ema", "--json"))
    assert (found["kind"], found["num_classes"], found["dim"], found["heads"]) == ("classifier", CLASSES, 64, 1)
    assert found["conversion_report"][-1] == {
        "foreign_name": "ema", "native_name": "", "shape": [1], "status": "ignored", "reason": ("left out by "
            "--ignore-keys"),
    }  # fmt: skip


def test_what_nothing_explains_is_refused_in_one_sentence(theirs, capsys):
    assert main(["weights", "inspect", str(theirs)]) == 2
    assert "1 tensor (ema) that nothing explains" in capsys.readouterr().err


def test_a_recipe_is_held_to_the_file(theirs, capsys):
    assert (
        main(["weights", "inspect", str(theirs), "--ignore-keys", "ema", "--hint", "videomae.base_k400_finetune"]) == 2
    )
    assert "its encoder has a width of 64, and 768 is expected" in capsys.readouterr().err


def test_our_own_file_is_told_of_too(tmp_path, capsys):
    about = {"kind": "pretraining", "encoder": to_dict(ENCODER), "licence": "CC-BY-NC-4.0", "provenance": []}
    write_checkpoint(tmp_path / "model.safetensors", built(VIDEOMAE).state_dict(), about)
    found = said(capsys, tmp_path)
    assert "a file of vidstill" in found
    assert "licence: CC-BY-NC-4.0, not for commercial use" in found
    assert re.search(r"positions +sinusoid", found)
