"""Full-size models give the numbers that the authors' code gave with weights, clip and mask made by a recipe.

Weights: every tensor gets 0.02 · z, z from a generator seeded with the checksum of its official name; 1 more for the
weight of a norm. Clip: standard normal, after ImageNet's mean and deviation. Mask: 20 places of each slot are visible,
29 more for AMD's teacher. The numbers are printed ones: the tolerance is half a unit in the last printed digit, and
beside it a millionth (of the number or of its tensor's deviation, the larger): float32 rounds otherwise when it sums in
another order. (In float64 the last number of the teacher's layer 12 is 2.0786711; theirs is 2.1e-6 off, ours 0.4e-6.)
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foreign_layout import in_their_words
from vidstill.downstream.classification import ClassifierConfig
from vidstill.methods.amd import AMDConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.positions import position_table
from vidstill.models.vit import BASE, IMAGENET_MEAN, IMAGENET_STD, SMALL
from vidstill.pretext.masks import Mask
from vidstill.pretext.targets import pixel_target
from vidstill.pretext.teachers import TeacherConfig
from vidstill.types import Grid
from vidstill.weights.names import Name, amd_names, classifier_names, videomae_names
from vidstill.weights.transfer import load_exactly, translated

pytestmark = pytest.mark.slow

DECODER = DecoderConfig(dim=192, depth=4, heads=3)
PAIRS = ((6, 6), (12, 12))


@cache
def clip() -> Tensor:
    """Colours before ImageNet's mean and deviation were taken off: a model's door gives the recipe's numbers again."""
    numbers = np.random.RandomState(0).standard_normal((2, 3, 16, 224, 224)).astype(np.float32)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy(numbers) * std + mean


@cache
def mask() -> Mask:
    chance = np.random.RandomState(1)
    orders = [chance.permutation(196) for _ in range(2)]

    def tubes(first: int, last: int) -> Tensor:
        slots = np.arange(8)[:, None] * 196
        return torch.from_numpy(np.stack([np.sort((slots + order[first:last]).ravel()) for order in orders]))

    return Mask(tubes(0, 20), tubes(20, 196), tubes(20, 49))


def filled(theirs: str, tensor: Tensor) -> Tensor:
    z = np.random.RandomState(crc32(theirs.encode("ascii"))).standard_normal(tensor.numel()).astype(np.float32)
    parents, _, last = theirs.rpartition(".")
    one = last == "weight" and "norm" in parents.rpartition(".")[2]
    return torch.from_numpy(np.float32(0.02) * z + np.float32(one)).reshape(tensor.shape)


def fill(module: nn.Module, names: Sequence[Name]) -> None:
    theirs = in_their_words(module.state_dict(), names)
    load_exactly(module, translated({name: filled(name, t) for name, t in theirs.items()}, names), "the recipe")


def hold(tensor: Tensor, *, shape: tuple[int, ...], **printed: str) -> None:
    """mean, std, and entries in token order: `first` are as many as are printed, `last` is the last one."""
    assert tuple(tensor.shape) == shape
    numbers = tensor.detach().double().flatten()
    firsts = printed.pop("first", "").split()
    hold_numbers(numbers[: len(firsts)], firsts, scale=numbers.std().item())
    for name, digits in printed.items():
        ours = {"mean": numbers.mean(), "std": numbers.std(), "last": numbers[-1]}[name]
        hold_numbers(ours[None], [digits], scale=numbers.std().item())


def hold_numbers(ours: Tensor, printed: Sequence[str], *, scale: float) -> None:
    for number, digits in zip(ours.tolist(), printed, strict=True):
        half_a_digit = 0.5 * 10.0 ** int(Decimal(digits).as_tuple().exponent)
        assert number == pytest.approx(float(digits), rel=0, abs=half_a_digit + 1e-6 * max(scale, abs(float(digits))))


def test_the_position_table_has_the_authors_numbers() -> None:
    table = position_table("sinusoid", Grid(8, 14, 14), 768, torch.device("cpu")).double()
    entries = table[[1, 1, 197, 197, 1567], [0, 2, 100, 101, 767]]
    hold_numbers(entries, [".84147096", ".82843077", ".30625698", "-.95194888", ".98714685"], scale=0.06)
    hold_numbers(table.sum()[None], ["245744.9896"], scale=1.0)


def test_videomae_small_has_the_authors_numbers() -> None:
    config = VideoMAEConfig(encoder=SMALL, decoder=DECODER)
    method = config.build().eval()
    fill(method, videomae_names(SMALL))
    with torch.no_grad():
        seen = method.encoder(clip(), mask().visible).tokens
        rebuilt = method.decoder(seen, mask().visible, mask().masked, Grid(8, 14, 14))
        target = pixel_target(clip(), SMALL, mask().masked, config.target)
        loss = method(clip(), mask=mask()).loss
    hold(seen, shape=(2, 160, 384), mean="2.47634e-4", std="1.002878", first="-1.836514", last="1.477631")
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
    model = ClassifierConfig(encoder=SMALL, classes=400).build().eval()
    fill(model, classifier_names(SMALL))
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
    config = AMDConfig(encoder=SMALL, decoder=DECODER, teacher=TeacherConfig(model=BASE), pairs=PAIRS)
    method = config.build().eval()
    fill(method, amd_names(SMALL, [6, 12], 2))
    teacher = method.teacher.model
    names = [Name(n.theirs, n.ours.removeprefix("encoder."), n.to_ours, n.to_theirs, n.axes)
             for n in classifier_names(BASE) if n.ours and n.ours.startswith("encoder.")]  # fmt: skip
    fill(teacher, names)
    with torch.no_grad():
        student = method.encoder(clip(), mask().visible, layers=(6, 12))
        both, teacher_only = method.look(clip(), mask())
        aligned = method.align(student)
        generated = method.generate(student, mask(), Grid(8, 14, 14))
        parts = method(clip(), mask=mask()).parts

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
