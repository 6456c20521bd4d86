"""Recipes of the user's own: from a file, a module, a run, a JSON file; and what cannot be one."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import TEACHER, make_data

from vidstill.cli.main import main
from vidstill.cli.recipes import parse_recipe_command
from vidstill.cli.train import finetune_command, pretrain_command
from vidstill.data.transforms.crop import MultiScaleCrop
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.engine.optimizer import SGDConfig
from vidstill.methods.common.masking import RandomMask
from vidstill.pipelines.train.auto import prepare_auto_run
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe, find_recipe
from vidstill.recipes.sources import load_own_recipes, load_variable, name_run, open_recipe
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

RECIPES = """
from dataclasses import replace

from vidstill.recipes import quickstart as like
from vidstill.recipes.quickstart import teacher
from vidstill.methods.common.masking import RandomMask

number = 3
# What a mask at random does to the teacher.
mine = replace(teacher, method=replace(like.teacher.method, mask=RandomMask(ratio=0.8)))
"""

MASK = """
from dataclasses import dataclass

import torch

from vidstill.methods.common.masking import build_mask


@dataclass(frozen=True, kw_only=True)
class Checker:
    ratio: float = 0.5
    phase: int = 0

    def draw(self, seeds, grid):
        order = torch.arange(grid.num_tokens, device=seeds.device).expand(len(seeds), -1)
        return build_mask(order.roll(self.phase, 1), grid.num_tokens // 2)


@dataclass(frozen=True)
class NoMask:
    ratio: float = 0.5


class NoDataclass:
    def draw(self, seeds, grid): ...


def draw(seeds, grid): ...
"""

QUICKSTART = find_recipe("quickstart.teacher")
MINE = replace(QUICKSTART, method=replace(QUICKSTART.method, mask=RandomMask(ratio=0.8)))


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """The current directory; modules of the user's own are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith(str(tmp_path)):
            del sys.modules[name]


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def make_package():
    """A package whose recipe has a mask of another of its modules."""
    write("gist/__init__.py", "")
    write("gist/mask.py", MASK)
    recipe = "mine = replace(teacher, method=replace(like.teacher.method, mask=Checker(phase=3)))"
    write("gist/recipe.py", f"from gist.mask import Checker\n{RECIPES.rpartition('mine =')[0]}{recipe}\n")


def test_a_recipe_is_a_variable_of_a_file(directory):
    write("my_recipes.py", RECIPES)
    write("other/elsewhere.py", RECIPES)
    assert open_recipe("my_recipes.py:mine") == MINE
    assert open_recipe(f"{directory}/my_recipes.py:mine") == MINE
    assert open_recipe("other/elsewhere.py:mine") == MINE
    assert open_recipe("my_recipes.py") == MINE  # its one recipe: the teacher is imported
    assert open_recipe("my_recipes.py:teacher") == QUICKSTART


def test_a_file_imports_its_neighbours_and_no_file_replaces_an_installed_module(directory):
    write("work/helper.py", "RATIO = 0.8")
    write("work/einops.py", "raise RuntimeError('the wrong one')")
    write("work/mine.py", f"import einops\nfrom helper import RATIO\n{RECIPES.replace('0.8', 'RATIO')}")
    assert open_recipe("work/mine.py:mine") == MINE


def test_a_recipe_is_a_variable_of_an_importable_module():
    make_package()
    recipe = open_recipe("gist.recipe:mine")
    assert (recipe.method.mask.phase, type(recipe.method.mask).__module__) == (3, "gist.mask")
    assert open_recipe("vidstill.recipes.quickstart:teacher") is QUICKSTART


@pytest.mark.parametrize("source", ["quickstart.teacher", "my_recipes.py:mine", "gist.recipe:mine"])
def test_what_is_printed_as_json_is_that_recipe_again(source, capsys):
    write("my_recipes.py", RECIPES)
    make_package()
    assert main(["recipes", "--show", source, "--json"]) == 0
    write("printed.json", capsys.readouterr().out)
    assert open_recipe("printed.json") == open_recipe(source)


@pytest.mark.parametrize("name", ["amd.base_k400", "videomae.base_k400_finetune", "amd.base_ava"])
def test_recipes_of_all_verbs_are_printed_and_read_as_json(name, capsys):
    assert main(["recipes", "--show", name, "--json"]) == 0
    write("printed.json", capsys.readouterr().out)
    assert open_recipe("printed.json") == find_recipe(name)


def test_a_run_directory_and_its_file_are_recipes_and_a_finished_runs_command_resumes_it(capsys):
    make_data(Path("clips"))
    write("my_masks.py", MASK)
    mask = "--method.mask my_masks.py:Checker --schedule.epochs 2"
    command = f"{TEACHER} {mask} --data clips/unlabelled.txt --out runs/first".split()
    assert main(command) == 0
    recipe = open_recipe("runs/first")
    assert recipe == open_recipe("runs/first/recipe.json")
    assert to_dict(recipe.method.mask)["class"] == "my_masks:Checker"
    capsys.readouterr()
    assert main(command) == 0
    assert "holds the finished run" in capsys.readouterr().err
    assert main(["pretrain", "runs/first", "--workers", "0", "--data", "clips/unlabelled.txt"]) == 0  # its own command
    assert "runs/first holds the finished run" in capsys.readouterr().err
    assert main(["pretrain", "runs/first", "--workers", "0", "--data", "clips/unlabelled.txt", "--out", "again"]) == 0
    assert open_recipe("again") == recipe


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("amd.small-k400", "amd.small-k400"),
        ("my_recipes.py:mine", "my_recipes.mine"),
        ("/home/me/my_recipes.py", "my_recipes"),
        ("gist.recipe:mine", "gist.recipe.mine"),
        ("runs/first", "first"),
        ("runs/first/", "first"),
        ("runs/first/recipe.json", "first"),
        ("amd.small_k400", "amd.small_k400"),
        ("other/printed.json", "printed"),
    ],
)
def test_the_default_run_directory_has_the_name_of_the_recipe(source, name):
    assert name_run(source) == name


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("my_recipes.py:mien", r"my_recipes.py has no recipe 'mien'; give one of my_recipes.py:mine$"),
        ("my_recipes.py:number", r"my_recipes.py has no recipe 'number'; give one of my_recipes.py:mine$"),
        ("two.py", r"two.py has several recipes; give one of two.py:mine, two.py:other$"),
        ("none.py:mine", r"none.py has no recipe 'mine'; it defines none$"),
        ("none.py", r"none.py has no recipe; it defines none$"),
        ("absent.py:mine", r"there is no file absent.py$"),
        ("broken.py:mine", r"broken.py cannot be imported: line 3, ZeroDivisionError: division by zero$"),
        ("syntax.py:mine", r"syntax.py cannot be imported: SyntaxError: .*line 2"),
        ("exit.py:mine", r"exit.py cannot be imported: line 1, SystemExit: 3"),
        ("invalid.py:mine", r"invalid.py cannot be imported: line 3, seed is -1; take 0 to"),
        ("needs.py:mine", r"needs.py cannot be imported: line 1, ModuleNotFoundError: No module named 'not_installed'"),
        (
            "pkg/relative.py:mine",
            r"cannot be imported: .*relative import.*it is part of a package: give package.module",
        ),
        ("math.py:mine", r"math.py has the name of another module, .*; rename it$"),
        ("json.py:mine", r"json.py has the name of another module, .*/json/__init__.py; rename it$"),
        ("dotted.name.py:mine", r"dotted.name.py cannot be imported; rename it to dotted_name.py$"),
        ("not_there.recipe:mine", r"there is no module not_there.recipe here; install its package, or run in its dir"),
        ("vidstill.recipes.quickstart:techer", r"vidstill.recipes.quickstart has no recipe 'techer'"),
        ("empty", r"there is no file empty/recipe.json; give a run directory, or another recipe$"),
        ("absent.json", r"there is no file absent.json"),
        ("damaged.json", r"damaged.json holds no recipe; `vidstill recipes --show NAME --json > FILE.json` writes one"),
        ("list.json", r"list.json holds no recipe"),
        ("embedded.json", r"embedded.json holds no recipe"),
        ("classless.json", r"classless.json holds no recipe"),
        ("encoder.json", r"encoder.json holds no recipe"),
        ("misspelt.json", r"misspelt.json: PretrainRecipe has no field 'bacth'; near are batch"),
        (
            "model.safetensors",
            r"model.safetensors is no recipe; give a name, a run directory, a .json file, or FILE.py",
        ),
        ("my_recipes", r"there is no recipe 'my_recipes'; one of your own is my_recipes.py:NAME$"),
        ("my_recipes.mine", r"there is no recipe 'my_recipes.mine'; one of your own is my_recipes.py:mine$"),
        ("pkg.relative.mine", r"there is no recipe 'pkg.relative.mine'; one of your own is pkg.relative:mine$"),
        ("runs/absent", r"there is no directory or file runs/absent$"),
        ("quickstart.techer", r"there is no recipe 'quickstart.techer'; near are quickstart.teacher"),
    ],
)
@pytest.mark.parametrize("verb", ["pretrain", "recipes --show", "weights inspect x.pth --hint"])
def test_what_is_no_recipe_is_named_in_one_sentence(source, sentence, verb, capsys):
    write("my_recipes.py", RECIPES)
    write("two.py", f"{RECIPES}other = replace(mine, seed=1)\n")
    write("none.py", "number = 3\n")
    write("broken.py", "\n\n1 / 0\n")
    write("syntax.py", "\nmine = (\n")
    write("exit.py", "raise SystemExit(3)\n")
    write(
        "invalid.py",
        "from dataclasses import replace\nfrom vidstill.recipes.quickstart import teacher\n"
        "mine = replace(teacher, seed=-1)\n",
    )
    write("needs.py", "import not_installed\n")
    write("pkg/relative.py", "from .mask import Checker\n")
    write("math.py", RECIPES)
    write("json.py", RECIPES)
    write("dotted.name.py", RECIPES)
    write("empty/file", "")
    write("damaged.json", "{")
    write("list.json", "[1]")
    write("embedded.json", '{"recipe": 3}')
    write("classless.json", '{"recipe": {"batch": 3}}')
    write("encoder.json", json.dumps({"recipe": to_dict(QUICKSTART.method.encoder)}))
    write("misspelt.json", json.dumps({"recipe": {**to_dict(QUICKSTART), "bacth": 3}}))
    write("model.safetensors", "")
    with pytest.raises(InputError, match=sentence):
        open_recipe(source)
    assert main([*verb.split(), source]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("vidstill: ")


def test_a_recipe_of_another_verb_is_named_with_its_command(capsys):
    write("my_recipes.py", RECIPES)
    assert main(["finetune", "my_recipes.py:mine", "--data", "x"]) == 2
    assert "type vidstill pretrain my_recipes.py:mine" in capsys.readouterr().err


def test_a_files_recipes_are_listed_and_shown_with_their_source(capsys):
    write("my_recipes.py", RECIPES)
    assert main(["recipes", "my_recipes.py"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["pretrain", "my_recipes.py:mine"]
    assert main(["recipes", "none.py"]) == 2
    assert main(["recipes", "--show", "my_recipes.py:mine"]) == 0
    shown = capsys.readouterr().out
    assert "--method.mask.ratio" in shown
    assert "# What a mask at random does to the teacher.\nmine = replace(teacher" in shown
    assert "teacher = PretrainRecipe(" in shown  # of quickstart.py, which it refers to
    assert "number = 3" not in shown
    assert load_own_recipes("my_recipes.py") == {"my_recipes.py:mine": MINE}


def test_a_recipe_names_the_encoder_of_a_weights_file(capsys):
    from vidstill.cli.weights import find_encoder

    write("my_recipes.py", RECIPES)
    assert find_encoder("my_recipes.py:mine") == MINE.method.encoder


CHECKER = {"class": "my_masks:Checker", "ratio": 0.4, "phase": 1}


def with_mask(mask):
    recipe = to_dict(QUICKSTART)
    return {**recipe, "method": {**recipe["method"], "mask": mask}}


def test_a_recipe_that_the_user_names_may_have_dataclasses_of_other_modules_and_a_weights_file_may_not():
    write("my_masks.py", MASK)
    write("mine.json", json.dumps({"recipe": with_mask(CHECKER)}))
    assert to_dict(open_recipe("mine.json").method.mask) == CHECKER
    with pytest.raises(InputError, match="which is not vidstill's; the file is not to be trusted"):
        from_dict(PretrainRecipe, with_mask(CHECKER))


@pytest.mark.parametrize("mask", [None, 3, "random", [], "my_masks.py:Checker"])
def test_what_a_recipe_has_for_a_mask_is_one(mask):
    write("my_masks.py", MASK)
    write("mine.json", json.dumps({"recipe": with_mask(mask)}))
    with pytest.raises(InputError, match=r"method\.mask is .*; it must be a MaskConfig"):
        open_recipe("mine.json")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("os:system", "which no module here defines"),
        ("antigravity:fly", "which no module here defines"),
        ("marker:touch", "which no module here defines"),
        ("marker:Mask", "which no module here defines"),
        ("pkg.marker:Mask", "which no module here defines"),
        ("marker", "which no module here defines"),
        ("my_masks:torch", "which no module here defines"),
        ("absent:Mask", "which no module here defines; run in the directory of its file, or install its package"),
        ("my_masks:NoDataclass", "which is not a configuration"),
        ("my_masks:NoMask", "which is not allowed there"),
        ("raises:Mask", "raises cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_a_hostile_recipe_imports_no_module_but_one_that_defines_its_class(directory, name, sentence):
    """A module is imported if its source says that it has the class; nothing else in a JSON file can run anything."""
    touch = f"open({str(directory / 'touched')!r}, 'w')\n"
    write("my_masks.py", MASK)
    write("marker.py", f"{touch}def touch(): ...\n")
    write("pkg/__init__.py", touch)
    write("pkg/marker.py", f"{touch}def touch(): ...\n")
    write("raises.py", "class Mask:\n    at = 1 / 0\n")
    write("hostile.json", json.dumps({"recipe": with_mask({"class": name})}))
    with pytest.raises(InputError, match=sentence):
        open_recipe("hostile.json")
    assert not (directory / "touched").exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("where", ["my_masks.py", "my_masks"])
def test_a_mask_of_ones_own_is_a_kind_and_keeps_the_ratio(where, capsys):
    write("my_masks.py", MASK)
    options = ["--method.mask", f"{where}:Checker"]
    args = ["videomae.base-k400", "--data", "x", *options, "--method.mask.phase", "2"]
    recipe, *_ = parse_recipe_command(pretrain_command, "pretrain", args).args
    assert to_dict(recipe.method.mask) == {"class": "my_masks:Checker", "ratio": 0.9, "phase": 2}
    assert main(["pretrain", "videomae.base_k400", *options, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--method.mask {random,tube,space,frame,slot,cuboid,FILE.py:CLASS} kind; its fields follow" in text
    assert "--method.mask.phase INT (default: 0)" in text
    assert "--method.mask.ratio FLOAT (default: 0.9)" in text


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("my_masks.py:Cheker", "my_masks.py has no 'Cheker'; near are Checker"),
        ("my_masks.py:NoMask", r"my_masks.py:NoMask cannot be --method.mask; it must be a dataclass with the method"),
        ("my_masks.py:NoDataclass", r"my_masks.py:NoDataclass cannot be --method.mask; it must be a dataclass"),
        ("my_masks.py:draw", r"my_masks.py:draw cannot be --method.mask; it must be a dataclass"),
        ("absent.py:Checker", "there is no file absent.py"),
        ("my_masks.py", "there is no --method.mask 'my_masks.py'; it takes random, tube"),
        (
            "tubes",
            "there is no --method.mask 'tubes'; it takes random, tube, space, frame, slot, cuboid, FILE.py:CLASS",
        ),
        ("None", "there is no --method.mask 'None'; it takes random"),
    ],
)
def test_what_is_no_mask_is_named_in_one_sentence(kind, sentence, capsys):
    write("my_masks.py", MASK)
    assert main(["pretrain", "videomae.base_k400", "--data", "x", "--method.mask", kind]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"vidstill: {sentence}")


def test_a_recipe_made_for_the_data_takes_kinds_too(capsys):
    make_data(Path("clips"))
    typed = "--optim sgd --optim.momentum 0.8 --clips.sampling dense --clips.crop multi_scale"
    args = f"auto --data clips {typed}".split()
    _, run_config, init, changes = parse_recipe_command(finetune_command, "finetune", args).args
    recipe = prepare_auto_run(run_config, init, changes).recipe
    assert recipe.optim == SGDConfig(
        **{name: getattr(recipe.optim, name) for name in ("base_lr", "weight_decay")},
        min_lr=0.0,
        max_grad_norm=1.0,
        momentum=0.8,
    )
    assert recipe.clips.sampling == DenseSampling(num_frames=recipe.views.sampling.num_frames)
    assert recipe.clips.crop == MultiScaleCrop()
    assert main(["finetune", *args, "--optim", "adam"]) == 2
    assert "there is no --optim 'adam'; it takes adamw, sgd, lars" in capsys.readouterr().err


WRONG_MASKS = """
from dataclasses import dataclass
import torch
from vidstill.methods.common.masking import Mask


@dataclass(frozen=True)
class Twice:
    def draw(self, seeds, grid):
        tokens = torch.arange(grid.num_tokens).expand(len(seeds), -1)
        return Mask(tokens[:, :9], tokens[:, 8:])


@dataclass(frozen=True)
class Outside:
    def draw(self, seeds, grid):
        tokens = torch.arange(grid.num_tokens + 1).expand(len(seeds), -1)
        return Mask(tokens[:, :8], tokens[:, 8:])


@dataclass(frozen=True)
class Scores:
    def draw(self, seeds, grid):
        return torch.rand(len(seeds), grid.num_tokens)


@dataclass(frozen=True)
class Part:  # neither encoded nor reconstructed: half of the tokens
    def draw(self, seeds, grid):
        tokens = torch.arange(grid.num_tokens).expand(len(seeds), -1)
        return Mask(tokens[:, :8], tokens[:, 8 : grid.num_tokens // 2])
"""


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("Twice", "Twice draws tokens that are visible and masked, or that are none of a clip's 32; return build_mask"),
        ("Outside", "Outside draws tokens that are visible and masked, or that are none of a clip's 32"),
        ("Scores", "Scores.draw returns a Tensor; it must return a Mask, as build_mask makes it"),
        ("Part", ""),
    ],
)
def test_a_mask_of_ones_own_that_draws_no_mask_is_refused_before_a_run_directory_is_made(kind, sentence, capsys):
    make_data(Path("clips"))
    write("my_masks.py", WRONG_MASKS)
    command = f"{TEACHER} --method.mask my_masks.py:{kind} --schedule.epochs 2 --data clips/unlabelled.txt --out run"
    assert main(command.split()) == (2 if sentence else 0)
    assert sentence in capsys.readouterr().err
    assert Path("run").exists() == (not sentence)


def test_a_variable_is_loaded_from_a_file_or_module():
    write("my_masks.py", MASK)
    assert load_variable("my_masks.py:Checker") is load_variable("my_masks:Checker")


def test_fine_tuning_recipes_of_ones_own_are_recipes_too():
    write(
        "fine.py",
        "from dataclasses import replace\nfrom vidstill.recipes.quickstart import finetune\n"
        "mine = replace(finetune, dropout=0.3)\n",
    )
    recipe = open_recipe("fine.py")
    assert isinstance(recipe, FinetuneRecipe)
    assert recipe == replace(find_recipe("quickstart.finetune"), dropout=0.3)
