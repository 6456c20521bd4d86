"""`vidstill weights convert`: native and foreign files into one another, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import MAE, classifier, make_checkpoint
from tiny_models import ENCODER, VIDEOMAE

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.cli import weights as cli
from vidstill.cli.main import main
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict

ENCODER_64 = replace(ENCODER, dim=64, heads=1)  # as the family has it: 64 channels a head


def write_run(directory: Path, config: Any, **metadata: Any) -> Path:
    """Write what a run leaves with a model of this configuration."""
    checkpoint = make_checkpoint(config, **metadata)
    write_checkpoint(directory / "model.safetensors", checkpoint.tensors, checkpoint.metadata)
    return directory


def convert(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["weights", "convert", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def convert_error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["weights", "convert", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_run_becomes_a_foreign_file_and_comes_back(tmp_path, capsys):
    run = write_run(tmp_path / "run", replace(VIDEOMAE, encoder=ENCODER_64))
    foreign, native = tmp_path / "foreign.pth", tmp_path / "native.safetensors"
    summary = convert(capsys, run, "--to", "videomae", "--out", foreign)
    assert (summary["kind"], summary["to"], summary["out"]) == ("pretraining", "videomae", str(foreign))
    assert summary["num_bytes"] == foreign.stat().st_size
    assert summary["num_tensors"] == len(torch.load(foreign, weights_only=True)["model"])

    summary = convert(capsys, foreign, "--to", "vidstill", "--out", native)
    assert summary["layout"].startswith("a pre-training of VideoMAE")
    assert sum(summary["counts"].values()) == summary["num_tensors"]
    before, after = read_checkpoint(run), read_checkpoint(native)
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert from_dict(ViTConfig, after.metadata["encoder"]) == ENCODER_64


def test_a_converted_file_states_its_source_and_its_counts(tmp_path, capsys):
    run = write_run(tmp_path / "run", replace(MAE, encoder=replace(MAE.encoder, dim=64, heads=1)))
    convert(capsys, run, "--to", "mae", "--out", tmp_path / "foreign.pth")
    summary = convert(capsys, tmp_path / "foreign.pth", "--to", "vidstill", "--out", tmp_path / "native.safetensors")
    metadata = read_checkpoint(tmp_path / "native.safetensors").metadata
    assert (metadata["kind"], metadata["layout"], metadata["counts"]) == ("pretraining", "mae", summary["counts"])
    assert metadata["ignored"].keys() == {"pos_embed", "decoder_pos_embed"} == summary["ignored"].keys()
    (source,) = metadata["provenance"]
    assert (source["role"], source["source"]) == ("converted", str(tmp_path / "foreign.pth"))
    again = convert(capsys, tmp_path / "native.safetensors", "--to", "mae", "--out", tmp_path / "again.pth")
    assert "layout" not in again
    first, second = (read_checkpoint(tmp_path / name).tensors for name in ("foreign.pth", "again.pth"))
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_the_summary_says_what_was_read_and_what_the_file_omits(tmp_path, capsys):
    run = write_run(tmp_path / "run", classifier(ENCODER, num_classes=2), classes=["left", "right"])
    out = tmp_path / "foreign.safetensors"
    assert main(["weights", "convert", str(run), "--to", "amd", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run}/model.safetensors is vidstill's: a classifier"
    assert lines[1].startswith(f"{out}: amd, ")
    assert lines[2:4] == [
        "  it does not say that there are 2 heads; tell AMD's code",
        "  the names of its 2 classes are left out",
    ]


def test_a_recipe_says_what_no_tensor_does(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run", VIDEOMAE)
    convert(capsys, run, "--to", "videomae", "--out", tmp_path / "foreign.pth")
    arguments = (tmp_path / "foreign.pth", "--to", "vidstill", "--out", tmp_path / "native.safetensors")
    assert "how many heads" in convert_error(capsys, *arguments)
    monkeypatch.setattr(cli, "find_encoder", lambda recipe: {"tiny": ENCODER}[recipe])
    convert(capsys, *arguments, "--hint", "tiny")
    assert from_dict(ViTConfig, read_checkpoint(tmp_path / "native.safetensors").metadata["encoder"]).heads == 2


def test_the_hint_is_the_encoder_of_any_kind_of_recipe():
    assert cli.find_encoder("amd.small_k400").dim == 384
    assert cli.find_encoder("amd.small_k400_finetune").dim == 384


def test_an_unexplained_tensor_is_left_out_where_it_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", replace(VIDEOMAE, encoder=ENCODER_64))
    convert(capsys, run, "--to", "videomae", "--out", tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    content["model"]["adapter.down"] = torch.zeros(3)
    torch.save(content, tmp_path / "b.pth")
    arguments = (tmp_path / "b.pth", "--to", "vidstill", "--out", tmp_path / "native.safetensors")
    assert "adapter.down" in convert_error(capsys, *arguments)
    assert not (tmp_path / "native.safetensors").exists()
    summary = convert(capsys, *arguments, "--ignore-keys", "adapter.")
    assert summary["ignored"] == {"adapter.down": "left out by --ignore-keys"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "videomae", "--out", "there.pth"], "there.pth exists; name another file"),
        (["--to", "videomae", "--out", "new.onnx"], "ends with neither .pth nor .safetensors"),
        (["--to", "vidstill", "--out", "new.pth"], "does not end with .safetensors"),
        (["--to", "mvd", "--out", "new.pth"], "its positions are sinusoid, and the code knows sincos3d and learned"),
        (["--to", "videomae", "--out", "there.pth/new.pth"], "cannot be written"),
        (
            ["--to", "videomae", "--out", "new.pth", "--frames", "8"],
            "options of exported programs are not for --to videomae",
        ),
        (["--to", "onnx", "--out", "new.onnx", "--hint", "videomae.base_k400"], "convert --to vidstill with them"),
        (["--to", "vidstill", "--out", "new.safetensors", "--hint", "videomae.bsae_k400"], "there is no recipe"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    native = write_run(tmp_path / "run", VIDEOMAE)
    Path("there.pth").write_bytes(b"someone's")
    error = convert_error(capsys, native, *options)
    assert message in error
    assert error.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run", "there.pth"]
    assert Path("there.pth").read_bytes() == b"someone's"


def test_every_layout_but_the_detectors_is_a_target():
    assert set(cli.TARGETS) == {"vidstill", *LAYOUTS, "onnx", "torch", "int8"} - {"detector"}


def test_an_unknown_target_is_answered_with_all_of_them(tmp_path, capsys):
    assert "take one of vidstill, transformers, amd" in convert_error(
        capsys, "x", "--to", "mae_st", "--out", tmp_path / "y"
    )
