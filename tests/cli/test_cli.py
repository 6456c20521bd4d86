"""The command line: what it prints, and that a user's mistake is one sentence and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidstill.cli import train
from vidstill.cli.main import USAGE, main
from vidstill.engine.trainer import RunStopped
from vidstill.recipes.recipe import find_recipe, load_recipes
from vidstill.utils.types import InputError

VERBS = ["quickstart", "recipes", "evaluate", "embed", "data make", "data inspect", "doctor"]
WITH_RECIPE = {"pretrain": "amd.small_k400", "finetune": "amd.small_k400_finetune"}


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What would have been run: the calls of `run.pretrain_command` and `run.finetune_command`, which do nothing."""
    calls = []

    def note(recipe, launch, **more):
        calls.append(SimpleNamespace(recipe=recipe, launch=launch, **more))
        (tmp_path / train.TEST_FILE).write_text('{"top1": 0.5}')
        return tmp_path

    monkeypatch.setattr(train.run, "pretrain", note)
    monkeypatch.setattr(train.run, "finetune", note)
    return calls


def failing(error):
    def work(*given, **named):
        raise error

    return work


# ---- What is typed is what is run -----------------------------------------------------------------------------------


def test_a_recipe_runs_as_it_is_found_where_nothing_else_is_typed(started, tmp_path):
    assert main(["pretrain", "amd.small_k400", "--data", str(tmp_path)]) == 0
    assert started[0].recipe == find_recipe("amd.small_k400")
    assert Path(started[0].launch.data) == tmp_path
    assert str(started[0].launch.out) == "runs/amd.small_k400"


def test_every_field_of_a_recipe_is_an_option(started):
    typed = "--method.mask.student-ratio 0.85 --method.pairs 4 8 --method.teacher.weights big.pth --batch 64"
    typed += " --optim.base-lr 3e-4 --optim.clip-norm None --clips.sampling.stride 2 --clips.size 112 96"
    assert main(["pretrain", "amd.small_k400", "--data", "videos", *typed.split()]) == 0
    recipe = started[0].recipe
    assert (recipe.method.mask.student_ratio, recipe.method.mask.teacher_ratio) == (0.85, 0.75)
    assert (recipe.method.pairs, recipe.method.teacher.weights) == (((4, 8),), "big.pth")
    assert (recipe.batch, recipe.optim.base_lr, recipe.optim.clip_norm) == (64, 3e-4, None)
    assert (recipe.clips.sampling.stride, recipe.clips.size) == (2, (112, 96))


def test_a_part_of_a_recipe_is_taken_out_or_brought_in(started):
    typed = "--method.image-teacher None --clips.randaugment.magnitude 5"
    assert main(["pretrain", "mvd.base_k400", "--data", "videos", *typed.split()]) == 0
    decoder = "--method.decoder.dim 64 --method.decoder.depth 2 --method.decoder.heads 2"
    assert main(["pretrain", "maskagain.base_k400", "--data", "videos", *decoder.split()]) == 0
    assert main(["finetune", "amd.small_k400_finetune", "--data", "videos", "--mixing", "None"]) == 0
    assert started[0].recipe.method.image_teacher is None
    assert started[0].recipe.clips.randaugment.magnitude == 5
    assert (started[1].recipe.method.decoder.dim, started[1].recipe.method.decoder.mlp_ratio) == (64, 4.0)
    assert started[2].recipe.mixup is None


def test_a_fine_tuning_starts_where_it_is_told_to(started, capsys):
    typed = "--init runs/student --mixing.cutmix 0 --erasing.probability 0 --views.views 1"
    assert main(["finetune", "amd.small_k400_finetune", "--data", "videos", *typed.split()]) == 0
    recipe = started[0].recipe
    assert started[0].init == "runs/student"
    assert (recipe.mixup.cutmix, recipe.random_erasing.probability, recipe.views.views) == (0, 0, 1)
    assert "top1  0.5" in capsys.readouterr().out


def test_only_the_first_of_several_processes_tells_what_was_done(started, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["pretrain", "amd.small_k400", "--data", "videos"]) == 0
    assert capsys.readouterr().out == ""


# ---- Help -----------------------------------------------------------------------------------------------------------


def test_without_a_verb_the_verbs_are_listed(capsys):
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out == 2 * USAGE
    assert all(f"  {verb} " in USAGE for verb in [*VERBS, *WITH_RECIPE])


@pytest.mark.parametrize("verb", [*VERBS, *WITH_RECIPE, *(f"{verb} {name}" for verb, name in WITH_RECIPE.items())])
def test_every_verb_explains_itself(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    assert f"usage: vidstill {verb}" in capsys.readouterr().out


def test_help_on_a_recipe_shows_its_defaults_and_what_they_count(capsys):
    main(["pretrain", "amd.small_k400", "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "clips in a step, over all devices" in printed
    assert "(default: 2048)" in printed
    assert "taken out by None and brought in by their own options: --clips.randaugment." in printed


def test_help_comes_before_torch_does():
    program = "import sys; from vidstill.cli.main import main; sys.exit(main(['--help']) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0


# ---- Mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("pretran amd.small_k400", "near are pretrain"),
        ("xyz", "there are quickstart, recipes"),
        ("data mak clips", "near are data make"),
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
def test_a_mistake_is_one_sentence_and_exit_code_2(typed, said, capsys):
    assert main(typed.split()) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("vidstill: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--data videos --bach 64", "--batch"),
        ("--data videos --method.mask.studnt-ratio 0.5", "--method.mask.student-ratio"),
        ("--batch 64", "--data"),
        ("--data videos --batch many", "--batch"),
        ("--data videos --method.target pixel", "per_channel"),
        ("--data videos --clips.repeats 0", "a video gives 0 copies"),
        ("--data videos --clips.sampling.frames 15", "take 14 frames"),
        ("--data videos stray", "stray"),
    ],
)
def test_of_a_wrong_option_the_right_one_is_named(typed, said, started, capsys):
    assert main(["pretrain", "amd.small_k400", *typed.split()]) == 2
    assert said in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("the clip is too short"), 2, "vidstill: the clip is too short\n"),
        (RunStopped("the disk is full"), 1, "vidstill: the disk is full\n"),
        (KeyboardInterrupt(), 130, "goes on from its last saved state with the same command\n"),
    ],
)
def test_what_ends_a_run_is_said_in_one_line(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(train.run, "pretrain", failing(error))
    assert main(["pretrain", "amd.small_k400", "--data", "videos"]) == code
    printed = capsys.readouterr().err
    assert printed.endswith(said)
    assert printed.count("\n") == 1


def test_a_mistake_of_ours_is_not_called_the_users(monkeypatch):
    monkeypatch.setattr(train.run, "pretrain", failing(ValueError("ours")))
    with pytest.raises(ValueError, match="ours"):
        main(["pretrain", "amd.small_k400", "--data", "videos"])


def test_another_process_says_which_one_it_is(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    assert main(["recipes", "xyz"]) == 2
    assert capsys.readouterr().err.startswith("vidstill (process 3): no recipe matches")


# ---- For programs ---------------------------------------------------------------------------------------------------


def test_the_recipes_are_listed_for_programs_too(capsys):
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == list(load_recipes())
    assert {each["verb"] for each in listed} == {"pretrain", "finetune", "detect train"}


def test_one_recipe_is_shown_for_programs_too(capsys):
    assert main(["recipes", "--show", "amd.small_k400", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"]["pairs"] == [[6, 12], [12, 24]]


def test_one_recipe_is_shown_with_its_values_and_their_source(capsys):
    assert main(["recipes", "--show", "amd.small_k400"]) == 0
    printed = capsys.readouterr().out
    assert "--method.pairs" in printed
    assert "small_k400 = replace(" in printed


def test_made_clips_can_be_inspected(tmp_path, capsys):
    made = f"{tmp_path}/clips --train 2 --val 2 --unlabelled 0 --frames 4 --size 16 16 --classes left right"
    assert main(["data", "make", *made.split()]) == 0
    assert f"made: {tmp_path}/clips" in capsys.readouterr().out
    assert main(["data", "inspect", f"{tmp_path}/clips", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"]["train"]["classes"] == {"left": 1, "right": 1}
    assert found["sizes"] == {"16x16": 4}
    assert main(["data", "inspect", f"{tmp_path}/clips"]) == 0
    assert "train: 2 videos in 2 classes, 1 each" in capsys.readouterr().out


def test_the_doctor_finds_what_the_quickstart_needs(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["encoders"]["libx264"]
    assert found["decoders"]["h264"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["precision"] in ("bf16", "fp32")
