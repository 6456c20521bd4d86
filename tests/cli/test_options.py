"""Words of the command line become settings; parts of them come and go."""

from dataclasses import dataclass, replace
from typing import Annotated

import pytest
import tyro

from vidstill.cli.options import call_with_options, list_optional_parts, resolve_optional_parts
from vidstill.methods.mvd import MVDConfig
from vidstill.recipes.recipe import find_recipe


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


def read(typed: str, default: Rider) -> Rider:
    given = []

    def work(*, rider: Annotated[Rider, tyro.conf.arg(name="")]) -> None:
        """Rides."""
        given.append(rider)

    rider, words = resolve_optional_parts(default, typed.split())
    call_with_options(work, words, "ride", rider=rider)
    return given[0]


def rides(**parts: object) -> Rider:
    return Rider(bicycle=Bicycle(**parts))


@pytest.mark.parametrize(
    ("typed", "expected"),
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
def test_a_part_goes_by_none_and_comes_by_its_options(typed, expected):
    assert read(typed, Rider()) == expected


def test_a_part_that_comes_back_is_as_its_place_has_it():
    assert read("--bicycle.rear.spokes 24", rides(rear=None)) == rides(rear=Wheel(size=26, spokes=24))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--bicycle.spare-wheel.spokes 24", "--bicycle.spare-wheel.size"),  # which has no value of its own
        ("--bicycle.front None", "--bicycle.front"),  # without which there is no bicycle
        ("--bicycle.rear", "--bicycle.rear"),
        ("--bicycle.rear None --bicycle.rear.spokes 24", "--bicycle.rear.spokes"),
    ],
)
def test_of_a_part_that_cannot_come_or_go_the_option_is_named(typed, said, capsys):
    with pytest.raises(SystemExit):
        read(typed, Rider())
    assert said in capsys.readouterr().err


def test_the_parts_that_may_be_missing_are_named_by_their_options():
    assert list_optional_parts(rides(rear=None)) == ["--bicycle.rear", "--bicycle.spare-wheel"]


def test_a_recipe_s_teachers_decoders_and_augmentations_come_and_go():
    typed = ["--method.image-teacher", "None", "--clips.randaugment.magnitude", "5"]
    recipe, left = resolve_optional_parts(find_recipe("mvd.base_k400"), typed)
    assert recipe.method.image_teacher is None
    assert recipe.clips.randaugment is not None
    assert left == typed[2:]
    recipe, _ = resolve_optional_parts(recipe, ["--method.image-teacher.weights", "file.pth"])
    assert recipe.method.image_teacher == MVDConfig().image_teacher
    assert "--method.decoder" in list_optional_parts(find_recipe("maskagain.base_k400"))
    assert {"--mixing", "--erasing"} <= set(list_optional_parts(find_recipe("videomae.base_k400_finetune")))
