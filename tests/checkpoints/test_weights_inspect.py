"""`vidstill weights inspect`: layout, sizes and licence of native and foreign files, and the tensors' new names."""

import json
import re

import pytest
import torch
from foreign_files import classifier, make_checkpoint
from tiny_models import CLASSES, ENCODER, VIDEOMAE, built

from vidstill.checkpoints.io import write_checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict
from vidstill.cli.main import main
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

WIDE = ViTConfig(dim=64, depth=1, heads=1, tubelet=(2, 4, 4))


@pytest.fixture
def foreign(tmp_path):
    tensors = export_state_dict(make_checkpoint(classifier(WIDE)), "videomae") | {"ema": torch.ones(1)}
    torch.save({"module": tensors}, tmp_path / "foreign.pth")
    return tmp_path / "foreign.pth"


def inspect(capsys, *arguments) -> str:
    assert main(["weights", "inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_foreign_file_is_described_with_its_signs_sizes_and_notes(foreign, capsys):
    output = inspect(capsys, foreign, "--ignore-keys", "ema")
    assert "a classifier of VideoMAE, MVD, AMD or MaskAgain (fc_norm and head, 5 classes)" in output
    assert "1 heads of 64 channels, as usual in the family" in output
    assert "classifiers of MVD look the same" in output
    assert "(2, 4, 4)" in output
    assert "licence: LicenseRef-unknown" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["reshaped", "patch_embed.proj.weight", "encoder.patch_embed.weight", "64", "×", "3", "×", "2"] in [
        line[:8] for line in lines
    ]
    assert not any(line[:2] == ["renamed", "fc_norm.weight"] for line in lines)
    assert "more tensors: --all shows every one" in output
    every = inspect(capsys, foreign, "--ignore-keys", "ema", "--all")
    assert any(line.split()[:3] == ["renamed", "fc_norm.weight", "norm.weight"] for line in every.splitlines())
    assert any(line.startswith("ignored") and line.endswith("left out by --ignore-keys") for line in every.splitlines())


def test_json_has_every_tensor(foreign, capsys):
    inspection = json.loads(inspect(capsys, foreign, "--ignore-keys", "ema", "--json"))
    assert (inspection["kind"], inspection["num_classes"]) == ("classifier", CLASSES)
    assert (inspection["dim"], inspection["heads"]) == (64, 1)
    entry = {"foreign_name": "ema", "native_name": "", "shape": [1], "status": "ignored"}
    assert inspection["conversion_report"][-1] == entry | {"reason": "left out by --ignore-keys"}


def test_what_nothing_explains_is_refused_in_one_sentence(foreign, capsys):
    assert main(["weights", "inspect", str(foreign)]) == 2
    assert "1 tensor (ema) that nothing explains" in capsys.readouterr().err


def test_a_hint_that_contradicts_the_file_is_refused(foreign, capsys):
    options = ["--ignore-keys", "ema", "--hint", "videomae.base_k400_finetune"]
    assert main(["weights", "inspect", str(foreign), *options]) == 2
    assert "its encoder has a width of 64, and 768 is expected" in capsys.readouterr().err


def test_a_native_file_is_described_too(tmp_path, capsys):
    metadata = {"kind": "pretraining", "encoder": to_dict(ENCODER), "licence": "CC-BY-NC-4.0", "provenance": []}
    write_checkpoint(tmp_path / "model.safetensors", built(VIDEOMAE).state_dict(), metadata)
    output = inspect(capsys, tmp_path)
    assert "a file of vidstill" in output
    assert "licence: CC-BY-NC-4.0, not for commercial use" in output
    assert re.search(r"positions +sinusoid", output)
