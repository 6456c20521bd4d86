"""Weights put into a model: every tensor is accounted for, whoever wrote the file."""

from dataclasses import replace

import pytest
import torch
from foreign_files import FILES, ForeignCase, classifier
from tiny_models import ENCODER, STMAE, VIDEOMAE, built, clips

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint, read_checkpoint, write_checkpoint
from vidstill.checkpoints.load import (
    extract_encoder_state,
    infer_encoder_config,
    init_encoder,
    load_checkpoint,
    load_state_dict_strict,
    merge_encoder_config,
)
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

CLIP = clips()
CLASSIFIER, TUNED = classifier(ENCODER), classifier(STMAE.encoder, norm="pretrained")


def import_tensors(tensors, expected) -> Checkpoint:
    return import_checkpoint(Checkpoint(tensors, source="foreign.pth"), expected)[0]


def make_run(config) -> tuple[torch.nn.Module, Checkpoint]:
    """Return a module, and what its run leaves."""
    module = built(config)
    return module, Checkpoint(module.state_dict(), {"encoder": to_dict(config.encoder)}, "ours")


@pytest.mark.parametrize("key", ["model", "module"])
@pytest.mark.parametrize("name", ["videomae", "amd", "classifier", "mvd", "mae", "mae_st", "slowfast, fused"])
def test_an_encoder_from_the_authors_files_gives_the_same_features(tmp_path, name, key):
    case: ForeignCase = FILES[name]
    torch.save({key: case.tensors()}, tmp_path / "foreign.pth")
    encoder, expected = built(case.encoder, seed=1), built(case.config).encoder
    init_encoder(encoder, load_checkpoint(tmp_path / "foreign.pth", case.encoder), case.encoder)
    clip = CLIP[:, :, : case.encoder.tubelet[0]] if name == "mae" else CLIP
    features, expected_features = (model(clip, layers=(2,)) for model in (encoder, expected))
    assert torch.equal(features.layers[2], expected_features.layers[2])
    if name != "classifier":  # whose file has no final norm
        assert torch.equal(features.tokens, expected_features.tokens)


def test_unused_tensors_of_an_amd_file_are_left_out(tmp_path):
    tensors = {name: each for name, each in FILES["amd"].tensors().items() if "generator_mask_tokens" not in name}
    assert "generators.0.norm.weight" in tensors
    torch.save({"model": tensors}, tmp_path / "foreign.pth")
    state = extract_encoder_state(load_checkpoint(tmp_path / "foreign.pth", ENCODER))
    assert set(state) == set(ENCODER.build().state_dict())


def test_a_native_file_states_the_encoder_that_it_holds(tmp_path):
    config = replace(ENCODER, positions="sincos2d", tubelet=(1, 4, 4), layer_scale=0.1)
    module = built(replace(VIDEOMAE, encoder=config))
    write_checkpoint(tmp_path / "model.safetensors", module.state_dict(), {"encoder": to_dict(config)})
    checkpoint = read_checkpoint(tmp_path)
    assert infer_encoder_config(checkpoint, ENCODER) == config
    encoder = built(config, seed=1)
    load_state_dict_strict(encoder, extract_encoder_state(checkpoint), checkpoint.source)
    assert torch.equal(encoder(CLIP).tokens, module.encoder(CLIP).tokens)


def test_a_native_file_without_an_encoder_has_the_default_one():
    checkpoint = Checkpoint({}, {"encoder": {}}, "ours")
    assert infer_encoder_config(checkpoint, ENCODER) is ENCODER
    with pytest.raises(InputError, match="does not state its encoder; it is damaged"):
        infer_encoder_config(checkpoint)


def test_half_precision_files_fill_a_single_precision_model():
    tensors = {name: tensor.half() for name, tensor in FILES["classifier"].tensors().items()}
    model = CLASSIFIER.build()
    init_encoder(model.encoder, import_tensors(tensors, ENCODER), ENCODER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(model(CLIP)).all()


def test_a_classifier_drops_the_final_norm_and_keeps_its_own_initial_values():
    model = CLASSIFIER.build()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    module = built(VIDEOMAE)
    init_encoder(model.encoder, Checkpoint(module.state_dict(), {"encoder": {}}), ENCODER)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.items())
    assert torch.equal(model.encoder.blocks[1].mlp.fc2.weight, module.encoder.blocks[1].mlp.fc2.weight)


@pytest.mark.parametrize("name", ["slowfast", "mae_st, classifier"])
@pytest.mark.parametrize("is_native", [True, False])
def test_the_norm_of_a_classifier_may_start_from_the_last_one_of_the_file(name, is_native):
    case = FILES[name]
    (module, native), model = make_run(case.config), TUNED.build()
    checkpoint = native if is_native else import_tensors(case.tensors(), case.encoder)
    init_encoder(model.encoder, checkpoint, STMAE.encoder, head_norm=model.norm)
    last = module.encoder.norm if name == "slowfast" else module.norm
    assert torch.equal(model.norm.weight, last.weight)
    assert torch.equal(model.norm.bias, last.bias)


def test_a_file_without_a_norm_cannot_give_one():
    model = TUNED.build()
    bare = {name: t for name, t in built(STMAE).state_dict().items() if not name.startswith("encoder.norm.")}
    with pytest.raises(InputError, match="no final norm that a classifier could start from; take --norm fresh"):
        init_encoder(model.encoder, Checkpoint(bare, {"encoder": {}}, "bare"), STMAE.encoder, head_norm=model.norm)


def test_relative_positions_start_at_zero_and_are_loaded_later():
    plain, checkpoint = make_run(STMAE)
    relative = replace(STMAE.encoder, relative_positions=True, drop_path=0.2)
    assert merge_encoder_config(checkpoint, relative) == relative
    model = replace(TUNED, encoder=relative).build().eval()
    init_encoder(model.encoder, checkpoint, relative)
    torch.testing.assert_close(model.encoder(CLIP, layers=(2,)).layers[2], plain.encoder(CLIP, layers=(2,)).layers[2])

    tuned, checkpoint = make_run(replace(TUNED, encoder=relative))
    config = merge_encoder_config(checkpoint, STMAE.encoder)
    assert config == replace(relative, drop_path=0.0)
    encoder = config.build(final_norm=False)
    init_encoder(encoder, checkpoint, config)
    assert torch.equal(encoder.eval()(CLIP).tokens, tuned.eval().encoder(CLIP).tokens)


def test_the_checkpoint_decides_all_but_the_drop_path():
    checkpoint = Checkpoint({}, {"encoder": to_dict(ENCODER)})
    recipe = replace(STMAE.encoder, dim=96, depth=3, drop_path=0.1)
    assert merge_encoder_config(checkpoint, recipe) == replace(ENCODER, drop_path=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.0.norm1.bias"), "the file lacks 1 tensors of this model, first 'blocks.0.norm1.bias'"),
        (lambda t: t.update(extra=torch.ones(1)), "the file has 1 tensors too many, first 'extra'"),
        (
            lambda t: t.update({"patch_embed.bias": torch.ones(32)}),
            r"'patch_embed.bias' is \(32,\), this model's is \(24,\); take the size that the file was made with",
        ),
    ],
    ids=["missing", "left over", "another size"],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_changed(change, message):
    encoder = built(ENCODER)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    tensors = {name: tensor + 1 for name, tensor in before.items()}
    change(tensors)
    with pytest.raises(InputError, match=message):
        load_state_dict_strict(encoder, tensors, "the file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (replace(ENCODER, dim=32), "a width of 24, and 32 is expected; take the size that the file was made with"),
        (replace(ENCODER, tubelet=(2, 8, 8)), r"has tubelet \(2, 4, 4\), and \(2, 8, 8\) is expected; take the size"),
    ],
)
def test_an_encoder_of_another_size_is_refused(hint, message):
    with pytest.raises(InputError, match=message):
        import_tensors(FILES["videomae"].tensors(), hint)


@pytest.mark.parametrize("tensors", [{"conv1.weight": torch.ones(2)}, {}], ids=["resnet", "empty"])
def test_an_unknown_layout_is_refused_with_the_known_ones(tensors):
    with pytest.raises(InputError, match=r"neither vidstill's nor of a known layout \(transformers, AMD, MaskAgain"):
        import_tensors(tensors, ENCODER)
