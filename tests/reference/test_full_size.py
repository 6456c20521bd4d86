"""Full-size models give the numbers that the authors' code gave with weights, clip and mask made by a recipe."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from full_size import clip, count_parameters, fill, hold, hold_numbers, mask

from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules, build_vit_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.methods.amd import AMDConfig
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import MaskAgainConfig
from vidstill.methods.maskagain_losses import select_salient_tokens
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import BASE, HUGE, IMAGE_BASE, IMAGE_HUGE, IMAGE_LARGE, LARGE, SMALL, ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

slow = pytest.mark.slow

DECODER = DecoderConfig(dim=192, depth=4, heads=3)
GRID, FRAME = Grid(8, 14, 14), Grid(1, 14, 14)


@pytest.mark.parametrize(
    ("kind", "grid", "dim", "entries", "total"),
    [
        (
            "sinusoid", GRID, 768,
            {(1, 0): ".84147096", (1, 2): ".82843077", (197, 100): ".30625698", (197, 101): "-.95194888",
             (1567, 767): ".98714685"},
            "245744.9896",
        ),
        (
            "sincos2d", FRAME, 768,  # theirs has a row of the class token before
            {(0, 0): "0", (1, 0): ".84147096", (1, 192): ".54030228", (15, 384): ".84147096", (15, 576): ".54030228",
             (195, 767): ".99999905"},
            "69594.4938",
        ),
        (
            "sincos3d", GRID, 768,
            {(196, 0): ".84147096", (1, 192): ".84147096", (1, 336): ".54030228", (14, 480): ".84147096",
             (1567, 192): ".42016703", (1567, 767): ".99999905"},
            "564278.78467",
        ),
        ("sincos3d", GRID, 384, {}, "281209.87843"),
    ],
)  # fmt: skip
def test_a_position_table_has_the_authors_numbers(
    kind: Any, grid: Grid, dim: int, entries: dict[tuple[int, int], str], total: str
) -> None:
    table = build_position_table(kind, grid, dim, torch.device("cpu")).double()
    for at, printed in entries.items():
        hold_numbers(table[at][None], [printed], scale=0.06)
    hold_numbers(table.sum()[None], [total], scale=1.0)


def mvd_config(student: ViTConfig, image: ViTConfig, video: ViTConfig, *decoder: int) -> MVDConfig:
    """A student with decoders of these blocks, width and heads."""
    depth, dim, heads = decoder
    return MVDConfig(
        encoder=replace(student, positions="sincos3d"),
        decoder=DecoderConfig(dim=dim, depth=depth, heads=heads, positions="sincos3d", embed_bias=True),
        image=TeacherBranch(model=image),
        video=TeacherBranch(model=video),
    )


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (mvd_config(SMALL, IMAGE_BASE, BASE, 2, 384, 6), 29_865_600),
        (mvd_config(SMALL, IMAGE_LARGE, LARGE, 2, 384, 6), 30_062_720),
        (mvd_config(BASE, IMAGE_BASE, BASE, 2, 768, 12), 116_942_592),
        (mvd_config(BASE, IMAGE_LARGE, LARGE, 2, 768, 12), 117_336_320),
        (mvd_config(LARGE, IMAGE_LARGE, LARGE, 4, 512, 8), 331_179_008),
        (mvd_config(HUGE, IMAGE_HUGE, HUGE, 8, 640, 8), 713_657_600),
        (IMAGE_BASE, 85_647_360),
        (IMAGE_LARGE, 303_099_904),
        (IMAGE_HUGE, 630_435_840),
        (BASE, 86_227_200),
    ],
    ids=["MVD S from B", "S from L", "B from B", "B from L", "L from L", "H from H", "image B", "L", "H/14", "video B"],
)
def test_a_model_has_the_authors_number_of_trainable_parameters(config: MVDConfig | ViTConfig, count: int) -> None:
    assert count_parameters(config) == count


def test_the_default_of_mvd_is_a_base_student_of_base_teachers() -> None:
    assert MVDConfig() == mvd_config(BASE, IMAGE_BASE, BASE, 2, 768, 12)


@slow
@pytest.mark.parametrize(
    ("encoder", "classes", "pooling", "printed"),
    [
        (SMALL, 400, "mean", ("-2.353690e-2", ".3445447", ".433889 .526056 -.294023", "-.074070")),
        (
            replace(SMALL, positions="sincos3d"), 400, "mean",
            ("-4.543764e-2", ".3978010", "-.263037 -.035438 .146154", "-.171274"),
        ),
        (IMAGE_BASE, 1000, "mean", ("-4.379554e-3", ".554022", "-.106136 -.745311 .498920", "-.568319")),
        (IMAGE_BASE, 1000, "first", ("-2.919704e-3", ".536116", ".074929 .025539 -.112918", ".029788")),
    ],
    ids=["VideoMAE", "MVD", "MAE", "MAE's class token"],
)  # fmt: skip
def test_a_classifier_has_the_authors_numbers(
    encoder: ViTConfig, classes: int, pooling: Any, printed: tuple[str, ...]
) -> None:
    model = ClassifierConfig(encoder=encoder, num_classes=classes, pooling=pooling).build().eval()
    fill(model, build_classifier_rules(encoder))
    with torch.no_grad():
        hold(model(clip(1 if encoder is IMAGE_BASE else 16)), (2, classes), *printed)


@slow
def test_videomae_small_has_the_authors_numbers() -> None:
    config = VideoMAEConfig(encoder=SMALL, decoder=DECODER)
    method = config.build().eval()
    fill(method, build_videomae_rules(SMALL))
    with torch.no_grad():
        encoded = method.encoder(clip(), mask().visible)
        reconstruction = method.forward_decoder(clip(), encoded, mask())
        target = compute_pixel_target(clip(), SMALL, mask().masked, config.target)
        loss = method(clip(), mask=mask()).loss
    hold(encoded.tokens, (2, 160, 384), "2.47634e-4", "1.002878", "-1.836514", "1.477631")
    hold(reconstruction, (2, 1408, 1536), "5.80386e-3", ".2779038", ".448039 -.031476 .039903", ".358081")
    hold(target, (2, 1408, 1536), None, ".9990186", "1.852333 -2.135976 .143027", "-2.081833")
    hold_numbers(loss[None], ["1.0753039"], scale=1.0)


@slow
def test_amd_small_has_the_authors_numbers() -> None:
    pairs = ((6, 6), (12, 12))
    config = AMDConfig(encoder=SMALL, decoder=DECODER, teacher=TeacherConfig(model=BASE), layer_pairs=pairs)
    method = config.build().eval()
    fill(method, build_amd_rules(SMALL, [6, 12]))
    fill(method.teacher.model, build_vit_rules(BASE, "", ""))
    method.double()  # in float32, processors differ by more than the last digit of the teacher's last layer
    exact = clip().double()
    with torch.no_grad():
        student = method.encoder(exact, mask().visible, layers=(6, 12))
        both, teacher_only = method.forward_teacher(exact, mask())
        aligned = method.project_student(student)
        generated = method.generate_features(student, mask(), GRID)
        parts = method(exact, mask=mask()).parts

    encoded, extra = (2, 160, 768), (2, 232, 768)
    hold(both[6], encoded, ".1692234", "1.403917", "-1.650465", "3.019799")
    hold(teacher_only[6], extra, ".1734631", "1.397237", "-2.978098", "2.712783")
    hold(aligned[0], encoded, "-1.489935e-3", ".4476947", "-.147888", "-.027896")
    hold(generated[0], extra, ".2011270", ".8707511", "-1.561699", ".080263")
    hold(both[12], encoded, ".1735863", "1.696706", "-2.638552", "4.429996")
    hold(teacher_only[12], extra, ".1782995", "1.694274", "-4.582527", "2.078669")
    hold(aligned[1], encoded, "2.745533e-3", ".4818235", ".145015", ".159492")
    hold(generated[1], extra, ".2276701", ".8683486", "-.491865", "1.004293")
    for name, printed in (("reconstruction", "1.0753039"), ("direct", "2.6698608"), ("generation", "2.2529445")):
        hold_numbers(parts[name][None], [printed], scale=1.0)


@slow
def test_mvd_small_of_base_teachers_has_the_authors_numbers() -> None:
    method = mvd_config(SMALL, IMAGE_BASE, BASE, 2, 384, 6).build().eval()
    fill(method, build_mvd_rules(method.config.encoder))
    fill(method.teachers["image"].model, build_vit_rules(IMAGE_BASE, "", ""))
    fill(method.teachers["video"].model, build_vit_rules(BASE, "encoder.", ""))
    features = method.forward_teachers(clip(), GRID)
    with torch.no_grad():
        predictions = method.forward_student(clip(), mask())
        raw = method.forward_loss(predictions, method.select_targets(features, mask())).parts
        method.config = replace(method.config, normalize_targets=True)
        normalised = method.forward_loss(predictions, method.select_targets(features, mask())).parts
    masked, everything = (2, 1408, 768), (2, 1568, 768)
    hold(predictions["image"], masked, "6.042158e-3", ".4058071", ".432989 .017345 .004340", "-.526638")
    hold(predictions["video"], masked, "-1.607597e-3", ".3932019", ".136397 .282608 -.121471", "-.547214")
    hold(features["image"], everything, ".4453569", "1.614594", ".577256 1.173732 .838195", "1.149419")
    hold(features["video"], everything, ".2133565", "1.700984", ".642291 2.690618 .365580", ".509413")
    hold_numbers(torch.stack([raw["image"], raw["video"]]), [".9522768", ".9792311"], scale=1.0)
    hold_numbers(torch.stack([normalised["image"], normalised["video"]]), [".4811973", ".4753892"], scale=1.0)


@slow
@pytest.mark.parametrize(
    ("encoder", "prefix", "losses"),
    [
        (BASE, "student.", (".20872964", ".20116507", "5.05995798", ".56324744")),
        (SMALL, "", (".03778588", ".03646629", "3.23404741", ".46977568")),
    ],
    ids=["base", "small"],
)
def test_maskagain_of_a_base_teacher_has_the_authors_numbers(
    encoder: ViTConfig, prefix: str, losses: tuple[str, ...]
) -> None:
    method = MaskAgainConfig(encoder=encoder, teacher=TeacherConfig(model=BASE)).build().eval()
    fill(method, build_maskagain_rules(encoder), prefix)
    method.teacher.model.norm = torch.nn.Identity()  # the authors' has none, and none is looked at
    fill(method.teacher.model, build_vit_rules(BASE, "encoder.", ""))
    encoded = method.teacher(clip(), mask().visible, layers=(12,), attention=(12,))
    output, attention = encoded.layers[12], encoded.attention[12]
    hold(output, (2, 160, 768), ".2068744", "1.701615", "-4.106161", "-1.222058")
    hold(attention.logits, (2, 12, 160, 160), "-3.077061e-2", ".3078120", ".017171", "-.125490")
    hold(attention.values, (2, 12, 160, 64), "-5.878525e-4", ".5535813", "-.349840", "-.762505")
    salient = select_salient_tokens(output, 10)
    assert salient[0].sort().values[:3].tolist() == [14, 55, 65]
    assert salient.numel() == 20
    with torch.no_grad():
        parts = method(clip(), mask=mask()).parts
    for name, printed in zip(("global", "local", "hint", "relation"), losses, strict=True):
        hold_numbers(parts[name][None], [printed], scale=0.0)
