"""Full-size models give the numbers that the authors' code gave with weights, clip and mask made by a recipe."""

import pytest
import torch
from full_size import clip, fill, hold, hold_numbers, mask

from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules, build_vit_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.methods.amd import AMDConfig
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import BASE, SMALL
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

pytestmark = pytest.mark.slow

DECODER = DecoderConfig(dim=192, depth=4, heads=3)
PAIRS = ((6, 6), (12, 12))


def test_the_position_table_has_the_authors_numbers() -> None:
    table = build_position_table("sinusoid", Grid(8, 14, 14), 768, torch.device("cpu")).double()
    entries = table[[1, 1, 197, 197, 1567], [0, 2, 100, 101, 767]]
    hold_numbers(entries, [".84147096", ".82843077", ".30625698", "-.95194888", ".98714685"], scale=0.06)
    hold_numbers(table.sum()[None], ["245744.9896"], scale=1.0)


def test_videomae_small_has_the_authors_numbers() -> None:
    config = VideoMAEConfig(encoder=SMALL, decoder=DECODER)
    method = config.build().eval()
    fill(method, build_videomae_rules(SMALL))
    with torch.no_grad():
        seen = method.encoder(clip(), mask().visible)
        rebuilt = method.forward_decoder(clip(), seen, mask())
        target = compute_pixel_target(clip(), SMALL, mask().masked, config.target)
        loss = method(clip(), mask=mask()).loss
    hold(seen.tokens, shape=(2, 160, 384), mean="2.47634e-4", std="1.002878", first="-1.836514", last="1.477631")
    hold(
        rebuilt,
        shape=(2, 1408, 1536),
        mean="5.80386e-3",
        std=".2779038",
        first=".448039 -.031476 .039903",
        last=".358081",
    )
    hold(target, shape=(2, 1408, 1536), std=".9990186", first="1.852333 -2.135976 .143027", last="-2.081833")
    hold_numbers(loss[None], ["1.0753039"], scale=1.0)


def test_a_small_classifier_has_the_authors_numbers() -> None:
    model = ClassifierConfig(encoder=SMALL, num_classes=400).build().eval()
    fill(model, build_classifier_rules(SMALL))
    with torch.no_grad():
        logits = model(clip())
    hold(
        logits,
        shape=(2, 400),
        mean="-2.353690e-2",
        std=".3445447",
        first=".433889 .526056 -.294023",
        last="-.074070",
    )


def test_amd_small_has_the_authors_numbers() -> None:
    config = AMDConfig(encoder=SMALL, decoder=DECODER, teacher=TeacherConfig(model=BASE), layer_pairs=PAIRS)
    method = config.build().eval()
    fill(method, build_amd_rules(SMALL, [6, 12]))
    fill(method.teacher.model, build_vit_rules(BASE, "", ""))
    method.double()  # in float32, processors differ by more than the last digit of the teacher's last layer
    exact = clip().double()
    with torch.no_grad():
        student = method.encoder(exact, mask().visible, layers=(6, 12))
        both, teacher_only = method.forward_teacher(exact, mask())
        aligned = method.project_student(student)
        generated = method.generate_features(student, mask(), Grid(8, 14, 14))
        parts = method(exact, mask=mask()).parts

    seen, extra = (2, 160, 768), (2, 232, 768)
    hold(both[6], shape=seen, mean=".1692234", std="1.403917", first="-1.650465", last="3.019799")
    hold(teacher_only[6], shape=extra, mean=".1734631", std="1.397237", first="-2.978098", last="2.712783")
    hold(aligned[0], shape=seen, mean="-1.489935e-3", std=".4476947", first="-.147888", last="-.027896")
    hold(generated[0], shape=extra, mean=".2011270", std=".8707511", first="-1.561699", last=".080263")
    hold(both[12], shape=seen, mean=".1735863", std="1.696706", first="-2.638552", last="4.429996")
    hold(teacher_only[12], shape=extra, mean=".1782995", std="1.694274", first="-4.582527", last="2.078669")
    hold(aligned[1], shape=seen, mean="2.745533e-3", std=".4818235", first=".145015", last=".159492")
    hold(generated[1], shape=extra, mean=".2276701", std=".8683486", first="-.491865", last="1.004293")
    for name, printed in (("reconstruction", "1.0753039"), ("direct", "2.6698608"), ("generation", "2.2529445")):
        hold_numbers(parts[name][None], [printed], scale=1.0)
