"""Options become configs: every field is one, and parts of a recipe come and go."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from vidstill.cli.options import RecipeOptions, parse_options, parse_recipe_options
from vidstill.methods.mvd import MVDConfig
from vidstill.recipes.change import change_recipe
from vidstill.recipes.recipe import find_recipe
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class Wheel:
    size: int
    spokes: int = 32


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    front: Wheel = Wheel(size=28)
    rear: Wheel | None = Wheel(size=26, spokes=36)
    spare_wheel: Wheel | None = None
    bell: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rider:
    bicycle: Bicycle = Bicycle()
    lights: bool = False


@dataclass(frozen=True, kw_only=True)
class Trip:
    data: str
    out: str
    days: int = 1


def read(options: str, config: Any, **settings: Any) -> Any:
    recipe_options = RecipeOptions(types=(type(config),), config=config, **settings)
    args = f"--data road {options}".split()
    _, _, typed = parse_recipe_options(recipe_options, Trip, args, "ride", description="Ride.", out="home")
    return change_recipe(config, typed)


def rides(**parts: object) -> Rider:
    return Rider(bicycle=Bicycle(**parts))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", rides()),
        ("--bicycle.rear.spokes 24", rides(rear=Wheel(size=26, spokes=24))),
        ("--bicycle.rear None", rides(rear=None)),
        ("--bicycle.rear=None --bicycle.front.size 20", rides(rear=None, front=Wheel(size=20))),
        ("--bicycle.spare-wheel None", rides()),
        ("--bicycle.spare-wheel.size 12", rides(spare_wheel=Wheel(size=12))),
        ("--bicycle.spare_wheel.size=12", rides(spare_wheel=Wheel(size=12))),
        ("--bicycle.bell None", rides()),
        ("--bicycle.bell ding", rides(bell="ding")),
        ("--lights", replace(rides(), lights=True)),
        ("--no-lights", rides()),
    ],
)
def test_a_part_is_removed_by_none_and_added_by_its_options(options, expected):
    assert read(options, Rider()) == expected


def test_a_part_that_is_added_again_has_the_values_of_its_fields_default():
    config = rides(rear=None)
    assert read("--bicycle.rear.spokes 24", config) == rides(rear=Wheel(size=26, spokes=24))
    assert read("--bicycle.rear.spokes 36", config) == rides()  # also if what is typed is the default


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--bicycle.spare-wheel.spokes 24", "--bicycle.spare-wheel is incomplete: .*'size'"),
        ("--bicycle.rear None --bicycle.rear.spokes 24", r"--bicycle\.rear\.spokes contradicts --bicycle\.rear None"),
    ],
)
def test_an_incomplete_or_contradictory_part_is_an_error(options, message):
    with pytest.raises(InputError, match=message):
        read(options, Rider())


@pytest.mark.parametrize("option", ["--bicycle.front", "--bicycle.rear"])
def test_an_option_that_cannot_be_read_is_named(option, capsys):
    with pytest.raises(SystemExit):
        read(f"{option} None --bicycle.rear" if option.endswith("rear") else f"{option} None", Rider())
    assert option in capsys.readouterr().err


def test_the_run_config_and_the_start_are_read_with_the_recipe():
    options = RecipeOptions(types=(Rider,), config=Rider())
    args = ["--data", "road", "--days", "3", "--init", "here", "--lights"]
    trip, init, typed = parse_recipe_options(options, Trip, args, "ride", description="Ride.", out="home")
    assert isinstance(trip, Trip)
    assert (trip.data, trip.out, trip.days, init) == ("road", "home", 3, "here")
    assert typed == {"lights": True}


def test_the_help_shows_defaults_and_absent_parts(capsys):
    with pytest.raises(SystemExit):
        read("--help", rides(rear=None), absent="not here")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--out STR (default: home)" in text
    assert "--bicycle.front.size INT (default: 28)" in text
    assert "--bicycle.rear.spokes INT (not here)" in text
    assert "--bicycle.rear {None} None: leave this part out" in text


def test_without_a_config_options_are_read_against_the_types():
    args = ["--data", "road", "--bicycle.rear.spokes", "24"]
    _, _, typed = parse_recipe_options(
        RecipeOptions(types=(Rider,)), Trip, args, "ride", description="Ride.", out="home"
    )
    assert change_recipe(rides(rear=None), typed) == rides(rear=Wheel(size=26, spokes=24))


def test_a_functions_call_is_returned_and_not_made():
    calls = []

    def work(where: str, /, *, hours: int = 1, rain: bool = False) -> None:
        """Work."""
        calls.append((where, hours, rain))

    command = parse_options(work, ["field", "--rain"], "work")
    assert calls == []
    command()
    assert calls == [("field", 1, True)]


def test_teachers_decoders_and_augmentations_of_a_recipe_are_removed_and_added():
    mvd = read("--method.image None --clips.randaugment.magnitude 5", find_recipe("mvd.base_k400"))
    assert mvd.method.image is None
    assert mvd.clips.randaugment.magnitude == 5
    mvd = read("--method.image.checkpoint file.pth", mvd)
    assert mvd.method.image == replace(MVDConfig().image, checkpoint="file.pth")
    maskagain = read(
        "--method.decoder.dim 64 --method.decoder.depth 2 --method.decoder.heads 2", find_recipe("maskagain.base_k400")
    )
    assert (maskagain.method.decoder.dim, maskagain.method.decoder.mlp_ratio) == (64, 4.0)
    finetuning = read("--mixup None --random-erasing None", find_recipe("videomae.base_k400_finetune"))
    assert (finetuning.mixup, finetuning.random_erasing) == (None, None)
