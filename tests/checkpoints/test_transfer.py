"""Weights put into a model: every tensor is accounted for, whoever wrote the file."""

from dataclasses import replace

import pytest
import torch
from foreign_layout import to_foreign
from tiny_models import AMD, CLASSES, ENCODER, IMAGEMAE, METHODS, STMAE, VIDEOMAE, built, clips

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint, read_checkpoint, write_checkpoint
from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.stmae import build_slowfast_rules, build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.checkpoints.load import (
    extract_encoder_state,
    infer_encoder_config,
    init_encoder,
    load_checkpoint,
    load_state_dict_strict,
    merge_encoder_config,
)
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

CLIP = clips()
CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
FOREIGN = {
    "videomae": (VIDEOMAE, build_videomae_rules(ENCODER)),
    "amd": (AMD, build_amd_rules(ENCODER, [1, 2])),
    "classifier": (CLASSIFIER, build_classifier_rules(ENCODER)),
}
FLAT = replace(IMAGEMAE, encoder=replace(IMAGEMAE.encoder, tubelet=(1, 4, 4)))
TUNED = ClassifierConfig(encoder=STMAE.encoder, num_classes=CLASSES, norm="pretrained")
WITHOUT_PREFIX = {
    "MAE": (FLAT, build_mae_rules(FLAT.encoder)),
    "image classifier": (
        ClassifierConfig(encoder=FLAT.encoder, num_classes=CLASSES),
        build_classifier_rules(FLAT.encoder),
    ),
    "mae_st": (STMAE, build_stmae_rules(STMAE.encoder, STMAE.decoder)),
    "PySlowFast": (STMAE, build_slowfast_rules(STMAE.encoder, STMAE.decoder)),
    "PySlowFast, fused": (STMAE, build_slowfast_rules(STMAE.encoder, STMAE.decoder, separate_qkv=False)),
    "mae_st's classifier": (TUNED, build_stmae_classifier_rules(STMAE.encoder)),
    "PySlowFast's classifier": (TUNED, build_stmae_classifier_rules(STMAE.encoder, separate_qkv=False, slowfast=True)),
}


def imported(tensors, expected) -> Checkpoint:
    return import_checkpoint(Checkpoint(tensors, source="theirs.pth"), expected)[0]


@pytest.mark.parametrize("wrapping", ["model", "module"])
@pytest.mark.parametrize(("config", "names"), FOREIGN.values(), ids=FOREIGN)
def test_an_encoder_from_the_authors_files_gives_the_same_features(tmp_path, config, names, wrapping):
    module = built(config, seed=0)
    torch.save({wrapping: to_foreign(module.state_dict(), names)}, tmp_path / "theirs.pth")
    encoder = built(ENCODER, seed=1)
    init_encoder(encoder, load_checkpoint(tmp_path / "theirs.pth", ENCODER), ENCODER)
    expected, found = (model(CLIP, layers=(2,)) for model in (module.encoder, encoder))
    assert torch.equal(found.layers[2], expected.layers[2])
    if config is not CLASSIFIER:  # whose file has no final norm
        assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize(("config", "names"), WITHOUT_PREFIX.values(), ids=WITHOUT_PREFIX)
def test_layouts_without_a_prefix_are_told_apart_by_their_own_words(config, names):
    module, clip = built(config, seed=0), CLIP[:, :, : config.encoder.tubelet[0]]
    encoder = built(config.encoder, seed=1)
    init_encoder(encoder, imported(to_foreign(module.state_dict(), names), config.encoder), config.encoder)
    expected, found = (model(clip, layers=(2,)) for model in (module.encoder, encoder))
    assert torch.equal(found.layers[2], expected.layers[2])


def test_mvds_files_are_known_by_their_decoders():
    method = built(METHODS["mvd"])
    theirs = to_foreign(method.state_dict(), build_mvd_rules(method.config.encoder))
    found = extract_encoder_state(imported(theirs, method.config.encoder))
    assert all(torch.equal(found[name], tensor) for name, tensor in method.encoder.state_dict().items())


def test_unused_tensors_of_an_amd_file_do_no_harm(tmp_path):
    theirs = to_foreign(built(AMD).state_dict(), build_amd_rules(ENCODER, [1, 2]))
    unused = {f"generators.{n}.norm.{kind}": torch.ones(32) for n in (0, 1) for kind in ("weight", "bias")}
    released = {name: t for name, t in theirs.items() if not name.startswith("generator_mask_tokens")}
    torch.save({"model": released | unused}, tmp_path / "theirs.pth")
    found = extract_encoder_state(load_checkpoint(tmp_path / "theirs.pth", ENCODER))
    assert set(found) == set(ENCODER.build().state_dict())


def test_our_own_file_says_what_encoder_it_holds(tmp_path):
    config = replace(ENCODER, positions="sincos2d", tubelet=(1, 4, 4), layer_scale=0.1)
    module = built(replace(VIDEOMAE, encoder=config))
    write_checkpoint(tmp_path / "model.safetensors", module.state_dict(), {"encoder": to_dict(config)})
    weights = read_checkpoint(tmp_path)
    assert infer_encoder_config(weights, ENCODER) == config
    encoder = built(config, seed=1)
    load_state_dict_strict(encoder, extract_encoder_state(weights), weights.source)
    assert torch.equal(encoder(CLIP).tokens, module.encoder(CLIP).tokens)


def test_a_file_of_ours_that_does_not_say_what_it_holds_is_taken_for_what_was_asked():
    assert infer_encoder_config(Checkpoint({}, {"encoder": {}}), ENCODER) is ENCODER
    with pytest.raises(InputError, match="does not state its encoder; it is damaged"):
        infer_encoder_config(Checkpoint({}, {"encoder": {}}, "ours"))


def test_half_precision_files_fill_a_single_precision_model():
    theirs = to_foreign(built(CLASSIFIER).state_dict(), build_classifier_rules(ENCODER))
    model = CLASSIFIER.build()
    init_encoder(model.encoder, imported({name: tensor.half() for name, tensor in theirs.items()}, ENCODER), ENCODER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(model(CLIP)).all()


def test_a_classifier_leaves_the_final_norm_behind_and_keeps_its_own_start():
    model = CLASSIFIER.build()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    module = built(VIDEOMAE)
    init_encoder(model.encoder, Checkpoint(module.state_dict(), {"encoder": {}}), ENCODER)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.items())
    assert torch.equal(model.encoder.blocks[1].mlp.fc2.weight, module.encoder.blocks[1].mlp.fc2.weight)


@pytest.mark.parametrize(
    ("config", "names"),
    [WITHOUT_PREFIX["mae_st"], WITHOUT_PREFIX["mae_st's classifier"]],
    ids=["pre-trained", "fine-tuned"],
)
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "theirs"])
def test_a_classifiers_norm_may_go_on_from_the_files_last_one(config, names, ours):
    module, model = built(config), TUNED.build()
    tensors, about = module.state_dict(), {"encoder": to_dict(STMAE.encoder)}
    file = Checkpoint(tensors, about) if ours else imported(to_foreign(tensors, names), STMAE.encoder)
    init_encoder(model.encoder, file, STMAE.encoder, head_norm=model.norm)
    last = module.encoder.norm if config is STMAE else module.norm
    assert torch.equal(model.norm.weight, last.weight)
    assert torch.equal(model.norm.bias, last.bias)


def test_a_file_without_a_norm_cannot_give_one():
    model = TUNED.build()
    bare = {name: t for name, t in built(STMAE).state_dict().items() if not name.startswith("encoder.norm.")}
    with pytest.raises(InputError, match="no final norm that a classifier could start from; take --norm fresh"):
        init_encoder(model.encoder, Checkpoint(bare, {"encoder": {}}, "bare"), STMAE.encoder, head_norm=model.norm)


def test_relative_positions_come_in_at_zero_and_are_taken_over_later():
    plain, asked = built(STMAE), replace(STMAE.encoder, relative_positions=True, drop_path=0.2)
    file = Checkpoint(plain.state_dict(), {"encoder": to_dict(STMAE.encoder)}, "ours")
    assert merge_encoder_config(file, asked) == asked
    model = replace(TUNED, encoder=asked).build().eval()
    init_encoder(model.encoder, file, asked)
    torch.testing.assert_close(model.encoder(CLIP, layers=(2,)).layers[2], plain.encoder(CLIP, layers=(2,)).layers[2])

    tuned = built(replace(TUNED, encoder=asked))
    file = Checkpoint(tuned.state_dict(), {"encoder": to_dict(asked)}, "ours")
    config = merge_encoder_config(file, STMAE.encoder)
    assert config == replace(asked, drop_path=0.0)
    encoder = config.build(final_norm=False)
    init_encoder(encoder, file, config)
    assert torch.equal(encoder.eval()(CLIP).tokens, tuned.eval().encoder(CLIP).tokens)


def test_a_file_decides_all_but_what_is_its_users():
    file = Checkpoint({}, {"encoder": to_dict(ENCODER)})
    other = replace(STMAE.encoder, dim=96, depth=3, drop_path=0.1)
    assert merge_encoder_config(file, other) == replace(ENCODER, drop_path=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t.pop("blocks.0.norm1.bias"),
            r"the file lacks 1 tensors of this model, first 'blocks.0.norm1.bias'",
        ),
        (lambda t: t.update(extra=torch.ones(1)), r"the file has 1 tensors too many, first 'extra'"),
        (
            lambda t: t.update({"patch_embed.bias": torch.ones(32)}),
            r"'patch_embed.bias' is \(32,\), this model's is \(24,\); take the size that the file was made with",
        ),
    ],
    ids=["missing", "left over", "another size"],
)
def test_what_does_not_fit_is_met_with_a_sentence_and_nothing_is_changed(change, sentence):
    encoder = built(ENCODER)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    tensors = {name: tensor + 1 for name, tensor in before.items()}
    change(tensors)
    with pytest.raises(InputError, match=sentence):
        load_state_dict_strict(encoder, tensors, "the file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_an_encoder_of_another_size_is_met_with_a_sentence():
    theirs = to_foreign(built(VIDEOMAE).state_dict(), build_videomae_rules(ENCODER))
    larger = replace(ENCODER, dim=32)
    with pytest.raises(InputError, match="take the size that the file was made with"):
        imported(theirs, larger)


def test_tubelets_of_another_size_are_met_with_a_sentence():
    theirs = to_foreign(built(VIDEOMAE).state_dict(), build_videomae_rules(ENCODER))
    coarser = replace(ENCODER, tubelet=(2, 8, 8))
    with pytest.raises(InputError, match=r"has tubelet \(2, 4, 4\), and \(2, 8, 8\) is expected; take the size"):
        imported(theirs, coarser)


@pytest.mark.parametrize("tensors", [{"conv1.weight": torch.ones(2)}, {}], ids=["resnet", "empty"])
def test_a_foreign_layout_is_met_with_what_is_known(tensors):
    with pytest.raises(InputError, match=r"neither vidstill's nor of a known layout \(transformers, AMD, MaskAgain"):
        imported(tensors, ENCODER)
