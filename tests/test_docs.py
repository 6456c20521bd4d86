"""The pages say what is true: their links lead somewhere, their commands parse, their recipes and fields are there."""

import ast
import importlib
import re
import shlex
import sys
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vidstill.methods
import vidstill.recipes
from tiny_runs import FINETUNE, TEACHER, about, log, make_data, run
from vidstill import commands
from vidstill.cli import main
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViT
from vidstill.pretext.cuboids import CuboidMask
from vidstill.pretext.masks import FrameMask, Mask, NestedTubeMask, RandomMask, SpaceMask, TubeMask
from vidstill.pretext.teachers import Frozen
from vidstill.recipes.recipe import every_recipe, find

HOUSE = Path(__file__).parents[1]
PAGES = [HOUSE / "README.md", HOUSE / "CONTRIBUTING.md", *sorted((HOUSE / "docs").glob("*.md"))]
METHODS, EXTENDING = HOUSE / "docs" / "methods.md", HOUSE / "docs" / "extending.md"
FAMILIES = sorted(
    {name.split(".")[0] for name in every_recipe()} | {p.stem for p in (HOUSE / "docs/methods").glob("*.svg")}
)

# ---- Links ----------------------------------------------------------------------------------------------------------


def anchors(page):
    """The places of a page that a link can lead to, as GitHub names its headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def links(page):
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", sorted((HOUSE / "src/vidstill/methods").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_every_method_has_its_section_with_a_figure_its_file_and_its_recipes(path):
    found = links(METHODS)
    for link in (
        f"methods/{path.stem}.svg",
        f"../src/vidstill/methods/{path.name}",
        f"../src/vidstill/recipes/{path.name}",
    ):
        assert link in found


# ---- Figures --------------------------------------------------------------------------------------------------------


def test_the_figures_are_those_that_the_script_draws_of_the_methods_own_masks(monkeypatch):
    monkeypatch.syspath_prepend(HOUSE / "scripts")
    script = importlib.import_module("method_figures")
    there = {path.stem: path.read_text() for path in (HOUSE / "docs" / "methods").glob("*.svg")}
    assert there == {name: script.drawn(figure) for name, figure in script.FIGURES.items()}


def test_no_word_of_a_figure_is_smaller_than_11_pixels():
    for path in (HOUSE / "docs" / "methods").glob("*.svg"):
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', path.read_text())]
        assert min(sizes) >= 11, path


# ---- Commands -------------------------------------------------------------------------------------------------------


def typed_in(page):
    """The command lines of a page's shell blocks, without what stands behind `#`."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line[:1] == ["vidstill"]]


LINES = [
    pytest.param(line, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, line in enumerate(typed_in(page), start=1)
    if line[0] in ("pretrain", "finetune", "evaluate") and page != EXTENDING  # whose lines are run, below
]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What would have been run, by a command line that is only read."""
    calls = []

    def note(recipe, launch, **more):
        calls.append(recipe)
        (tmp_path / commands.run.TEST_FILE).write_text('{"top1": 0.5}')
        return tmp_path

    for verb in ("pretrain", "finetune"):
        monkeypatch.setattr(commands.run, verb, note)
    monkeypatch.setattr(commands.run, "evaluate", lambda *given: SimpleNamespace(plain=lambda: {"top1": 0.5}))
    return calls


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_pages_can_be_read(line, started):
    assert main(line) == 0


# ---- Recipes and fields ---------------------------------------------------------------------------------------------


def recipes_in(text):
    names = re.findall(rf"(?:`|pretrain |finetune )((?:{'|'.join(FAMILIES)})\.[a-z0-9_-]++)(?![*…])", text)
    return sorted({name.replace("-", "_") for name in names if not name.endswith(".py")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_recipe_that_a_page_names_is_there(page):
    assert [name for name in recipes_in(page.read_text()) if name not in every_recipe()] == []


def rows():
    """The tables of ablations: for each row the recipe that it changes, its settings, and the recipe that has them."""
    base = ""
    for line in METHODS.read_text().partition("## Which field")[2].splitlines():
        if stated := re.match(r"On `([\w.]+)`", line):
            base = stated[1]
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] not in ("table", "---"):
            yield pytest.param(
                base, re.findall(r"`([^`]+)`", cells[1]), cells[3].strip("`| "), id=cells[3].strip("`| ")
            )


_WORDS = (CuboidMask, DecoderConfig, FrameMask, NestedTubeMask, RandomMask, SpaceMask, TubeMask)


def value_of(text):
    """A setting's value, as Python has it."""
    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call):
        return ast.literal_eval(text)
    [kind] = [word for word in _WORDS if word.__name__ == call.func.id]
    return kind(**{each.arg: ast.literal_eval(each.value) for each in call.keywords})


def changed(config: Any, path: list[str], value: Any) -> Any:
    """A configuration with one field set, however deep in it."""
    name, *rest = path
    assert name in {field.name for field in fields(config)}, f"{type(config).__name__} has no field {name}"
    return replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


@pytest.mark.parametrize(("base", "settings", "name"), list(rows()))
def test_a_row_of_the_ablations_makes_its_recipe_of_the_one_above(base, settings, name):
    recipe = find(base)
    for setting in settings:
        path, _, text = setting.partition("=")
        recipe = changed(recipe, path.split("."), value_of(text))
    assert replace(recipe, expects="") == replace(find(name), expects="")


@pytest.mark.parametrize("section", METHODS.read_text().split("\n### ")[1:], ids=lambda section: section.split("'")[0])
def test_every_field_that_is_named_beside_the_rows_is_there(section):
    recipe = find(re.search(r"^On `([\w.]+)`", section, flags=re.MULTILINE)[1])
    for path in re.findall(r"`((?:method|clips|schedule|optim)(?:\.\w+)+)`", section):
        attrgetter(path)(recipe)


# ---- What a clip costs ----------------------------------------------------------------------------------------------


def costs():
    for line in METHODS.read_text().partition("## Which field")[0].splitlines():
        if found := re.match(r"\| `([\w.]+)` \|(.*)\|", line):
            numbers = [float(number) if number != "–" else 0.0 for number in re.findall(r"[\d.]+|–", found[2])]
            yield pytest.param(found[1], numbers[:3], numbers[3:], id=found[1])


@pytest.mark.parametrize(("name", "tokens", "work"), list(costs()))
def test_a_clip_costs_what_the_page_says(name, tokens, work, monkeypatch):
    recipe = find(name)
    spent, looked = {"student": 0, "teachers": 0}, [0]

    def counted(of, what):
        def call(self, clip, visible=None, **asked):
            before = counter.get_total_flops()
            given = what(self, clip, visible, **asked)
            spent[of] += counter.get_total_flops() - before
            if of == "teachers":
                looked.append(grid.tokens if visible is None else visible.shape[1])
            return given

        return call

    monkeypatch.setattr(ViT, "forward", counted("student", ViT.forward))
    monkeypatch.setattr(Frozen, "look", counted("teachers", Frozen.look))
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        method = recipe.method.build().eval().requires_grad_(False)
        clip = torch.empty(1, 3, recipe.clips.sampling.frames, *recipe.clips.size)
        grid = method.encoder.grid(clip)
        mask = recipe.method.mask.draw(torch.zeros(1, dtype=torch.long, device="cpu"), grid)
        extra = None if mask.extra is None else mask.extra.to("meta")
        method(clip, mask=Mask(mask.visible.to("meta"), mask.masked.to("meta"), extra))
    rest = counter.get_total_flops() - sum(spent.values())
    assert [grid.tokens, mask.visible.shape[1], max(looked)] == tokens
    assert [part / 2e9 for part in (spent["student"], rest, spent["teachers"])] == pytest.approx(work, abs=0.051)


# ---- A method of your own -------------------------------------------------------------------------------------------

_TINY = (
    "--workers 0 --precision fp32 --clips.size 16 16 --clips.sampling.frames 4 --batch 8 --schedule.epochs 2 "
    "--method.encoder.dim 24 --method.encoder.depth 2 --method.encoder.heads 2 --method.encoder.tubelet 2 4 4 "
    "--method.encoder.positions sinusoid"
)


@pytest.fixture
def eighth(monkeypatch, tmp_path):
    """The page's two files, each in a folder that its package looks into as well."""
    packages = {"methods": vidstill.methods, "recipes": vidstill.recipes}
    blocks = re.findall(
        r"`src/vidstill/(\w+)/(gist\.py)`.*?```python\n(.*?)```", EXTENDING.read_text(), flags=re.DOTALL
    )
    assert [room for room, _, _ in blocks] == list(packages)
    for room, file, text in blocks:
        (tmp_path / "house" / room).mkdir(parents=True)
        (tmp_path / "house" / room / file).write_text(text)
        monkeypatch.setattr(packages[room], "__path__", [*packages[room].__path__, str(tmp_path / "house" / room)])
    yield
    for room, package in packages.items():
        sys.modules.pop(f"vidstill.{room}.gist", None)
        vars(package).pop("gist", None)


def test_the_page_s_own_method_is_listed_trained_and_fine_tuned_as_the_page_says(eighth, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    make_data(Path("runs/quickstart/clips"))
    run(TEACHER, data="runs/quickstart/clips/unlabelled.txt", out="runs/quickstart/teacher")
    listed, pretrained, fine_tuned = typed_in(EXTENDING)
    capsys.readouterr()
    assert main(listed) == 0
    assert capsys.readouterr().out.split()[:2] == ["pretrain", "gist.student"]
    assert main([*pretrained, *_TINY.split()]) == 0
    assert len(log(Path("runs/gist.student"))) == 4  # steps: 16 clips in eights, twice
    assert main([*fine_tuned, *FINETUNE.split()[2:]]) == 0
    assert "gist.student" in about(Path("runs/quickstart.finetune"))["provenance"][0]["source"]


def test_the_page_on_a_method_of_your_own_has_fewer_than_60_lines():
    assert len(EXTENDING.read_text().splitlines()) < 60
