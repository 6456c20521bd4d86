"""Configurations as plain JSON: what is written is read back, and nothing else is."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import MVD

from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.mvd import MVDConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict, suggest_names, to_dict
from vidstill.utils.types import InputError

ENCODER = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))


def through_a_file(value):
    return from_dict(type(value), json.loads(json.dumps(to_dict(value))))


@given(
    sampling=st.sampled_from([SpanSampling, DenseSampling, SegmentSampling]),
    frames=st.integers(1, 64),
    name=st.text(),
    size=st.tuples(st.integers(1, 512), st.integers(1, 512)),
    flip=st.floats(0, 1),
)
def test_what_is_written_is_read_back_equal_and_of_the_same_kinds(sampling, frames, name, size, flip):
    config = ClipsConfig(dataset=name, sampling=sampling(num_frames=frames), size=size, flip_probability=flip)
    back = through_a_file(config)
    assert back == config
    assert type(back.sampling) is sampling
    assert isinstance(back.size, tuple)


@given(base_lr=st.floats(1e-12, 1e3), clip_norm=st.none() | st.floats(1e-6, 10), no_weight_decay=st.lists(st.text()))
def test_a_number_keeps_every_bit(base_lr, clip_norm, no_weight_decay):
    config = AdamWConfig(base_lr=base_lr, max_grad_norm=clip_norm, no_weight_decay=tuple(no_weight_decay))
    assert through_a_file(config) == config


@pytest.mark.parametrize("extra", [(), (MVD.image,)])
def test_a_field_with_a_form_of_its_own_on_the_command_line_is_read_back_too(extra):
    config = replace(MVD, extra=extra)
    assert through_a_file(config) == config


def test_a_whole_number_may_stand_for_a_real_one_but_not_the_other_way():
    plain = to_dict(ENCODER)
    assert isinstance(from_dict(ViTConfig, plain | {"mlp_ratio": 4}).mlp_ratio, float)
    with pytest.raises(InputError, match=r"ViTConfig\.depth is 2\.0; it must be of type int"):
        from_dict(ViTConfig, plain | {"depth": 2.0})


def test_missing_fields_take_their_defaults_and_the_class_need_not_be_named():
    assert from_dict(CosineConfig, {"epochs": 3}) == CosineConfig(epochs=3)


CLIPS = to_dict(ClipsConfig(dataset="made", sampling=SpanSampling()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size_": 1.0}, r"no field 'size_'; near are size"),
        ({"repeat_sampling": "both"}, r"repeat_sampling is 'both'; it must be one of 'same', 'own'"),
        ({"size": [224]}, r"size has 1 entries; it must have 2"),
        ({"size": 224}, r"size is 224; it must be a list"),
        ({"size": [224, "a"]}, r"size is 'a'; it must be of type int"),
        ({"flip_probability": None}, r"flip_probability is None; it must be of type float"),
        ({"flip_probability": True}, r"flip_probability is True; it must be of type float"),
        ({"sampling": to_dict(ENCODER)}, r"of the class '.*:ViTConfig', but this .* allows SpanSampling, .* there"),
        ({"sampling": 16}, r"sampling is 16; it must hold the fields of a \w+Sampling"),
        ({"sampling": None}, r"sampling is None; it must hold the fields"),
        ({"sampling": {"class": "os:system"}}, r"which is not vidstill's; the file is not to be trusted"),
        ({"sampling": {"class": ["vidstill.utils.types:Grid"]}}, r"which is not vidstill's"),
        *(
            ({"sampling": {"class": f"vidstill.{name}"}}, r"allows SpanSampling, \w+, \w+, TimedSampling there")
            for name in ("data.decode.reader:Sampling", "synthetic.dataset:make_dataset", "models.vit:SMALL")
        ),
        ({"repeats": 0}, r"repeats is 0; take 1 or more"),
    ],
)
def test_unreadable_values_are_named(change, sentence):
    with pytest.raises(InputError, match=sentence):
        from_dict(ClipsConfig, CLIPS | change)


def test_a_single_configuration_is_no_list_of_them():
    with pytest.raises(InputError, match=r"MVDConfig\.extra is of the class .*Teacher.*, but this version of vidstill"):
        from_dict(MVDConfig, to_dict(MVD) | {"extra": to_dict(MVD.image)})


def test_a_field_without_a_default_has_to_be_there():
    with pytest.raises(InputError, match=r"ViTConfig is incomplete: .*'heads'"):
        from_dict(ViTConfig, {"dim": 24, "depth": 2})


def test_only_plain_things_are_written():
    with pytest.raises(TypeError, match=r"set .* cannot be written as plain JSON"):
        to_dict({"names": {1, 2}})


def test_near_words_are_named_the_nearest_first():
    assert suggest_names("bas_k400", ["small_k400", "base_k400", "xyz"]) == "; near are base_k400, small_k400"
    assert suggest_names("flip", ["small_k400", "base_k400"]) == ""


def test_nothing_is_imported_that_metadata_name_but_methods():
    names = [
        "vidstill.cli.__main__:X",
        "vidstill.pipelines.quickstart:Quickstart",
        "vidstill.data.tools.pack:PackConfig",
    ]
    names += ["vidstill.methods:X", "vidstill.methods.common.teacher:TeacherConfig", "vidstill.methods.none:NoneConfig"]
    names += ["vidstill.methods.amd:NoneConfig", "vidstill.methods.amd:AMD"]
    script = f"""
import sys
from vidstill.recipes.recipe import PretrainRecipe
from vidstill.utils.config_io import from_dict
for name in {names}:
    before = set(sys.modules)
    try:
        from_dict(PretrainRecipe, {{"method": {{"class": name}}}})
    except ValueError as error:
        assert name in str(error)
    print(name, *sorted(each for each in set(sys.modules) - before if each.startswith("vidstill.")))
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    *refused, imported = output.splitlines()
    assert refused == names[:-1]
    assert imported.split()[2] == "vidstill.methods.amd"
