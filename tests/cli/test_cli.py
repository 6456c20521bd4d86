"""The command line: what it prints, what it imports, and that a user's mistake is one sentence and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidstill.cli.main import USAGE, VERBS, main
from vidstill.engine.interruption import RunStopped
from vidstill.recipes.recipe import find_recipe, load_recipes
from vidstill.utils.files import TEST_FILE
from vidstill.utils.types import InputError

RECIPES = {"pretrain": "amd.small_k400", "finetune": "amd.small_k400_finetune", "detect train": "laptop.detect"}
RECIPES |= {"bench step": "amd.small_k400"}


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls of `pretrain` and `finetune`, which do nothing."""
    calls = []

    def record(recipe, run_config, **more):
        calls.append(SimpleNamespace(recipe=recipe, run_config=run_config, **more))
        (tmp_path / TEST_FILE).write_text('{"top1": 0.5}')
        return tmp_path

    replace_work(monkeypatch, record)
    return calls


def replace_work(monkeypatch, function):
    for work in ("pretrain.run_pretraining", "finetune.run_finetuning"):
        monkeypatch.setattr(f"vidstill.pipelines.train.{work}", function)


def raise_error(error):
    def work(*args, **options):
        raise error

    return work


def test_without_options_a_recipe_runs_as_it_is(calls, tmp_path):
    assert main(["pretrain", "amd.small_k400", "--data", str(tmp_path)]) == 0
    assert calls[0].recipe == find_recipe("amd.small_k400")
    assert Path(calls[0].run_config.data) == tmp_path
    assert str(calls[0].run_config.out) == "runs/amd.small_k400"


def test_every_field_of_a_recipe_is_an_option(calls):
    typed = "--method.mask.student-ratio 0.85 --method.layer-pairs 4 8 --method.teacher.checkpoint big.pth --batch 64"
    typed += " --optim.base-lr 3e-4 --optim.max-grad-norm None --clips.sampling.stride 2 --clips.size 112 96"
    assert main(["pretrain", "amd.small_k400", "--data", "videos", *typed.split()]) == 0
    recipe = calls[0].recipe
    assert (recipe.method.mask.student_ratio, recipe.method.mask.teacher_ratio) == (0.85, 0.75)
    assert (recipe.method.layer_pairs, recipe.method.teacher.checkpoint) == (((4, 8),), "big.pth")
    assert (recipe.batch, recipe.optim.base_lr, recipe.optim.max_grad_norm) == (64, 3e-4, None)
    assert (recipe.clips.sampling.stride, recipe.clips.size) == (2, (112, 96))


def test_a_fine_tuning_starts_from_the_checkpoint_of_init(calls, capsys):
    typed = "--init runs/student --mixup.cutmix-alpha 0 --random-erasing.probability 0 --views.temporal-clips 1"
    assert main(["finetune", "amd.small_k400_finetune", "--data", "videos", *typed.split()]) == 0
    recipe = calls[0].recipe
    assert calls[0].init == "runs/student"
    assert (recipe.mixup.cutmix_alpha, recipe.random_erasing.probability, recipe.views.temporal_clips) == (0, 0, 1)
    assert "top-1  0.5 %" in capsys.readouterr().out


def test_only_rank_0_prints_the_result_and_others_print_their_rank(calls, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert main(["pretrain", "amd.small_k400", "--data", "videos"]) == 0
    assert main(["recipes", "xyz"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("vidstill (rank 3): no recipe matches")


# ---- Help -----------------------------------------------------------------------------------------------------------


def test_without_a_verb_the_verbs_are_listed(capsys):
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out == 2 * USAGE
    assert all(f"\n  {verb} " in USAGE for verb in VERBS)
    assert all(len(line) <= 120 for line in USAGE.splitlines())
    assert main(["data"]) == main(["data", "--help"]) == 0
    assert "vidstill data inspect --help" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [*VERBS, *(f"{verb} {name}" for verb, name in RECIPES.items())])
def test_every_verb_has_help(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    assert f"usage: vidstill {verb}" in capsys.readouterr().out


def test_help_breaks_lines_only_at_the_terminals_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["predict", "--help"]) == 0
    assert "drawn over it, without sound; or a folder, with" in capsys.readouterr().out


# ---- Imports --------------------------------------------------------------------------------------------------------

HEAVY = ("torch", "torchvision", "matplotlib", "tensorboard", "transformers", "timm", "onnx", "pyarrow")


SHORT_ANSWERS = {
    "--help": ("", 0),
    "--version": ("", 0),
    "pretran amd.small_k400 --data videos": ("", 2),
    "weights list": ("torch", 0),
    "pretrain amd.smal_k400 --data videos": ("torch", 2),
    "pretrain amd.small_k400 --data nowhere/at/all": ("torch", 2),
    "finetune amd.small_k400_finetune --data nowhere/at/all": ("torch", 2),
    "evaluate nowhere/at/all --data nowhere": ("torch", 2),
}
"""Commands; which of HEAVY they may import; their exit codes."""

ANSWER_ALL = f"""
import os, sys
for command, (allowed, _) in {SHORT_ANSWERS!r}.items():
    if allowed:
        import torch  # once for all that may
    if os.fork() == 0:
        from vidstill.cli.main import main
        code = main(command.split())
        print("imported by", command, code, *(name for name in {HEAVY!r} if name in sys.modules), sep="\\t", flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def short_answers():
    """The exit code of each of SHORT_ANSWERS, and what has been imported, in a process forked before it imports us."""
    output = subprocess.run([sys.executable, "-c", ANSWER_ALL], capture_output=True, text=True, timeout=120, check=True)
    lines = [line.split("\t") for line in output.stdout.splitlines() if line.startswith("imported by\t")]
    return {command: (int(code), set(imported)) for _, command, code, *imported in lines}


@pytest.mark.parametrize("command", SHORT_ANSWERS)
def test_a_short_answer_imports_nothing_heavy(short_answers, command):
    allowed, expected_code = SHORT_ANSWERS[command]
    code, imported = short_answers[command]
    assert code == expected_code
    assert imported <= set(allowed.split())


# ---- Mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("pretran amd.small_k400", "did you mean pretrain"),
        ("xyz", "the verbs are quickstart, recipes"),
        ("data mak clips", "did you mean data make"),
        ("pretrain", "the recipe comes first"),
        ("pretrain --data videos amd.small_k400", "the recipe comes first"),
        ("pretrain amd.smal_k400 --data videos", "near are amd.small_k400"),
        ("pretrain amd.small_k400_finetune --data videos", "type vidstill finetune amd.small_k400_finetune"),
        ("finetune amd.small_k400 --data videos", "type vidstill pretrain amd.small_k400"),
        ("recipes amd.tiny", "no recipe matches 'amd.tiny'"),
        ("recipes --show amd.tiny_k400", "near are amd"),
        ("data inspect nowhere/at/all", "nowhere/at/all does not exist"),
        ("pretrain quickstart.teacher --data nowhere/at/all", "nowhere/at/all does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(typed, message, capsys):
    assert main(typed.split()) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("vidstill: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--data videos --bach 64", "--batch"),
        ("--data videos --method.mask.studnt-ratio 0.5", "--method.mask.student-ratio"),
        ("--batch 64", "--data"),
        ("--data videos --batch many", "--batch"),
        ("--data videos --method.target pixel", "per_channel"),
        ("--data videos --clips.repeats 0", "clips.repeats is 0"),
        ("--data videos --clips.sampling.num-frames 15", "take 14 frames"),
        ("--data videos stray", "stray"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_one(typed, message, calls, capsys):
    assert main(["pretrain", "amd.small_k400", *typed.split()]) == 2
    assert message in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("the clip is too short"), 2, "vidstill: the clip is too short\n"),
        (RunStopped("the disk is full"), 1, "vidstill: the disk is full\n"),
        (KeyboardInterrupt(), 130, "vidstill: interrupted; the same command goes on where it was\n"),
    ],
)
def test_the_end_of_a_run_is_explained_in_one_line(error, code, message, monkeypatch, capsys):
    replace_work(monkeypatch, raise_error(error))
    assert main(["pretrain", "amd.small_k400", "--data", "videos"]) == code
    printed = capsys.readouterr().err
    assert printed.endswith(message)
    assert printed.count("\n") == 1


def test_a_bug_is_not_reported_as_a_users_mistake(monkeypatch):
    replace_work(monkeypatch, raise_error(ValueError("ours")))
    with pytest.raises(ValueError, match="ours"):
        main(["pretrain", "amd.small_k400", "--data", "videos"])


# ---- For programs ---------------------------------------------------------------------------------------------------


def test_recipes_are_listed_and_shown_with_their_values_and_their_source(capsys):
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in rows] == list(load_recipes())
    assert {each["verb"] for each in rows} == {"pretrain", "finetune", "detect train"}
    assert main(["recipes", "--show", "amd.small_k400", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["method"]["layer_pairs"] == [[6, 12], [12, 24]]
    assert main(["recipes", "--show", "amd.small_k400"]) == 0
    printed = capsys.readouterr().out
    assert "--method.layer-pairs" in printed
    assert "small_k400 = replace(" in printed


def test_synthetic_clips_can_be_inspected(tmp_path, capsys):
    options = f"{tmp_path}/clips --train 2 --val 2 --unlabelled 0 --frames 4 --size 16 16 --classes left right"
    assert main(["data", "make", *options.split()]) == 0
    assert f"made: {tmp_path}/clips" in capsys.readouterr().out
    assert main(["data", "inspect", f"{tmp_path}/clips", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["splits"]["train"]["class_counts"] == {"left": 1, "right": 1}
    assert answer["resolution_counts"] == {"16x16": 4}
    assert main(["data", "inspect", f"{tmp_path}/clips"]) == 0
    assert "train: 2 videos in 2 classes, 1 each" in capsys.readouterr().out


def test_doctor_reports_what_the_quickstart_needs(capsys):
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["encoders"]["libx264"]
    assert answer["decoders"]["h264"]
    assert answer["cores"] >= 1
    assert answer["memory_gib"] > 0
    assert answer["default_precision"] in ("bf16", "fp32")
