"""The learning rate of every step, and each parameter's layer and decay, are those of the authors' tables."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import reference_mae
import torch
from foreign_layout import to_foreign
from reference_cases import Case, cases
from torch import nn

from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules
from vidstill.checkpoints.layouts.stmae import build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.engine.lr_schedule import CosineConfig, LRSchedule, plan_training
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.amd import AMDConfig, AMDQuirks
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig

pytestmark = pytest.mark.reference


# ---- Learning rates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(kind="table", name="schedules"))
def test_rates_are_the_table_s(case):
    tolerance = case.json["tolerance"]
    for row in case.json["rows"]:
        requested, epoch = row["settings"], row["settings"]["niter_per_ep"]
        schedule = LRSchedule(
            peak_lr=requested["base_value"],
            min_lr=requested["final_value"],
            cosine_steps=requested["epochs"] * epoch,
            warmup_steps=max(requested.get("warmup_steps", 0), 0) or requested.get("warmup_epochs", 0) * epoch,
            start_lr=requested.get("start_warmup_value", 0.0),
        )
        result = [schedule.compute_lr(step) for step in range(row["length"])]
        assert result == pytest.approx(row["values"], rel=tolerance["rtol"], abs=tolerance["atol"])


STEPS = 2520 * 10**6  # of an epoch: every epoch in the tables is a whole number of these


@pytest.mark.parametrize("case", cases(kind="lr_schedule"))
def test_rates_at_parts_of_epochs_are_mae_s(case):
    tolerance = case.json["tolerance"]
    for requested in case.json["schedules"]:
        final = requested["lr"] if requested.get("fixed_lr") else requested["min_lr"]
        plan = plan_training(
            num_videos=STEPS,
            batch=1,
            optim=AdamWConfig(base_lr=256 * requested["lr"], min_lr=256 * final),
            schedule=CosineConfig(
                epochs=requested["epochs"], warmup_epochs=requested["warmup_epochs"], warmup_rule="mae"
            ),
        )
        points = requested.get("points") or [row[0] for row in requested["values"]]
        result = [plan.compute_lr(round(epoch * STEPS)) for epoch in points]
        assert [round(epoch * STEPS) / STEPS for epoch in points] == pytest.approx(points, rel=0, abs=1e-12)
        for scale, expected in columns(requested):
            scaled = [rate * scale for rate in result]
            assert scaled == pytest.approx(expected, rel=tolerance["rtol"], abs=tolerance["atol"])


def columns(requested):
    """The rates of a schedule's groups, each with the share of the rate that the group learns at."""
    if "lr_values" in requested:
        return [(1.0, requested["lr_values"])]
    powers = [re.search(r"lr_scale ([.\d]+)\*\*(\d+)$", column) for column in requested["columns"]]
    scales = [float(power[1]) ** int(power[2]) if power else 1.0 for power in powers]
    return [(scale, [row[index] for row in requested["values"]]) for index, scale in enumerate(scales) if index]


# ---- Parameter groups -----------------------------------------------------------------------------------------------


Groups = dict[str, list[dict[str, Any]]]
CLIPS = {"dim": 16, "heads": 2, "tubelet": (2, 16, 16)}
SPARED = {"pos_embed": "positions", "cls_token": "cls_token", "mask_token": "mask_token"}  # theirs, ours
MAE = ()  # nothing is, in MAE and ST-MAE


def result(module: nn.Module, names: tuple[RenameRule, ...], **optim: Any) -> Groups:
    """The groups of our parameters that each of theirs consists of, one or several."""
    numbered = dict(enumerate(dict(module.named_parameters()).items()))
    marks = {name: torch.full_like(parameter, number) for number, (name, parameter) in numbered.items()}
    group_of = {
        parameter: group
        for group in AdamWConfig(**{"base_lr": 1.0} | optim).build(module).param_groups
        for parameter in group["params"]
    }
    return {
        expected: [group_of[numbered[number][1]] for number in map(int, mark.unique())]
        for expected, mark in to_foreign(marks, names).items()
    }


def hold(output: Groups, expected: Mapping[str, dict[str, Any]], rtol: float) -> None:
    assert output.keys() == expected.keys()
    for name, expected_group in expected.items():
        for group in output[name]:
            assert group["weight_decay"] == expected_group["weight_decay"], name
            assert group["lr_scale"] == pytest.approx(expected_group["lr_scale"], rel=rtol, abs=0), name
            if "layer_id" in expected_group:
                assert group["layer"] == expected_group["layer_id"], name


def classifier(encoder: ViTConfig, *, mean: bool = True) -> nn.Module:
    return ClassifierConfig(encoder=encoder, num_classes=4, pooling="mean" if mean else "first").build()


def pretrained(encoder: ViTConfig, decoder: DecoderConfig) -> nn.Module:
    return nn.ModuleDict({"encoder": encoder.build(), "decoder": decoder.build(encoder.dim, out_dim=8)})


def with_decoders(encoder: ViTConfig, **decoders: DecoderConfig) -> nn.Module:
    parts = {name: config.build(encoder.dim, out_dim=8) for name, config in decoders.items()}
    return nn.ModuleDict({"encoder": encoder.build(), "decoders": nn.ModuleDict(parts)})


def built(case: Case, row: dict[str, Any]) -> tuple[nn.Module, tuple[RenameRule, ...]]:
    """The model that a row of VideoMAE's, MVD's or AMD's table is about."""
    options = row["options"]
    learned = options.get("use_learnable_pos_emb", False)
    encoder = ViTConfig(
        **CLIPS,
        depth=options.get("depth") or options.get("encoder_depth") or row["depth"],
        positions="learned" if learned else "sincos3d" if case.method == "mvd" else "sinusoid",
        learned_grid=(2, 2, 2) if learned else None,
        class_token=options.get("use_cls_token", False),
        layer_scale=options.get("init_values") or 0.0,
        attention_bias="qv" if options.get("qkv_bias", True) else "none",
    )
    decoder = DecoderConfig(
        dim=8,
        depth=options.get("decoder_depth", 1),
        heads=2,
        embed_bias=case.method == "mvd",
        layer_scale=encoder.layer_scale,
        attention_bias=encoder.attention_bias,
    )
    match case.method, row["model"]:
        case _, "finetune":
            return classifier(encoder, mean=options.get("use_mean_pooling", True)), build_classifier_rules(encoder)
        case "videomae", "pretrain":
            return pretrained(encoder, decoder), build_videomae_rules(encoder)
        case "mvd", "student":
            return with_decoders(encoder, image=decoder, video=decoder), build_mvd_rules(encoder)
        case "amd", "student":
            config = AMDConfig(
                encoder=encoder,
                decoder=decoder,
                teacher=TeacherConfig(model=replace(encoder, dim=64, heads=1)),
                layer_pairs=tuple((layer, layer) for layer in options["direct_layers"]),
                generation_layer_pairs=tuple((layer, layer) for layer in options["generation_layers"]),
                generator_depth=options["generator_depth"],
                released=AMDQuirks(projection_by_index=True),
            )
            return config.build(), build_amd_rules(encoder, options["direct_layers"])
    raise AssertionError(f"{case.method} has a table of {row['model']}, which nobody builds here")


@pytest.mark.parametrize("case", cases(kind="table", name="param_groups"))
def test_decay_and_layer_scales_are_the_tables(case: Case) -> None:
    for row in case.json["rows"]:
        module, names = built(case, row)
        listed = [name for name in row["no_weight_decay_list"] if name in row["parameters"]]  # whole names match alone
        spared = tuple(SPARED[name] for name in listed)
        rates = {"weight_decay": row["weight_decay"], "layer_decay": row["layer_decay"]}
        output = result(module, names, no_weight_decay=spared, **rates)
        expected = dict(row["parameters"])
        if case.method == "amd":  # what they neither train nor save, and what they make but never use
            for index in range(len(row["options"]["generation_layers"])):
                assert [group["weight_decay"] for group in output.pop(f"generator_mask_tokens.{index}")] == [0]
                del expected[f"generators.{index}.norm.weight"], expected[f"generators.{index}.norm.bias"]
        hold(output, expected, case.json["tolerance"]["rtol"])


def models(case: Case) -> dict[str, tuple[nn.Module, tuple[RenameRule, ...]]]:
    """The models that ST-MAE's and image MAE's tables are about; a fine-tuned one for each way of pooling."""
    before, after = case.json["config"]["pretrain"], case.json["config"]["finetune"]
    if case.method == "image_mae":
        learned, fixed = reference_mae.encoder_config(after, learned=True), reference_mae.encoder_config(before)
        tuned = build_classifier_rules(learned)
        return {
            "pretrain": (pretrained(fixed, reference_mae.decoder_config(before)), build_mae_rules(fixed)),
            "global_pool=True": (classifier(learned), tuned),
            "global_pool=False": (classifier(learned, mean=False), tuned),
        }
    config, encoder = reference_mae.stmae_config(before), reference_mae.stmae_encoder_config(after)
    tuned = tuple(name for name in build_stmae_classifier_rules(encoder) if "projection" not in name.foreign_prefix)
    return {
        "pretrain": (config.build(), build_stmae_rules(config.encoder, config.decoder)),
        "finetune": (classifier(encoder), tuned),
    }


@pytest.mark.parametrize("case", cases(kind="parameter_groups"))
def test_mae_s_and_st_mae_s_fine_tunings_decay_and_slow_down_as_their_tables_say(case: Case) -> None:
    models_by_name, optimizer = models(case), case.json["finetune_optimizer"]
    assert AdamWConfig(base_lr=1.0).betas == tuple(optimizer["betas"])
    assert AdamWConfig(base_lr=1.0).build(torch.nn.Linear(1, 1)).defaults["eps"] == optimizer["eps"]
    for key, expected in case.json["finetune_layer_decay"].items():
        settings = dict(setting.split("=") for setting in key.split(","))
        module, names = models_by_name[
            f"global_pool={settings['global_pool']}" if "global_pool" in settings else "finetune"
        ]
        rates = {name: float(settings[name]) for name in ("layer_decay", "weight_decay")}
        hold(result(module, names, **rates), expected, case.json["tolerance"]["lr_scale"]["rtol"])


@pytest.mark.parametrize("case", cases(kind="parameter_groups"))
def test_mae_s_and_st_mae_s_pre_trainings_decay_what_their_tables_say(case: Case) -> None:
    output = result(*models(case)["pretrain"], no_weight_decay=MAE)
    decays = {name: {group["weight_decay"] for group in groups} for name, groups in output.items()}
    tables = case.json["pretrain_weight_decay"]
    expected = tables.get("bias_wd=False", tables)  # image MAE has this one alone
    assert decays == {name: {decay} for name, decay in expected.items()}
    if "bias_wd=True" in tables:  # norms, too: an option of theirs that no published run has
        others = {name for name, decay in tables["bias_wd=True"].items() if decays[name] != {decay}}
        assert others == {name for name in expected if "norm" in name and name.endswith(".weight")}
