"""The page on the methods says what is true: its figures are drawn, its ablations are recipes, its costs counted."""

import importlib
import re
from dataclasses import replace
from operator import attrgetter

import pytest
import torch
from paths import PROJECT
from recipe_plans import change
from torch.utils.flop_counter import FlopCounterMode

from vidstill.methods.common.masking import CuboidMask, FrameMask, Mask, NestedTubeMask, RandomMask, SpaceMask, TubeMask
from vidstill.methods.common.teacher import FrozenTeacher
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViT
from vidstill.recipes.recipe import find_recipe

METHODS = PROJECT / "docs" / "methods.md"

# ---- Figures --------------------------------------------------------------------------------------------------------


def test_the_figures_are_those_that_the_script_draws_of_the_methods_own_masks(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "scripts")
    script = importlib.import_module("method_figures")
    figures = {path.stem: path.read_text() for path in (PROJECT / "docs" / "methods").glob("*.svg")}
    assert figures == {name: script.draw_figure(figure) for name, figure in script.FIGURES.items()}
    for name, svg in figures.items():
        assert min(float(size) for size in re.findall(r'font-size="([\d.]+)"', svg)) >= 11, name  # pixels


# ---- Ablations ------------------------------------------------------------------------------------------------------


def rows():
    """The tables of ablations: for each row the recipe that it changes, its settings, and the recipe that has them."""
    base = ""
    for line in METHODS.read_text().partition("## Which field")[2].splitlines():
        if match := re.match(r"On `([\w.]+)`", line):
            base = match[1]
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] not in ("table", "---"):
            yield pytest.param(
                base, re.findall(r"`([^`]+)`", cells[1]), cells[3].strip("`| "), id=cells[3].strip("`| ")
            )


CLASSES = (CuboidMask, DecoderConfig, FrameMask, NestedTubeMask, RandomMask, SpaceMask, TubeMask)
NAMESPACE = {each.__name__: each for each in CLASSES}


@pytest.mark.parametrize(("base", "settings", "name"), list(rows()))
def test_a_row_of_the_ablations_makes_its_recipe_of_the_one_above(base, settings, name):
    recipe = find_recipe(base)
    for setting in settings:
        path, _, text = setting.partition("=")
        recipe = change(recipe, path, eval(text, dict(NAMESPACE)))
    assert replace(recipe, published_result="") == replace(find_recipe(name), published_result="")


@pytest.mark.parametrize("section", METHODS.read_text().split("\n### ")[1:], ids=lambda section: section.split("'")[0])
def test_every_field_that_is_named_beside_the_rows_is_there(section):
    recipe = find_recipe(re.search(r"^On `([\w.]+)`", section, flags=re.MULTILINE)[1])
    for path in re.findall(r"`((?:method|clips|schedule|optim)(?:\.\w+)+)`", section):
        attrgetter(path)(recipe)


# ---- What a clip costs ----------------------------------------------------------------------------------------------


def costs():
    for line in METHODS.read_text().partition("## Which field")[0].splitlines():
        if match := re.match(r"\| `([\w.]+)` \|(.*)\|", line):
            numbers = [float(number) if number != "–" else 0.0 for number in re.findall(r"[\d.]+|–", match[2])]
            yield pytest.param(match[1], numbers[:3], numbers[3:], id=match[1])


@pytest.mark.parametrize(("name", "tokens", "work"), list(costs()))
def test_a_clip_costs_what_the_page_says(name, tokens, work, monkeypatch):
    recipe = find_recipe(name)
    flops, teacher_tokens, running = {"student": 0, "teachers": 0}, [0], []

    def count(model, forward):
        def call(self, clip, visible=None, **request):
            before = counter.get_total_flops()
            running.append(model)
            features = forward(self, clip, visible, **request)
            running.pop()
            if running:  # a teacher's ViT
                return features
            flops[model] += counter.get_total_flops() - before
            if model == "teachers":
                teacher_tokens.append(grid.num_tokens if visible is None else visible.shape[1])
            return features

        return call

    monkeypatch.setattr(ViT, "forward", count("student", ViT.forward))
    monkeypatch.setattr(FrozenTeacher, "forward", count("teachers", FrozenTeacher.forward))
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        method = recipe.method.build().eval().requires_grad_(False)
        clip = torch.empty(1, 3, recipe.clips.sampling.num_frames, *recipe.clips.size)
        grid = method.encoder.grid(clip)
        mask = recipe.method.mask.draw(torch.zeros(1, dtype=torch.long, device="cpu"), grid)
        extra = None if mask.teacher_only is None else mask.teacher_only.to("meta")
        method(clip, mask=Mask(mask.visible.to("meta"), mask.masked.to("meta"), extra))
    rest = counter.get_total_flops() - sum(flops.values())
    assert [grid.num_tokens, mask.visible.shape[1], max(teacher_tokens)] == tokens
    assert [part / 2e9 for part in (flops["student"], rest, flops["teachers"])] == pytest.approx(work, abs=0.051)
