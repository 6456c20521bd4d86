"""The pages say what is true: their links lead somewhere, their commands parse, their recipes and fields are there."""

import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
from paths import PROJECT
from tiny_runs import FINETUNE, TEACHER, about, log, make_data, run

from vidstill.cli.main import main
from vidstill.recipes.recipe import load_recipes
from vidstill.utils.files import TEST_FILE

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
METHODS, FIDELITY, EXTENDING = (PROJECT / "docs" / f"{name}.md" for name in ("methods", "fidelity", "extending"))
METHOD_FILES = [
    path for path in sorted((PROJECT / "src/vidstill/methods").glob("[a-z]*.py")) if not path.stem.endswith("_losses")
]
FAMILIES = sorted(
    {name.split(".")[0] for name in load_recipes()} | {p.stem for p in (PROJECT / "docs/methods").glob("*.svg")}
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


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda path: path.stem)
def test_every_method_has_its_section_with_a_figure_its_file_and_its_recipes(path):
    source = "../src/vidstill"
    assert {f"methods/{path.stem}.svg", f"{source}/methods/{path.name}", f"{source}/recipes/{path.name}"} <= set(
        links(METHODS)
    )


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
    if line[1] != "auto"  # which looks at the data
]


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """The verbs read their options and do nothing."""

    def skip(*args, **options):
        (tmp_path / TEST_FILE).write_text('{"top1": 0.5}')
        return tmp_path

    for work in ("pretrain.run_pretraining", "finetune.run_finetuning"):
        monkeypatch.setattr(f"vidstill.pipelines.train.{work}", skip)
    result = SimpleNamespace(to_dict=lambda: {"top1": 0.5})
    monkeypatch.setattr("vidstill.pipelines.evaluate.classifier.evaluate_classifier", lambda *args, **options: result)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.usefixtures("no_work")
def test_every_command_of_the_pages_can_be_read(line):
    assert main(line) == 0


# ---- Recipes --------------------------------------------------------------------------------------------------------


def recipes_in(text):
    names = re.findall(rf"(?:`|pretrain |finetune )((?:{'|'.join(FAMILIES)})\.[a-z0-9_-]++)(?![*…])", text)
    return sorted({name.replace("-", "_") for name in names if not name.endswith(".py")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_recipe_that_a_page_names_is_there(page):
    text = page.read_text()
    assert [name for name in recipes_in(text) if name not in load_recipes()] == []
    assert re.findall(rf"`(?:{'|'.join(FAMILIES)})\.[^`]*…", text) == []  # no place is held for a name


# ---- Fields ---------------------------------------------------------------------------------------------------------

NAMES = {"VideoMAE": "videomae", "AMD": "amd", "Image MAE": "imagemae", "ST-MAE": "stmae"}
NAMES |= {"MVD": "mvd", "MaskAgain": "maskagain", "DMAE": "dmae"}


def choices():
    """The page's rows: for each field in the last column its section's recipes, and the values beside it."""
    for section in FIDELITY.read_text().split("\n## ")[1:]:
        title, *lines = section.splitlines()
        recipes = {n: r for n, r in load_recipes().items() if n.split(".")[0] == NAMES.get(title, n.split(".")[0])}
        for what, *_, last in (line.strip("| ").split(" | ") for line in lines if line.startswith("| ")):
            beside = re.sub(r" ?\([^)]*\)", "", last)
            for name, values in re.findall(r"`([^`]+)`(?:: ((?:`[^`]+`(?:, )?)+))?", beside):
                if not name.startswith("--") and name not in recipes:
                    yield pytest.param(recipes, name, re.findall("`([^`]+)`", values), id=f"{title}, {what}: {name}")


def find_type(config: Any, path: list[str]) -> Any:
    """The type that a field is stated with, however deep in a configuration; None where it is not there."""
    name, *rest = path
    if not is_dataclass(config) or name not in {field.name for field in fields(config)}:
        return None
    return find_type(getattr(config, name), rest) if rest else get_type_hints(type(config))[name]


def literal_values(kind: Any) -> set[Any]:
    """The literals that a field may have."""
    return {kind} if isinstance(kind, str) else set().union(*(literal_values(each) for each in get_args(kind)))


@pytest.mark.parametrize(("recipes", "name", "values"), list(choices()))
def test_a_field_that_chooses_between_paper_and_code_is_there_and_takes_the_values_beside_it(recipes, name, values):
    of_all = load_recipes() if not name.startswith("method.") else recipes  # fine-tunings are not of every family
    kinds = [kind for recipe in of_all.values() if (kind := find_type(recipe, name.split("."))) is not None]
    assert kinds
    assert set(values) <= set().union(*map(literal_values, kinds))


def options():
    """The options that the page names in its last two columns, and values that are said to be kinds of a part."""
    for line in FIDELITY.read_text().splitlines():
        if line.startswith("| "):
            what, *_, here, last = line.strip("| ").split(" | ")
            for option, value in re.findall(r"(--[a-z][\w.-]*)(?: ([a-z-]+)`)?", f"{here} {last}"):
                yield pytest.param(option, value, id=f"{what}: {option}")


@pytest.fixture(scope="module")
def helps():
    """What the verbs say of their options."""
    lines = ("pretrain amd.base_k400", "finetune mvd.base_k400_finetune", "probe linear")
    texts = []
    for line in lines:
        with redirect_stdout(io.StringIO()) as text:
            assert main([*line.split(), "--help"]) == 0
        texts.append(re.sub(r"\s+", " ", text.getvalue()))
    return texts


@pytest.mark.parametrize(("option", "value"), list(options()))
def test_an_option_that_chooses_between_paper_and_code_is_one_of_a_verb_s(helps, option, value):
    shown = [re.search(rf"(?<![\w-]){option} (.{{0,150}})", text) for text in helps]
    assert any(shown)
    assert any(value in each[1] for each in shown if each), f"{option} {value}"


# ---- A method of your own -------------------------------------------------------------------------------------------

_TINY = (
    "--workers 0 --precision fp32 --clips.size 16 16 --clips.sampling.num-frames 4 --batch 8 --schedule.epochs 2 "
    "--method.encoder.dim 24 --method.encoder.depth 2 --method.encoder.heads 2 --method.encoder.tubelet 2 4 4 "
    "--method.encoder.positions sinusoid"
)


def test_the_page_s_own_file_is_listed_trained_and_fine_tuned_as_the_page_says(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("gist.py").write_text(re.search(r"```python\n(.*?)```", EXTENDING.read_text(), flags=re.DOTALL)[1])
    make_data(Path("clips"))
    run(TEACHER, data="clips/unlabelled.txt", out="runs/teacher")
    listed, pretrained, masked, fine_tuned = typed_in(EXTENDING)
    capsys.readouterr()
    try:
        assert main(listed) == 0
        assert capsys.readouterr().out.split()[:2] == ["pretrain", "gist.py:student"]
        assert main([*pretrained, *_TINY.split()]) == 0
        assert len(log(Path("runs/gist.student"))) == 4  # steps: 16 clips in eights, twice
        assert main([*masked, *_TINY.split()]) == 0
    finally:
        sys.modules.pop("gist", None)
    Path("gist.py").unlink()
    assert main([*fine_tuned, *FINETUNE.split()[2:]]) == 0
    assert "gist.student" in about(Path("runs/quickstart.finetune"))["provenance"][0]["source"]


def test_the_page_on_a_method_of_your_own_has_fewer_than_75_lines():
    assert len(EXTENDING.read_text().splitlines()) < 75
