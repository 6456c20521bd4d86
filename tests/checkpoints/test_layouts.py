"""Every layout: recognised by names and shapes alone, and its tensors are ours again, each of them accounted for."""

import random
from dataclasses import replace

import pytest
import torch
from foreign_files import FILES, GIANT, Foreign
from tiny_models import CLASSES, ENCODER

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.layout import ForeignFile
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict

CLASSIFIERS = [name for name, file in FILES.items() if file.kind == "classifier"]
every_file = pytest.mark.parametrize("foreign", FILES.values(), ids=FILES)


def encoder_of(weights: Checkpoint) -> ViTConfig:
    return from_dict(ViTConfig, weights.metadata["encoder"])


@every_file
def test_a_file_is_recognised_and_its_tensors_are_ours_again(foreign: Foreign):
    ours, ledger = import_checkpoint(Checkpoint(foreign.tensors()), foreign.encoder)
    assert foreign.description in ledger.layout_description
    expected = foreign.module.state_dict()
    assert ours.tensors.keys() == expected.keys()
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in expected.items())
    assert ours.metadata["kind"] == foreign.kind


@every_file
def test_the_encoder_is_the_one_that_wrote_the_file(foreign: Foreign):
    ours, _ = import_checkpoint(Checkpoint(foreign.tensors()), foreign.encoder)
    assert encoder_of(ours) == foreign.encoder


@every_file
def test_every_tensor_of_the_file_is_in_the_ledger_once_for_each_place_it_goes_to(foreign: Foreign):
    theirs = foreign.tensors()
    ours, ledger = import_checkpoint(Checkpoint(theirs), foreign.encoder)
    assert {entry.foreign_name for entry in ledger.entries if entry.foreign_name} == theirs.keys()
    assert {
        entry.native_name for entry in ledger.entries if entry.native_name and entry.foreign_name
    } == ours.tensors.keys()
    assert all(entry.shape == tuple(theirs[entry.foreign_name].shape) for entry in ledger.entries if entry.foreign_name)
    assert all(entry.reason for entry in ledger.filter_by_status("ignored"))
    assert not list(ledger.filter_by_status("unexplained"))


@every_file
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_names_changes_nothing(foreign: Foreign, seed):
    theirs = list(foreign.tensors().items())
    straight, description = import_checkpoint(Checkpoint(dict(theirs)), foreign.encoder)
    random.Random(seed).shuffle(theirs)
    shuffled, said_again = import_checkpoint(Checkpoint(dict(theirs)), foreign.encoder)
    assert shuffled.metadata == straight.metadata
    assert said_again.layout_description == description.layout_description
    assert set(said_again.entries) == set(description.entries)
    assert all(torch.equal(shuffled.tensors[name], tensor) for name, tensor in straight.tensors.items())


@pytest.mark.parametrize("foreign", [FILES[name] for name in CLASSIFIERS], ids=CLASSIFIERS)
def test_a_foreign_classifier_says_how_it_is_built(foreign: Foreign):
    ours, _ = import_checkpoint(Checkpoint(foreign.tensors()), foreign.encoder)
    config = from_dict(ClassifierConfig, ours.metadata["classifier"])
    told = ("encoder", "num_classes", "pooling", "norm")
    assert all(getattr(config, name) == getattr(foreign.config, name) for name in told)
    config.build().load_state_dict(ours.tensors)


@pytest.mark.parametrize("key", LAYOUTS)
def test_a_layout_leaves_the_files_of_others_alone(key):
    assert LAYOUTS[key].match(ForeignFile({"conv1.weight": torch.ones(2, 3, 4, 4, 4)})) is None


def test_the_giant_of_videomae_v2_has_its_own_perceptrons():
    ours, _ = import_checkpoint(Checkpoint(FILES["videomae v2"].tensors()), GIANT)
    assert encoder_of(ours).mlp_ratio == 48 / 11
    assert ours.tensors["encoder.blocks.0.mlp.fc1.weight"].shape == (104, 24)  # 24 · 48 / 11, rounded down


def test_an_encoder_that_was_kept_of_a_larger_model_is_read_under_its_prefix():
    bare = FILES["videomae, bare"].tensors()
    ours, ledger = import_checkpoint(Checkpoint({f"backbone.{name}": tensor for name, tensor in bare.items()}), ENCODER)
    assert torch.equal(ours.tensors["encoder.patch_embed.bias"], bare["patch_embed.proj.bias"])
    assert "backbone." in ledger.layout_description
    assert all(entry.foreign_name.startswith("backbone.") for entry in ledger.entries)


def test_a_linear_probe_is_an_encoder_with_a_batch_norm_and_a_head():
    theirs = FILES["mae, encoder"].tensors() | {"head.1.weight": torch.ones(CLASSES, 24), "head.1.bias": torch.ones(5)}
    theirs |= {f"head.0.running_{what}": torch.ones(24) for what in ("mean", "var")}
    theirs["head.0.num_batches_tracked"] = torch.tensor(3)
    ours, ledger = import_checkpoint(Checkpoint(theirs), FILES["mae, encoder"].encoder)
    assert "a linear probe of image MAE" in ledger.layout_description
    assert ours.metadata["kind"] == "probe"
    assert ours.tensors["norm.num_batches_tracked"] == 3


def test_the_grid_of_a_stored_computed_table_is_told():
    ours, ledger = import_checkpoint(Checkpoint(FILES["mvd"].tensors()), FILES["mvd"].encoder)
    assert ours.metadata["grid"] == [2, 4, 3]
    assert any("'pos_embed' is that table of 2 × 4 × 3 tokens" in note for note in ledger.notes)


def test_a_file_in_half_precision_has_the_same_table():
    theirs = {name: tensor.half() for name, tensor in FILES["mvd"].tensors().items()}
    ours, _ = import_checkpoint(Checkpoint(theirs), replace(FILES["mvd"].encoder))
    assert encoder_of(ours).positions == "sincos3d"
    assert ours.tensors["encoder.patch_embed.bias"].dtype == torch.float16
