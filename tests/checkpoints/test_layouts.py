"""Every layout: a checkpoint becomes the authors' file, which is recognized by its names and shapes and comes back."""

import random
import struct
from dataclasses import replace

import pytest
import torch
from foreign_files import FILES, GIANT, ForeignCase
from foreign_layout import to_foreign
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import CLASSES, ENCODER

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict, write_foreign_checkpoint
from vidstill.checkpoints.layouts.infer_encoder import ForeignFile
from vidstill.checkpoints.layouts.registry import LAYOUTS
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

every_file = pytest.mark.parametrize("case", FILES.values(), ids=FILES)
MASKAGAIN_PROJECTIONS = {  # which its trainer saves beside the model
    *(f"Align_feature.fc{number}.{name}" for number in (1, 2) for name in ("weight", "bias")),
    *(f"Align_valuesum{suffix}.fc.{name}" for suffix in ("", "_t", "1", "1_t") for name in ("weight", "bias")),
}
CLASSIFIERS = [name for name, case in FILES.items() if isinstance(case.config, ClassifierConfig)]


def infer_encoder_of(checkpoint: Checkpoint) -> ViTConfig:
    return from_dict(ViTConfig, checkpoint.metadata["encoder"])


def assert_equal(actual, expected) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert all(actual[name].dtype == tensor.dtype for name, tensor in expected.items())


@every_file
def test_a_file_is_recognized_and_its_tensors_come_back(case: ForeignCase):
    foreign, expected = case.tensors(), case.checkpoint
    native, report = import_checkpoint(Checkpoint(foreign), case.encoder)
    assert case.description in report.layout_description
    assert native.metadata["kind"] == expected.metadata["kind"]
    assert infer_encoder_of(native) == case.encoder
    assert_equal(native.tensors, expected.tensors)
    if case.change is dict:
        assert_equal(export_state_dict(native, case.layout), foreign)


@every_file
def test_every_tensor_is_reported_once_for_each_tensor_that_it_becomes(case: ForeignCase):
    foreign = case.tensors()
    native, report = import_checkpoint(Checkpoint(foreign), case.encoder)
    entries = [entry for entry in report.entries if entry.foreign_name]
    assert {entry.foreign_name for entry in entries} == foreign.keys()
    assert {entry.native_name for entry in entries if entry.native_name} == native.tensors.keys()
    assert all(entry.shape == tuple(foreign[entry.foreign_name].shape) for entry in entries)
    assert all(entry.reason for entry in report.filter_by_status("ignored"))
    assert not list(report.filter_by_status("unexplained"))


@settings(max_examples=30)
@given(
    name=st.sampled_from(sorted(name for name, case in FILES.items() if case.change is dict)),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]),
    separate_qkv=st.booleans(),
    depth=st.integers(1, 3),
    width=st.sampled_from([16, 48]),
)
def test_a_model_of_any_depth_width_and_precision_comes_back(name, dtype, separate_qkv, depth, width):
    case = replace(FILES[name], separate_qkv=separate_qkv)
    if not hasattr(case.config, "layer_pairs") and not hasattr(case.config, "attention_layers"):  # whose blocks count
        encoder = replace(case.encoder, depth=depth, dim=width)
        is_encoder = isinstance(case.config, ViTConfig)
        case = replace(case, config=encoder if is_encoder else replace(case.config, encoder=encoder))
    expected = case.checkpoint
    expected = replace(expected, tensors={name: tensor.to(dtype) for name, tensor in expected.tensors.items()})
    foreign = export_state_dict(expected, case.layout)
    native, _ = import_checkpoint(Checkpoint(foreign), case.encoder)
    assert_equal(native.tensors, expected.tensors)
    assert_equal(export_state_dict(native, case.layout), foreign)


@every_file
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_names_changes_nothing(case: ForeignCase, seed):
    foreign = list(case.tensors().items())
    expected, expected_report = import_checkpoint(Checkpoint(dict(foreign)), case.encoder)
    random.Random(seed).shuffle(foreign)
    native, report = import_checkpoint(Checkpoint(dict(foreign)), case.encoder)
    assert native.metadata == expected.metadata
    assert report.layout_description == expected_report.layout_description
    assert set(report.entries) == set(expected_report.entries)
    assert_equal(native.tensors, expected.tensors)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_foreign_classifier_says_how_it_is_built(name):
    native, _ = import_checkpoint(Checkpoint(FILES[name].tensors()), FILES[name].encoder)
    config, expected = from_dict(ClassifierConfig, native.metadata["classifier"]), FILES[name].config
    for field in ("encoder", "num_classes", "pooling", "norm"):
        assert getattr(config, field) == getattr(expected, field)
    config.build().load_state_dict(native.tensors)


@every_file
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_holds_the_tensors_under_the_key_of_its_trainer(case: ForeignCase, suffix, tmp_path):
    expected = export_state_dict(case.checkpoint, case.layout)
    path = tmp_path / f"file{suffix}"
    write_foreign_checkpoint(path, expected, case.layout)
    if suffix == ".safetensors":
        tensors = load_file(path)
        (header_length,) = struct.unpack("<Q", path.read_bytes()[:8])
        assert header_length % 8 == 0  # so that the tensors are aligned
    else:
        content = torch.load(path, weights_only=True)
        tensors = content.pop({"slowfast": "model_state", "mmaction": "state_dict"}.get(case.layout, "model"))
        modules = {f"{module}.{name}": each for module, state in content.items() for name, each in state.items()}
        assert modules.keys() == (MASKAGAIN_PROJECTIONS if case is FILES["maskagain, projections"] else set())
        tensors |= modules
        storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
        assert len(storages) == len(tensors)  # none shares its memory with another
        assert path.stat().st_size < 4 * sum(t.numel() for t in tensors.values()) + 1000 * len(tensors)
    assert_equal(tensors, expected)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", LAYOUTS)
def test_a_layout_does_not_match_the_files_of_others(key):
    assert LAYOUTS[key].match(ForeignFile({"conv1.weight": torch.ones(2, 3, 4, 4, 4)})) is None


def test_the_base_pre_training_has_the_official_names_and_shapes():
    with torch.device("meta"):
        method = VideoMAEConfig(encoder=BASE, decoder=DecoderConfig(dim=384, depth=4, heads=6)).build()
    foreign = to_foreign(method.state_dict(), build_videomae_rules(BASE))

    def list_block(prefix: str, d: int) -> dict[str, tuple[int, ...]]:
        vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.q_bias", "attn.v_bias")
        vectors += ("attn.proj.bias", "mlp.fc2.bias")
        matrices = {"attn.qkv.weight": (3 * d, d), "attn.proj.weight": (d, d), "mlp.fc1.bias": (4 * d,)}
        matrices |= {"mlp.fc1.weight": (4 * d, d), "mlp.fc2.weight": (d, 4 * d)}
        return {f"{prefix}.{name}": shape for name, shape in (matrices | dict.fromkeys(vectors, (d,))).items()}

    official: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, 384),
        "encoder.patch_embed.proj.weight": (768, 3, 2, 16, 16),
        "encoder.patch_embed.proj.bias": (768,),
        "encoder.norm.weight": (768,),
        "encoder.norm.bias": (768,),
        "encoder_to_decoder.weight": (384, 768),
        "decoder.norm.weight": (384,),
        "decoder.norm.bias": (384,),
        "decoder.head.weight": (1536, 384),
        "decoder.head.bias": (1536,),
    }
    for number in range(12):
        official |= list_block(f"encoder.blocks.{number}", 768)
    for number in range(4):
        official |= list_block(f"decoder.blocks.{number}", 384)
    assert {name: tuple(tensor.shape) for name, tensor in foreign.items()} == official
    assert len(foreign) == 218


def test_the_giant_of_videomae_v2_has_its_own_mlp_ratio():
    native, _ = import_checkpoint(Checkpoint(FILES["videomae v2"].tensors()), GIANT)
    assert infer_encoder_of(native).mlp_ratio == 48 / 11
    assert native.tensors["encoder.blocks.0.mlp.fc1.weight"].shape == (104, 24)  # 24 · 48 / 11, rounded down


def test_an_encoder_from_a_larger_model_is_read_under_its_prefix():
    bare = FILES["videomae, bare"].tensors()
    prefixed = {f"backbone.{name}": tensor for name, tensor in bare.items()}
    native, report = import_checkpoint(Checkpoint(prefixed), ENCODER)
    assert torch.equal(native.tensors["encoder.patch_embed.bias"], bare["patch_embed.proj.bias"])
    assert "backbone." in report.layout_description
    assert all(entry.foreign_name.startswith("backbone.") for entry in report.entries)


def test_a_linear_probe_is_an_encoder_with_a_batch_norm_and_a_head():
    case = FILES["mae, encoder"]
    foreign = case.tensors() | {"head.1.weight": torch.ones(CLASSES, 24), "head.1.bias": torch.ones(CLASSES)}
    foreign |= {f"head.0.running_{name}": torch.ones(24) for name in ("mean", "var")}
    foreign["head.0.num_batches_tracked"] = torch.tensor(3)
    native, report = import_checkpoint(Checkpoint(foreign), case.encoder)
    assert "a linear probe of image MAE" in report.layout_description
    assert native.metadata["kind"] == "probe"
    assert native.tensors["norm.num_batches_tracked"] == 3


def test_a_linear_probe_with_global_pooling_has_fc_norm_and_is_written_as_it_was_read():
    case = FILES["mae, encoder"]
    foreign = case.tensors() | {"head.1.weight": torch.rand(CLASSES, 24), "head.1.bias": torch.rand(CLASSES)}
    foreign |= {f"head.0.running_{name}": torch.rand(24) for name in ("mean", "var")}
    foreign["head.0.num_batches_tracked"] = torch.tensor(3)
    foreign |= {f"fc_norm.{name}": foreign.pop(f"norm.{name}") + 1 for name in ("weight", "bias")}
    native, report = import_checkpoint(Checkpoint(foreign), case.encoder)
    assert "a linear probe of image MAE (a kernel of images, fc_norm, head.0 and head.1" in report.layout_description
    assert native.metadata["kind"] == "probe"
    assert native.metadata["global_pool"] is True
    assert torch.equal(native.tensors["encoder.norm.weight"], foreign["fc_norm.weight"])
    written = export_state_dict(native, "mae")
    assert written.keys() == foreign.keys()
    for name, tensor in foreign.items():
        torch.testing.assert_close(written[name], tensor)
    with pytest.raises(InputError, match=r"norm\.weight"):  # the code has one of the two
        import_checkpoint(Checkpoint(foreign | {"norm.weight": torch.ones(24)}), case.encoder)


def test_the_grid_of_a_stored_fixed_table_is_reported_in_any_precision():
    foreign = {name: tensor.half() for name, tensor in FILES["mvd"].tensors().items()}
    native, report = import_checkpoint(Checkpoint(foreign), FILES["mvd"].encoder)
    assert native.metadata["grid"] == [2, 4, 3]
    assert any("'pos_embed' is that table of 2 × 4 × 3 tokens" in note for note in report.notes)
    assert infer_encoder_of(native).positions == "sincos3d"
