"""Full-size MVD gives the numbers that its authors' code gave, by the recipe of `full_size`, and has its sizes."""

from dataclasses import replace

import pytest
import torch
from full_size import clip, fill, hold, hold_numbers, mask

from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules, build_vit_rules
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import BASE, HUGE, IMAGE_BASE, IMAGE_HUGE, IMAGE_LARGE, LARGE, SMALL, ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

STUDENT = replace(SMALL, positions="sincos3d")
GRID = Grid(8, 14, 14)


def config(student: ViTConfig, image: ViTConfig, video: ViTConfig, *decoder: int) -> MVDConfig:
    """A student with decoders of these blocks, width and heads."""
    depth, dim, heads = decoder
    return MVDConfig(
        encoder=replace(student, positions="sincos3d"),
        decoder=DecoderConfig(dim=dim, depth=depth, heads=heads, positions="sincos3d", embed_bias=True),
        image=TeacherBranch(model=image),
        video=TeacherBranch(model=video),
    )


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ((SMALL, IMAGE_BASE, BASE, 2, 384, 6), 29_865_600),
        ((SMALL, IMAGE_LARGE, LARGE, 2, 384, 6), 30_062_720),
        ((BASE, IMAGE_BASE, BASE, 2, 768, 12), 116_942_592),
        ((BASE, IMAGE_LARGE, LARGE, 2, 768, 12), 117_336_320),
        ((LARGE, IMAGE_LARGE, LARGE, 4, 512, 8), 331_179_008),
        ((HUGE, IMAGE_HUGE, HUGE, 8, 640, 8), 713_657_600),
    ],
    ids=["S from B", "S from L", "B from B", "B from L", "L from L", "H from H"],
)
def test_a_student_has_the_authors_number_of_trainable_parameters(parts: tuple, count: int) -> None:
    with torch.device("meta"):
        method = config(*parts).build()
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(
    ("model", "count"),
    [(IMAGE_BASE, 85_647_360), (IMAGE_LARGE, 303_099_904), (IMAGE_HUGE, 630_435_840), (BASE, 86_227_200)],
    ids=["image B", "image L", "image H/14", "video B"],
)
def test_a_teacher_has_the_authors_number_of_parameters(model: ViTConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in model.build().parameters()) == count


def test_the_default_is_a_base_student_of_base_teachers() -> None:
    assert MVDConfig() == config(BASE, IMAGE_BASE, BASE, 2, 768, 12)


def test_the_position_table_has_the_authors_numbers() -> None:
    table = build_position_table("sincos3d", GRID, 768, torch.device("cpu")).double()
    entries = table[[196, 1, 1, 14, 1567, 1567], [0, 192, 336, 480, 192, 767]]
    printed = [".84147096", ".84147096", ".54030228", ".84147096", ".42016703", ".99999905"]
    hold_numbers(entries, printed, scale=0.06)
    hold_numbers(table.sum()[None], ["564278.78467"], scale=1.0)
    small = build_position_table("sincos3d", GRID, 384, torch.device("cpu")).double()
    hold_numbers(small.sum()[None], ["281209.87843"], scale=1.0)


@pytest.mark.slow
def test_a_small_student_of_base_teachers_has_the_authors_numbers() -> None:
    method = config(SMALL, IMAGE_BASE, BASE, 2, 384, 6).build().eval()
    fill(method, build_mvd_rules(STUDENT))
    fill(method.teachers["image"].model, build_vit_rules(IMAGE_BASE, "", ""))
    fill(method.teachers["video"].model, build_vit_rules(BASE, "encoder.", ""))
    features = method.forward_teachers(clip(), GRID)
    with torch.no_grad():
        guesses = method.forward_student(clip(), mask())
        raw = method.forward_loss(guesses, method.select_targets(features, mask())).parts
        method.config = replace(method.config, normalize_targets=True)
        normalised = method.forward_loss(guesses, method.select_targets(features, mask())).parts
    hold(
        guesses["image"],
        shape=(2, 1408, 768),
        mean="6.042158e-3",
        std=".4058071",
        first=".432989 .017345 .004340",
        last="-.526638",
    )
    hold(
        guesses["video"],
        shape=(2, 1408, 768),
        mean="-1.607597e-3",
        std=".3932019",
        first=".136397 .282608 -.121471",
        last="-.547214",
    )
    hold(
        features["image"],
        shape=(2, 1568, 768),
        mean=".4453569",
        std="1.614594",
        first=".577256 1.173732 .838195",
        last="1.149419",
    )
    hold(
        features["video"],
        shape=(2, 1568, 768),
        mean=".2133565",
        std="1.700984",
        first=".642291 2.690618 .365580",
        last=".509413",
    )
    hold_numbers(torch.stack([raw["image"], raw["video"]]), [".9522768", ".9792311"], scale=1.0)
    hold_numbers(torch.stack([normalised["image"], normalised["video"]]), [".4811973", ".4753892"], scale=1.0)


@pytest.mark.slow
def test_a_small_classifier_has_the_authors_numbers() -> None:
    model = ClassifierConfig(encoder=STUDENT, num_classes=400).build().eval()
    fill(model, build_classifier_rules(STUDENT))
    with torch.no_grad():
        logits = model(clip())
    hold(
        logits,
        shape=(2, 400),
        mean="-4.543764e-2",
        std=".3978010",
        first="-.263037 -.035438 .146154",
        last="-.171274",
    )
