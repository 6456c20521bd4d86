"""`vidstill bench step` at its smallest: what it measures agrees; what it cannot use is a sentence."""

import json
import shlex

import pytest

from vidstill.bench import infer as bench_infer
from vidstill.bench import step as bench_step
from vidstill.bench.measurement_config import StepConfig
from vidstill.bench.training_sides import StepWork, VidstillStep
from vidstill.cli.main import main
from vidstill.pipelines.run_config import BaseRunConfig
from vidstill.recipes.change import change_recipe, nest_changes
from vidstill.recipes.recipe import find_recipe
from vidstill.utils.flops import count_training_multiply_adds
from vidstill.utils.types import InputError

SMALL = ["--device-batch", "2", "--rounds", "1", "--turn-seconds", "0", "--precision", "fp32"]
TINY = "--clips.size 64 64 --clips.sampling.num-frames 4 --method.encoder.dim 48 --method.encoder.depth 2 "
TINY += "--method.encoder.heads 2"
DECODER = " --method.decoder.dim 32 --method.decoder.depth 1 --method.decoder.heads 2"


def bench(capsys, *words):
    code = main(["bench", *words])
    out, error = capsys.readouterr()
    return code, out, error


def test_a_recipe_is_measured_beside_the_yardstick_and_transformers(capsys):
    pytest.importorskip("transformers")
    words = ["step", "videomae.small_k400", *SMALL, *f"{TINY}{DECODER}".split(), "--json"]
    code, out, _ = bench(capsys, *words)
    assert code == 0
    report = json.loads(out)
    assert report["command"] == shlex.join(["vidstill", "bench", *words])
    assert [(r["side"], r["precision"]) for r in report["results"]] == [
        ("vidstill", "fp32"),
        ("eager", "fp32"),
        ("transformers", "fp32"),
    ]
    assert report["missing_sides"] == {}
    (limit,) = report["limit_flops"]["fp32"]
    for result in report["results"]:
        (seconds,) = result["all_seconds"]
        assert result["clips_per_second"] == pytest.approx(2 / seconds)
        assert result["limit_share"] == pytest.approx(2 / seconds * report["flops_per_clip"] / limit)
        assert result["memory_bytes"] > 0
    step = report["steps"]["fp32"]
    assert {"data", "embed", "student", "decoder", "target", "backward", "optimizer"} <= step["part_seconds"].keys()
    assert step["kernels"] == sum(step["kernel_names"].values()) > 100
    assert step["casts"] >= 0


@pytest.mark.parametrize(
    ("recipe", "options", "parts"),
    [
        ("mvd.small_k400", DECODER, {"teachers", "decoder"}),
        ("amd.small_k400", f"{DECODER} --method.layer-pairs 1 1 2 2", {"teachers", "generators"}),
        ("maskagain.small_k400", "", {"teachers"}),
        ("videomae.small_k400_finetune", "", {"head"}),
    ],
)
def test_every_method_takes_steps_on_both_sides(recipe, options, parts, capsys):
    """In this process: how the sides are built, one step of each, and what ours consists of."""
    teachers = {"mvd": ("image", "video"), "amd": ("teacher",), "maskagain": ("teacher",)}.get(recipe.split(".")[0], ())
    sizes = {"dim": 48, "depth": 2, "heads": 2}
    options += "".join(f" --method.{t}.model.{name} {n}" for t in teachers for name, n in sizes.items())
    tiny = TINY.replace("--method.encoder", "--encoder") if "finetune" in recipe else TINY

    def measure(builds, config, *, flops_per_clip, **report):
        assert flops_per_clip > 0
        assert builds.keys() == {("vidstill", "fp32"), ("eager", "fp32")}
        sides = {name: build() for (name, _), build in builds.items()}
        assert all(side.time(1) > 0 for side in sides.values())
        assert parts <= sides["vidstill"].describe().part_seconds.keys()
        raise InputError("it was measured")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_step, "measure_sides", measure)
        patch.setattr(bench_infer, "get_package_version", lambda name: "unknown")
        words = ["step", recipe, *SMALL, *f"{tiny} {options}".split()]
        assert bench(capsys, *words) == (2, "", "vidstill: it was measured\n")


def test_flops_are_those_of_our_step():
    work = StepWork(find_recipe("videomae.small_k400"), 4, "bf16")
    frames, *size = work.clip_size
    flops = 2 * count_training_multiply_adds(work.build_task, num_frames=frames, size=tuple(size))
    # Multiply-adds of the student's 160 tokens and of the decoder's 1568, by hand: forward, and twice backward but for
    # the pixels' gradient
    encoder = 12 * (12 * 160 * 384**2 + 2 * 160**2 * 384) + 160 * 384 * 192
    decoder = 4 * (12 * 1568 * 192**2 + 2 * 1568**2 * 192) + 1408 * 192 * 1536
    assert flops / 2 == pytest.approx(3 * (encoder + decoder) + 2 * 160 * 384 * 1536, rel=0.01)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("videomae.smal_k400",), "there is no recipe 'videomae.smal_k400'"),
        (("videomae.base_ava",), "videomae.base_ava is not a recipe for bench step; type vidstill detect train"),
        (("auto",), "auto makes recipes for fine-tuning"),
        (("videomae.small_k400", "--device-batch", "0"), "device_batch is 0; take 1 or more"),
        (("videomae.small_k400", "--rounds", "0"), "rounds is 0; take 1 or more"),
        (("amd.small_k400", "--method.layer-pairs", "1", "99"), "AMD's layer pairs name block 99"),
        ((), "the recipe comes first: vidstill bench step RECIPE;"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(words, sentence, capsys):
    code, out, error = bench(capsys, "step", *words)
    assert (code, out) == (2, "")
    assert sentence in error.splitlines()[-1]


def test_the_task_is_compiled_and_checkpointed_as_that_of_a_run(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(BaseRunConfig, "prepare_task", lambda self, task, runtime: prepared.append((self, task)) or "")
    changes = {"clips.size": (64, 64), "method.encoder.dim": 48, "method.encoder.depth": 1, "method.encoder.heads": 2}
    recipe = change_recipe(find_recipe("maskagain.small_k400"), nest_changes(changes))
    config = StepConfig(compile="blocks", activation_checkpointing=True)
    side = VidstillStep(StepWork(recipe, 2, "fp32"), config, tmp_path)
    ((run_config, task),) = prepared
    assert (run_config.compile, run_config.activation_checkpointing) == ("blocks", True)
    assert task is side.trainer.task
    assert VidstillStep(StepWork(recipe, 2, "fp32"), StepConfig(compile="full"), tmp_path).describe() is None
