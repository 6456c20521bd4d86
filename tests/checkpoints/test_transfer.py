"""Weights put into a model: every tensor is accounted for, whoever wrote the file."""

from dataclasses import replace

import pytest
import torch
from foreign_layout import in_their_words
from tiny_models import AMD, CLASSES, ENCODER, IMAGEMAE, METHODS, STMAE, VIDEOMAE, built, clips

from vidstill.checkpoints.io import Weights, read_weights, write_weights
from vidstill.checkpoints.layouts.amd import amd_names
from vidstill.checkpoints.layouts.mae import mae_names
from vidstill.checkpoints.layouts.mvd import mvd_names
from vidstill.checkpoints.layouts.slowfast import slowfast_names
from vidstill.checkpoints.layouts.stmae import stmae_classifier_names, stmae_names
from vidstill.checkpoints.layouts.videomae import classifier_names, videomae_names
from vidstill.checkpoints.load import continued, encoder_config, encoder_tensors, load_exactly, start_encoder
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_plain
from vidstill.utils.types import InputError

CLIP = clips()
CLASSIFIER = ClassifierConfig(encoder=ENCODER, classes=CLASSES)
FOREIGN = {
    "videomae": (VIDEOMAE, videomae_names(ENCODER)),
    "amd": (AMD, amd_names(ENCODER, [1, 2], 2)),
    "classifier": (CLASSIFIER, classifier_names(ENCODER)),
}
FLAT = replace(IMAGEMAE, encoder=replace(IMAGEMAE.encoder, tubelet=(1, 4, 4)))
TUNED = ClassifierConfig(encoder=STMAE.encoder, classes=CLASSES, norm="pretrained")
WITHOUT_PREFIX = {
    "MAE": (FLAT, mae_names(FLAT.encoder)),
    "image classifier": (
        ClassifierConfig(encoder=FLAT.encoder, classes=CLASSES),
        classifier_names(FLAT.encoder, image=True),
    ),
    "mae_st": (STMAE, stmae_names(STMAE.encoder, STMAE.decoder)),
    "PySlowFast": (STMAE, slowfast_names(STMAE.encoder, STMAE.decoder)),
    "PySlowFast, fused": (STMAE, slowfast_names(STMAE.encoder, STMAE.decoder, separate_qkv=False)),
    "mae_st's classifier": (TUNED, stmae_classifier_names(STMAE.encoder)),
    "PySlowFast's classifier": (TUNED, stmae_classifier_names(STMAE.encoder, separate_qkv=False, slowfast=True)),
}


@pytest.mark.parametrize("wrapping", ["model", "module"])
@pytest.mark.parametrize(("config", "names"), FOREIGN.values(), ids=FOREIGN)
def test_an_encoder_from_the_authors_files_gives_the_same_features(tmp_path, config, names, wrapping):
    module = built(config, seed=0)
    torch.save({wrapping: in_their_words(module.state_dict(), names)}, tmp_path / "theirs.pth")
    encoder = built(ENCODER, seed=1)
    start_encoder(encoder, read_weights(tmp_path / "theirs.pth"), ENCODER)
    expected, found = (model(CLIP, layers=(2,)) for model in (module.encoder, encoder))
    assert torch.equal(found.layers[2], expected.layers[2])
    if config is not CLASSIFIER:  # whose file has no final norm
        assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize(("config", "names"), WITHOUT_PREFIX.values(), ids=WITHOUT_PREFIX)
def test_layouts_without_a_prefix_are_told_apart_by_their_own_words(config, names):
    module, clip = built(config, seed=0), CLIP[:, :, : config.encoder.tubelet[0]]
    encoder = built(config.encoder, seed=1)
    start_encoder(encoder, Weights(in_their_words(module.state_dict(), names), source="theirs.pth"), config.encoder)
    expected, found = (model(clip, layers=(2,)) for model in (module.encoder, encoder))
    assert torch.equal(found.layers[2], expected.layers[2])


def test_mvds_files_are_known_by_their_decoders():
    method = built(METHODS["mvd"])
    theirs = in_their_words(method.state_dict(), mvd_names(method.config.encoder))
    found = encoder_tensors(Weights(theirs), method.config.encoder)
    assert all(torch.equal(found[name], tensor) for name, tensor in method.encoder.state_dict().items())


def test_unused_tensors_of_an_amd_file_do_no_harm(tmp_path):
    theirs = in_their_words(built(AMD).state_dict(), amd_names(ENCODER, [1, 2], 2))
    unused = {f"generators.{n}.norm.{kind}": torch.ones(32) for n in (0, 1) for kind in ("weight", "bias")}
    released = {name: t for name, t in theirs.items() if not name.startswith("generator_mask_tokens")}
    torch.save({"model": released | unused}, tmp_path / "theirs.pth")
    found = encoder_tensors(read_weights(tmp_path / "theirs.pth"), ENCODER)
    assert set(found) == set(ENCODER.build().state_dict())


def test_our_own_file_says_what_encoder_it_holds(tmp_path):
    config = replace(ENCODER, positions="sincos2d", tubelet=(1, 4, 4), layer_scale=0.1)
    module = built(replace(VIDEOMAE, encoder=config))
    write_weights(tmp_path / "model.safetensors", module.state_dict(), {"encoder": to_plain(config)})
    weights = read_weights(tmp_path)
    assert encoder_config(weights, ENCODER) == config
    encoder = built(config, seed=1)
    load_exactly(encoder, encoder_tensors(weights, config), weights.source)
    assert torch.equal(encoder(CLIP).tokens, module.encoder(CLIP).tokens)


def test_a_file_of_ours_that_does_not_say_what_it_holds_is_taken_for_what_was_asked():
    assert encoder_config(Weights({}, {"encoder": {}}), ENCODER) is ENCODER
    with pytest.raises(InputError, match="does not say what its encoder is; it is damaged"):
        encoder_config(Weights({}, {"encoder": {}}, "ours"))


def test_half_precision_files_fill_a_single_precision_model():
    theirs = in_their_words(built(CLASSIFIER).state_dict(), classifier_names(ENCODER))
    model = CLASSIFIER.build()
    start_encoder(model.encoder, Weights({name: tensor.half() for name, tensor in theirs.items()}), ENCODER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(model(CLIP)).all()


def test_a_classifier_leaves_the_final_norm_behind_and_keeps_its_own_start():
    model = CLASSIFIER.build()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    module = built(VIDEOMAE)
    start_encoder(model.encoder, Weights(module.state_dict(), {"encoder": {}}), ENCODER)
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
    tensors, about = module.state_dict(), {"encoder": to_plain(STMAE.encoder)}
    file = Weights(tensors, about) if ours else Weights(in_their_words(tensors, names))
    start_encoder(model.encoder, file, STMAE.encoder, norm=model.norm)
    last = module.encoder.norm if config is STMAE else module.norm
    assert torch.equal(model.norm.weight, last.weight)
    assert torch.equal(model.norm.bias, last.bias)


def test_a_file_without_a_norm_cannot_give_one():
    model = TUNED.build()
    bare = {name: t for name, t in built(STMAE).state_dict().items() if not name.startswith("encoder.norm.")}
    with pytest.raises(InputError, match="no last norm that a classifier could go on from; take --norm fresh"):
        start_encoder(model.encoder, Weights(bare, {"encoder": {}}, "bare"), STMAE.encoder, norm=model.norm)


def test_relative_positions_come_in_at_zero_and_are_taken_over_later():
    plain, asked = built(STMAE), replace(STMAE.encoder, relative_positions=True, drop_path=0.2)
    file = Weights(plain.state_dict(), {"encoder": to_plain(STMAE.encoder)}, "ours")
    assert continued(file, asked) == asked
    model = replace(TUNED, encoder=asked).build().eval()
    start_encoder(model.encoder, file, asked)
    torch.testing.assert_close(model.encoder(CLIP, layers=(2,)).layers[2], plain.encoder(CLIP, layers=(2,)).layers[2])

    tuned = built(replace(TUNED, encoder=asked))
    file = Weights(tuned.state_dict(), {"encoder": to_plain(asked)}, "ours")
    config = continued(file, STMAE.encoder)
    assert config == replace(asked, drop_path=0.0)
    encoder = config.build(final_norm=False)
    start_encoder(encoder, file, config)
    assert torch.equal(encoder.eval()(CLIP).tokens, tuned.eval().encoder(CLIP).tokens)


def test_a_file_decides_all_but_what_is_its_users():
    file = Weights({}, {"encoder": to_plain(ENCODER)})
    other = replace(STMAE.encoder, dim=96, depth=3, drop_path=0.1)
    assert continued(file, other) == replace(ENCODER, drop_path=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t.pop("blocks.0.norm1.bias"),
            r"the file lacks 1 tensors of this model, first 'blocks.0.norm1.bias'",
        ),
        (lambda t: t.update(extra=torch.ones(1)), r"the file has 1 tensors too many, first 'extra'"),
        (
            lambda t: t.update({"embed.bias": torch.ones(32)}),
            r"'embed.bias' is \(32,\), this model's is \(24,\); take the size that the file was made with",
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
        load_exactly(encoder, tensors, "the file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_an_encoder_of_another_size_is_met_with_a_sentence():
    theirs = in_their_words(built(VIDEOMAE).state_dict(), videomae_names(ENCODER))
    larger = replace(ENCODER, dim=32)
    with pytest.raises(InputError, match="take the size that the file was made with"):
        start_encoder(larger.build(), Weights(theirs, source="theirs.pth"), larger)


def test_tubelets_of_another_size_are_met_with_a_sentence():
    theirs = in_their_words(built(VIDEOMAE).state_dict(), videomae_names(ENCODER))
    coarser = replace(ENCODER, tubelet=(2, 8, 8))
    with pytest.raises(InputError, match=r"has tubelet \(2, 4, 4\), and \(2, 8, 8\) is asked for; take the size"):
        start_encoder(coarser.build(), Weights(theirs, source="theirs.pth"), coarser)


@pytest.mark.parametrize("tensors", [{"conv1.weight": torch.ones(2)}, {}], ids=["resnet", "empty"])
def test_a_foreign_layout_is_met_with_what_is_known(tensors):
    with pytest.raises(InputError, match=r"neither vidstill's nor in a layout known here \(VideoMAE, VideoMAE V2, AMD"):
        encoder_tensors(Weights(tensors, source="theirs.pth"), ENCODER)
