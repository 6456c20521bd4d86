"""`vidstill bench infer` and `bench attention` at their smallest."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import CLASSES, ENCODER

from vidstill.bench import infer as bench_infer
from vidstill.bench.attention import AttentionBenchmark, format_attention_report, measure_attention
from vidstill.bench.forward_sides import EagerForward, ForwardWork, VidstillForward
from vidstill.bench.infer import explain_missing_transformers
from vidstill.cli.main import main
from vidstill.models.attention import KERNELS, choose_kernel
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError

CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
WORK = ForwardWork(CLASSIFIER, (4, 16, 16), 2, "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("side", [VidstillForward, EagerForward])
def test_every_side_makes_a_forward_pass_in_both_precisions(side, precision):
    assert side(replace(WORK, precision=precision)).time(1) > 0


def test_transformers_makes_the_same_forward_pass():
    pytest.importorskip("transformers")
    from vidstill.bench.transformers_sides import TransformersForward

    side = TransformersForward(replace(WORK, precision="bf16"))
    assert side.time(1) > 0
    assert sum(p.numel() for p in side.model.parameters()) == sum(p.numel() for p in CLASSIFIER.build().parameters())
    assert {p.dtype for p in side.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("model", "flops", "batch"), [("base", 180.5e9, 1), ("videomae.small_k400_finetune", 57e9, 3)])
def test_a_size_or_a_recipe_is_measured_on_the_command_line(model, flops, batch, capsys, monkeypatch):
    def measure(builds, config, *, command, flops_per_clip, title, missing_sides):
        names = {"vidstill", "eager", "transformers"} - missing_sides.keys()
        assert builds.keys() == {(name, precision) for name in names for precision in ("fp32", "bf16")}
        assert flops_per_clip == pytest.approx(2 * flops, rel=0.01)
        assert command == f"vidstill bench infer {model} --device-batch {batch} --rounds 5 --precision fp32 bf16"
        assert title == f"{model}, forward pass of {batch} clips of 16 × 224 × 224"
        raise InputError("it was measured")

    monkeypatch.setattr(bench_infer, "measure_sides", measure)
    assert main(["bench", "infer", model, "--device-batch", str(batch), "--precision", "fp32", "bf16"]) == 2
    assert "it was measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("infer", "gigantic"), "there is no recipe 'gigantic'"),
        (
            ("infer", "videomae.small_k400"),
            "videomae.small_k400 has no classifier; give a recipe of finetune, or small",
        ),
        (("infer", "base", "--device-batch", "0"), "device_batch is 0; take 1 or more"),
        (("attention", "--lengths", "0"), "lengths is 0; take 1 or more"),
        (("attention", "--rounds", "0"), "rounds is 0; take 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(words, sentence, capsys):
    assert main(["bench", *words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert sentence in error.splitlines()[-1]


def test_models_that_transformers_does_not_have_are_not_compared():
    learned = replace(CLASSIFIER, encoder=replace(ENCODER, positions="sincos3d", dim=32))
    assert explain_missing_transformers(learned, (4, 16, 16))
    assert explain_missing_transformers(CLASSIFIER, (4, 16, 32))


def test_every_kernel_of_attention_is_timed_and_the_selected_one_named(monkeypatch, capsys):
    monkeypatch.setattr("vidstill.bench.attention._TURN_SECONDS", 0.0)
    words = ["--lengths", "5", "9", "--head-dims", "4", "--heads", "2", "--batch", "1", "--rounds", "1"]
    assert main(["bench", "attention", *words, "--json"]) == 0
    timings = json.loads(capsys.readouterr().out)["timings"]
    assert [(t["precision"], t["length"]) for t in timings] == [("bf16", 5), ("bf16", 9), ("fp32", 5), ("fp32", 9)]
    for timing in timings:
        assert timing["training_ms"].keys() == timing["inference_ms"].keys() == KERNELS.keys()
        assert all(ms > 0 for ms in (*timing["training_ms"].values(), *timing["inference_ms"].values()))
        dtype = torch.bfloat16 if timing["precision"] == "bf16" else torch.float32
        assert timing["selected"] == choose_kernel("cpu", dtype, timing["length"])


def test_the_table_names_the_fastest_kernel():
    config = AttentionBenchmark(lengths=(6,), head_dims=(4,), heads=1, batch=1, precisions=("fp32",), rounds=1)
    report = measure_attention(config)
    times = dict.fromkeys(KERNELS, 1.0) | {"plain": 0.5}
    timing = replace(report.timings[0], training_ms=times, inference_ms=times, selected="fused")
    lines = format_attention_report(replace(report, timings=[timing])).splitlines()
    assert [cell.strip() for cell in lines[-1].split("|")][-3:-1] == ["fused", "plain"]
