"""docs/extending.md is true for someone who installed with pip: a recipe, a method and a mask of their own package."""

import json
import os
import re
import subprocess
import sys

import pytest
from paths import PROJECT
from tiny_runs import FINETUNE, TEACHER, make_data

PAGE = PROJECT / "docs" / "extending.md"

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "gist"
version = "1"
"""

TINY = (
    "--workers 0 --precision fp32 --clips.size 16 16 --clips.sampling.num-frames 4 --batch 8 --schedule.epochs 2 "
    "--method.encoder.dim 24 --method.encoder.depth 2 --method.encoder.heads 2 --method.encoder.tubelet 2 4 4 "
    "--method.encoder.positions sinusoid"
)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Directories that pip has installed into: vidstill, and a package of one's own."""
    pytest.importorskip("hatchling", reason="pip builds the wheels with it")
    root = tmp_path_factory.mktemp("own_package")
    package = root / "project" / "gist"
    package.mkdir(parents=True)
    (root / "project" / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").touch()
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)[1]
    method, recipe = code.split("student = ")
    (package / "method.py").write_text(method)
    (package / "recipe.py").write_text(
        f"from dataclasses import replace\n\nfrom gist.method import GistConfig\n"
        f"from vidstill.recipes import quickstart as like\n\nstudent = {recipe}"
    )
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    for name, project in {"site": PROJECT, "own": root / "project"}.items():
        subprocess.run([*pip, str(root / name), str(project)], check=True, capture_output=True, text=True)
    return root / "site", root / "own"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """An empty directory, where the user works."""
    return tmp_path_factory.mktemp("work")


def type_lines(paths, directory, *lines):
    """Type commands, each in the installed program; return what the last one printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    code = (
        "import sys, vidstill; from vidstill.cli.main import main\n"
        f"assert vidstill.__file__.startswith({str(paths[0])!r}), vidstill.__file__\n"
        "sys.path.remove('')\n"  # as for the program `vidstill`
        "for line in sys.argv[1:]:\n    if code := main(line.split()): sys.exit(code)"
    )
    program = [sys.executable, "-c", code, *lines]
    return subprocess.run(program, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_a_recipe_a_method_and_a_mask_of_an_installed_package_train_and_what_they_train_needs_it_no_more(
    sites, directory
):
    make_data(directory / "clips")
    pretrain = f"pretrain gist.recipe:student {TINY} --data clips/unlabelled.txt --method.teacher.checkpoint teacher"
    trained = type_lines(
        sites,
        directory,
        f"{TEACHER} --schedule.epochs 2 --data clips/unlabelled.txt --out teacher",
        f"{pretrain} --method.mask gist.method:LastMask --method.mask.ratio 0.75",
    )
    assert trained.returncode == 0, trained.stderr
    run = directory / "runs" / "gist.recipe.student"
    recipe = json.loads((run / "recipe.json").read_text())["recipe"]
    assert recipe["method"]["class"] == "gist.method:GistConfig"
    assert recipe["method"]["mask"] == {"class": "gist.method:LastMask", "ratio": 0.75}

    without = sites[:1]
    lines = [
        f"{FINETUNE} --schedule.epochs 1 --schedule.warmup-epochs 0 --data clips --init {run} --out finetuned",
        f"probe knn {run} --data clips --workers 0",
        f"weights inspect {run}",
        f"weights convert {run} --to vidstill --out encoder.safetensors",
    ]
    used = type_lines(without, directory, *lines)
    assert used.returncode == 0, used.stderr
    assert (directory / "finetuned" / "test.json").is_file()
    again = type_lines(without, directory, f"pretrain {run} --data clips/unlabelled.txt")
    assert again.returncode == 2
    assert "is of the class 'gist.method:GistConfig', which no module here defines" in again.stderr


def test_the_programs_help_lists_the_kinds_and_shows_the_fields_of_a_class_of_ones_own(sites, directory):
    program = [sites[0] / "bin" / "vidstill", "pretrain", "videomae.base_k400"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites))}
    (directory / "my_masks.py").write_text(
        "from dataclasses import dataclass\nfrom gist.method import LastMask\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Middle(LastMask):\n    width: int = 7  # tokens in the middle\n"
    )
    options = ["--method.mask", "my_masks:Middle", "--help"]  # a module of the current directory
    output = subprocess.check_output([*program, *options], cwd=directory, env=environment)
    text = " ".join(output.decode().replace("│", " ").split())
    assert "--method.mask {random,tube,space,frame,slot,cuboid,FILE.py:CLASS}" in text
    assert "--method.mask.width INT tokens in the middle (default: 7)" in text
