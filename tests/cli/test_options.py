"""Options become configs: every field is one, and parts of a recipe come and go."""

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from vidstill.cli.options import RecipeOptions, parse_options, parse_recipe_options
from vidstill.data.transforms.crop import MultiScaleCrop
from vidstill.data.transforms.frame_sampling import SegmentSampling, TimedSampling
from vidstill.engine.optimizer import SGDConfig
from vidstill.methods.common.masking import CuboidMask, FrameMask, RandomMask, SlotMask, SpaceMask, TubeMask
from vidstill.methods.mvd import MVDConfig
from vidstill.recipes.change import change_recipe
from vidstill.recipes.recipe import FinetuneRecipe, find_recipe
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class Wheel:
    size: int
    spokes: int = 32


@dataclass(frozen=True, kw_only=True)
class ElectricMotor:
    watts: int = 250
    volts: int = 36
    name: str = "e"


@dataclass(frozen=True, kw_only=True)
class PetrolDrivenMotor:
    watts: int = 1000
    litres: float
    name: int = 3  # of another type


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    front: Wheel = Wheel(size=28)
    rear: Wheel | None = Wheel(size=26, spokes=36)
    spare_wheel: Wheel | None = None
    bell: str | None = None
    motor: ElectricMotor | PetrolDrivenMotor | None = None


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
        ("--bicycle.motor electric", rides(motor=ElectricMotor())),
        ("--bicycle.motor Petrol-Driven --bicycle.motor.litres 2", rides(motor=PetrolDrivenMotor(litres=2.0))),
        ("--bicycle.motor.litres 2", rides(motor=PetrolDrivenMotor(litres=2.0))),  # only one kind has litres
        (
            "--bicycle.motor.litres 2 --bicycle.motor=electric --bicycle.motor.watts 5 --bicycle.motor petrol_driven",
            rides(motor=PetrolDrivenMotor(litres=2.0, watts=5)),
        ),
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


def test_an_option_that_cannot_be_read_is_named(capsys):
    with pytest.raises(SystemExit):
        read("--bicycle.rear", Rider())
    assert "--bicycle.rear" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--bicycle.front None", "--bicycle.front None: this part is always wheel in this recipe; its fields are"),
        ("--bicycle.front wheel", "--bicycle.front wheel: this part is always wheel in this recipe"),
        ("--bicycle.rear 26", "there is no --bicycle.rear '26'; it takes None"),
        ("--bicycle.motor diesel", "there is no --bicycle.motor 'diesel'; it takes electric, petrol_driven, None"),
        ("--bicycle.motor gas.py:Steam", "there is no --bicycle.motor 'gas.py:Steam'"),  # not a part of one's own
        ("--bicycle.motor petrol_driven", r"--bicycle.motor is incomplete: .*'litres'"),
    ],
)
def test_a_kind_that_there_is_not_is_refused_with_those_that_there_are(options, message):
    with pytest.raises(InputError, match=message):
        read(options, Rider())


def test_a_field_of_another_kind_than_the_typed_one_is_no_option(capsys):
    with pytest.raises(SystemExit):
        read("--bicycle.motor electric --bicycle.motor.litres 3", Rider())
    assert "--bicycle.motor.litres" in capsys.readouterr().err


def test_another_kind_of_a_part_keeps_the_fields_that_both_have():
    config = rides(motor=ElectricMotor(watts=500, name="bolt"))
    petrol = PetrolDrivenMotor(litres=2.0, watts=500)  # the name is of another type
    assert read("--bicycle.motor petrol_driven --bicycle.motor.litres 2", config) == rides(motor=petrol)
    assert read("--bicycle.motor electric --bicycle.motor.volts 48", config) == rides(
        motor=ElectricMotor(watts=500, volts=48, name="bolt")
    )
    assert read("--bicycle.motor None", config) == rides()


def test_the_help_lists_the_kinds_of_a_part_and_the_fields_of_the_one_that_is_typed(capsys):
    def show(options):
        with pytest.raises(SystemExit):
            read(f"{options} --help", rides(motor=ElectricMotor(watts=500)))
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    text = show("")
    assert "--bicycle.motor {electric,petrol_driven,None} kind; its fields follow" in text
    assert "None: leave this part out (default: electric)" in text
    assert "--bicycle.motor.watts INT (default: 500)" in text
    assert "litres" not in text
    text = show("--bicycle.motor petrol_driven")
    assert "(default: electric)" in text
    assert "--bicycle.motor.watts INT (default: 500)" in text
    assert "--bicycle.motor.litres FLOAT (required)" in text
    assert "volts" not in text


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


MASKS = {
    "tube": TubeMask(ratio=0.9),
    "random": RandomMask(ratio=0.9),
    "space": SpaceMask(ratio=0.9),
    "frame": FrameMask(ratio=0.9),
    "slot": SlotMask(ratio=0.9),
    "cuboid": CuboidMask(ratio=0.9),
}


@pytest.mark.parametrize("name", ["videomae.base_k400", "stmae.large_k400", "mvd.base_k400", "maskagain.base_k400"])
@pytest.mark.parametrize("kind", MASKS)
def test_a_method_takes_every_mask_by_its_kind_and_keeps_the_ratio(name, kind):
    recipe = find_recipe(name)
    assert read(f"--method.mask {kind}", recipe).method.mask == MASKS[kind]
    expected = replace(MASKS[kind], ratio=0.6)
    assert read(f"--method.mask.ratio 0.6 --method.mask={kind}", recipe).method.mask == expected


def test_optimizers_samplings_and_crops_change_their_kind():
    recipe = find_recipe("videomae.base_k400_finetune")
    adamw, sampling = recipe.optim, recipe.clips.sampling
    sgd = read("--optim SGD", recipe).optim
    assert isinstance(sgd, SGDConfig)
    assert (sgd.base_lr, sgd.layer_decay) == (adamw.base_lr, adamw.layer_decay)
    segment = read("--clips.sampling segment --clips.sampling.rule mvd", recipe).clips.sampling
    assert segment == SegmentSampling(num_frames=sampling.num_frames, rule="mvd")
    pretraining = read("--clips.sampling.stride 3", find_recipe("videomae.base_k400"))
    timed = read("--clips.sampling timed", pretraining).clips.sampling
    assert timed == TimedSampling(num_frames=16, stride=3.0)  # a whole number may stand for a real one
    assert read("--clips.crop multi_scale", recipe).clips.crop == MultiScaleCrop()
    assert read("--clips.crop multi-scale", recipe).clips.crop == MultiScaleCrop()


def test_amd_takes_no_other_mask_than_its_own():
    with pytest.raises(InputError, match=r"--method.mask random: this part is always nested_tube in this recipe"):
        read("--method.mask random", find_recipe("amd.small_k400"))


def test_masks_that_show_other_numbers_of_tokens_in_each_step_do_not_go_with_maskagain_s_local_loss():
    recipe = read("--method.mask random", find_recipe("maskagain.base_k400"))
    with torch.device("meta"), pytest.raises(InputError, match=r"take --method.mask tube or slot, or .*local-weight 0"):
        recipe.method.build()
    with torch.device("meta"):
        read("--method.mask random --method.hidden.local-weight 0", recipe).method.build()
        read("--method.mask slot", recipe).method.build()


def test_a_recipe_of_unknown_values_has_the_fields_of_the_kind_that_is_typed(capsys):
    options = RecipeOptions(types=(FinetuneRecipe,), absent="chosen for the data")
    args = ["--data", "road", "--optim", "sgd", "--optim.momentum", "0.8"]
    *_, typed = parse_recipe_options(options, Trip, args, "ride", description="Ride.", out="home")
    adamw, sgd = find_recipe("laptop.finetune").optim, change_recipe(find_recipe("laptop.finetune"), typed).optim
    assert (type(sgd), sgd.momentum) == (SGDConfig, 0.8)
    assert (sgd.base_lr, sgd.weight_decay, sgd.min_lr) == (adamw.base_lr, adamw.weight_decay, adamw.min_lr)
    with pytest.raises(SystemExit):
        parse_recipe_options(options, Trip, [*args, "--help"], "ride", description="Ride.", out="home")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert re.search(r"--optim\.momentum FLOAT [^()]*\(chosen for the data\)", text)
    assert "--optim.betas" not in text
    assert "--clips.sampling {span,dense,segment,timed}" in text
