"""`vidstill weights convert`: what it reads, writes, says and refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ENCODER, METHODS, VIDEOMAE, as_images, built

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.cli import weights as weights_convert
from vidstill.cli.main import main
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict, to_dict

ENCODER_64 = replace(ENCODER, dim=64, heads=1)  # as the family has it: 64 channels a head
MAE = as_images(METHODS["imagemae"])


def run_of(folder: Path, config: Any, **about: Any) -> Path:
    """What a run leaves, with a file of that configuration's model."""
    folder.mkdir()
    clips = {"sampling": {"num_frames": 1 if config.encoder.tubelet[0] == 1 else 4}, "size": [16, 16]}
    kind = "classifier" if isinstance(config, ClassifierConfig) else "pretraining"
    recipe = {"clips": clips} | ({} if kind == "classifier" else {"method": to_dict(config)})
    told = {"kind": kind, "encoder": to_dict(config.encoder), "recipe": recipe}
    told |= {"classifier": to_dict(config)} if kind == "classifier" else {}
    write_checkpoint(folder / "model.safetensors", built(config).state_dict(), told | about)
    return folder


def converted(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert main(["weights", "convert", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["weights", "convert", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_a_run_becomes_the_authors_file_and_ours_again(tmp_path, capsys):
    run = run_of(tmp_path / "run", replace(VIDEOMAE, encoder=ENCODER_64))
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    told = converted(capsys, run, "--to", "videomae", "--out", theirs)
    assert (told["kind"], told["to"], told["out"]) == ("pretraining", "videomae", str(theirs))
    assert told["num_bytes"] == theirs.stat().st_size
    assert told["num_tensors"] == len(torch.load(theirs, weights_only=True)["model"])

    told = converted(capsys, theirs, "--to", "vidstill", "--out", ours)
    assert told["layout"].startswith("a pre-training of VideoMAE")
    assert sum(told["counts"].values()) == told["num_tensors"]
    before, after = read_checkpoint(run), read_checkpoint(ours)
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    assert from_dict(ViTConfig, after.metadata["encoder"]) == ENCODER_64


def test_our_file_says_where_it_comes_from_and_what_was_counted(tmp_path, capsys):
    run = run_of(tmp_path / "run", replace(MAE, encoder=replace(MAE.encoder, dim=64, heads=1)))
    converted(capsys, run, "--to", "mae", "--out", tmp_path / "theirs.pth")
    told = converted(capsys, tmp_path / "theirs.pth", "--to", "vidstill", "--out", tmp_path / "ours.safetensors")
    about = read_checkpoint(tmp_path / "ours.safetensors").metadata
    assert (about["kind"], about["layout"], about["counts"]) == ("pretraining", "mae", told["counts"])
    assert about["ignored"].keys() == {"pos_embed", "decoder_pos_embed"} == told["ignored"].keys()
    (past,) = about["provenance"]
    assert (past["role"], past["source"]) == ("converted", str(tmp_path / "theirs.pth"))
    again = converted(capsys, tmp_path / "ours.safetensors", "--to", "mae", "--out", tmp_path / "again.pth")
    assert "layout" not in again
    first, second = (read_checkpoint(tmp_path / name).tensors for name in ("theirs.pth", "again.pth"))
    assert first.keys() == second.keys()
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_people_are_told_what_it_was_taken_for_and_what_the_file_does_not_say(tmp_path, capsys):
    run = run_of(tmp_path / "run", ClassifierConfig(encoder=ENCODER, num_classes=2), classes=["left", "right"])
    out = tmp_path / "theirs.safetensors"
    assert main(["weights", "convert", str(run), "--to", "amd", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run}/model.safetensors is vidstill's: a classifier"
    assert lines[1].startswith(f"{out}: amd, ")
    assert lines[2:4] == [
        "  it does not say that there are 2 heads; tell AMD's code",
        "  the names of its 2 classes are left out",
    ]


def test_a_recipe_says_what_no_tensor_does(tmp_path, capsys, monkeypatch):
    run = run_of(tmp_path / "run", VIDEOMAE)
    converted(capsys, run, "--to", "videomae", "--out", tmp_path / "theirs.pth")
    words = (tmp_path / "theirs.pth", "--to", "vidstill", "--out", tmp_path / "ours.safetensors")
    assert "how many heads" in refused(capsys, *words)
    monkeypatch.setattr(weights_convert, "find_encoder", lambda recipe: {"tiny": ENCODER}[recipe])
    converted(capsys, *words, "--hint", "tiny")
    assert from_dict(ViTConfig, read_checkpoint(tmp_path / "ours.safetensors").metadata["encoder"]).heads == 2


def test_the_hint_is_the_encoder_of_any_kind_of_recipe():
    assert weights_convert.find_encoder("amd.small_k400").dim == 384
    assert weights_convert.find_encoder("amd.small_k400_finetune").dim == 384


def test_what_nothing_explains_is_left_out_where_it_is_named(tmp_path, capsys):
    run = run_of(tmp_path / "run", replace(VIDEOMAE, encoder=ENCODER_64))
    converted(capsys, run, "--to", "videomae", "--out", tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    content["model"]["adapter.down"] = torch.zeros(3)
    torch.save(content, tmp_path / "b.pth")
    words = (tmp_path / "b.pth", "--to", "vidstill", "--out", tmp_path / "ours.safetensors")
    assert "adapter.down" in refused(capsys, *words)
    assert not (tmp_path / "ours.safetensors").exists()
    told = converted(capsys, *words, "--ignore-keys", "adapter.")
    assert told["ignored"] == {"adapter.down": "left out by --ignore-keys"}


@pytest.mark.parametrize(
    ("words", "sentence"),
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
def test_a_mistake_is_one_sentence_and_nothing_is_written(words, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = run_of(tmp_path / "run", VIDEOMAE)
    Path("there.pth").write_bytes(b"someone's")
    said = refused(capsys, ours, *words)
    assert sentence in said
    assert said.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run", "there.pth"]
    assert Path("there.pth").read_bytes() == b"someone's"


def test_every_layout_but_the_detectors_is_a_target():
    assert set(weights_convert.TARGETS) == {"vidstill", *LAYOUTS, "onnx", "torch", "int8"} - {"detector"}


def test_an_unknown_target_is_answered_with_all_of_them(tmp_path, capsys):
    assert "take one of vidstill, transformers, amd" in refused(capsys, "x", "--to", "mae_st", "--out", tmp_path / "y")
