"""RandAugment on clips."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vidstill.data.transforms.randaugment import OP_NAMES, RandAugment, RandAugmentOp
from vidstill.utils.types import InputError

seeds = st.integers(0, 2**32)
magnitudes = st.integers(0, 99).map(lambda k: k / 10 + 0.03)  # never on the border between two whole levels
names = st.sampled_from(sorted(OP_NAMES))
WITHOUT_STRENGTH = {"AutoContrast", "Equalize", "Invert"}
GREY = (128, 128, 128)
UNCHANGED_AT_0 = set(OP_NAMES) - WITHOUT_STRENGTH - {"Posterize"}  # which keeps 4 bits then


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def after(name: str, magnitude: float, sign: int, frame: np.ndarray) -> np.ndarray:
    return np.asarray(RandAugmentOp(name, magnitude, sign).apply(Image.fromarray(frame), GREY))


@given(seeds, st.sampled_from([0.5, 1.0]), st.integers(1, 3), st.integers(4, 20), st.integers(4, 20))
def test_every_frame_of_a_clip_goes_through_the_same_operations_which_a_seed_repeats(seed, probability, t, h, w):
    frames, augment = np.repeat(noise(1, h, w), t, axis=0), RandAugment(probability=probability)
    augmented, again = (augment.apply(frames, np.random.default_rng(seed)) for _ in range(2))
    assert augmented.shape == (t, h, w, 3)
    assert augmented.dtype == np.uint8
    assert (augmented == augmented[:1]).all()
    assert (augmented == again).all()


def test_the_operations_are_applied_one_after_the_other():
    augment, frames = RandAugment(probability=1.0), noise(2, 12, 16)
    ops = augment.draw_ops(np.random.default_rng(3))
    assert len(ops) == 4
    expected = frames
    for name, magnitude, sign in ops:
        expected = np.stack([after(name, magnitude, sign, frame) for frame in expected])
    assert (augment.apply(frames, np.random.default_rng(3)) == expected).all()
    assert (RandAugment(probability=0.0).apply(frames, np.random.default_rng(3)) == frames).all()


def test_fifteen_operations_are_equally_likely_and_applied_with_probability_one_half():
    rng, rounds = np.random.default_rng(0), 3000
    ops = [operation for _ in range(rounds) for operation in RandAugment().draw_ops(rng)]
    assert len(ops) / (4 * rounds) == pytest.approx(0.5, abs=0.02)
    counts = Counter(operation.name for operation in ops)
    assert set(counts) == set(OP_NAMES)
    assert len(OP_NAMES) == 15
    assert max(counts.values()) / len(ops) < 0.08 > min(counts.values()) / len(ops) > 0.055
    assert np.mean([operation.sign for operation in ops]) == pytest.approx(0, abs=0.04)


def test_magnitudes_are_normal_and_stay_between_0_and_10():
    rng = np.random.default_rng(0)
    usual = [operation.magnitude for _ in range(1000) for operation in RandAugment(probability=1.0).draw_ops(rng)]
    assert np.mean(usual) == pytest.approx(7, abs=0.03)
    assert np.std(usual) == pytest.approx(0.5, abs=0.03)
    wild = RandAugment(probability=1.0, magnitude=5.0, magnitude_std=20.0)
    magnitudes = [operation.magnitude for _ in range(100) for operation in wild.draw_ops(rng)]
    assert (min(magnitudes), max(magnitudes)) == (0, 10)


@pytest.mark.parametrize("name", sorted(UNCHANGED_AT_0))
def test_an_operation_that_grows_with_its_magnitude_starts_from_nothing(name):
    frame = noise(12, 16)
    assert (after(name, 0.0, 1, frame) == frame).all()


@pytest.mark.parametrize("name", sorted(UNCHANGED_AT_0 | {"Posterize"}))
def test_an_operation_with_a_strength_changes_more_at_a_higher_magnitude(name):
    ramp = np.linspace(20, 230, 24)
    frame = np.stack([np.add.outer(ramp, ramp) / 2, np.add.outer(ramp, -ramp) / 2 + 125, np.full((24, 24), 60.0)], -1)
    frame[6:18, 6:18] += 25
    frame = frame.round().astype(np.uint8)
    some, more = (np.abs(after(name, m, 1, frame).astype(int) - frame).mean() for m in (3.0, 9.0))
    assert more > some


@given(magnitudes | st.just(10.0))  # which leaves a black frame
def test_posterize_keeps_fewer_bits_the_stronger_it_is(magnitude):
    bits = 4 - int(4 * magnitude / 10)
    frame = noise(8, 8)
    assert (after("Posterize", magnitude, 1, frame) == frame & (0xFF << (8 - bits) & 0xFF)).all()


@given(magnitudes)
def test_solarize_inverts_from_a_threshold_on(magnitude):
    frame = noise(8, 8)
    threshold = 256 - int(256 * magnitude / 10)
    assert (after("Solarize", magnitude, 1, frame) == np.where(frame < threshold, frame, 255 - frame)).all()


@given(magnitudes)
def test_solarize_add_brightens_dark_pixels(magnitude):
    frame = noise(8, 8)
    brighter = np.minimum(frame.astype(int) + int(110 * magnitude / 10), 255)
    assert (after("SolarizeAdd", magnitude, 1, frame) == np.where(frame < 128, brighter, frame)).all()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [2.0, 10.0])
def test_brightness_is_a_factor_of_up_to_nine_tenths_more_or_less(sign, magnitude):
    frame = noise(8, 8)
    expected = np.clip(frame * (1 + sign * 0.9 * magnitude / 10), 0, 255)
    assert np.abs(after("Brightness", magnitude, sign, frame) - expected).max() <= 1


def test_a_translation_of_four_ninths_of_the_scale_moves_a_fifth_of_the_side_and_brings_in_grey():
    frame = noise(10, 20)
    magnitude = 10 * 0.2 / 0.45
    right, down = after("TranslateX", magnitude, 1, frame), after("TranslateY", magnitude, -1, frame)
    assert np.abs(right[:, :16].astype(int) - frame[:, 4:]).max() <= 1
    assert (right[:, -3:] == 128).all()
    assert np.abs(down[2:].astype(int) - frame[:8]).max() <= 1
    assert (down[:1] == 128).all()


def test_the_fill_colour_comes_in_and_an_invalid_one_is_an_error():
    augment = RandAugment(num_ops=1, probability=1.0, fill=(124, 116, 104))
    seed = next(k for k in range(1000) if augment.draw_ops(np.random.default_rng(k))[0][::2] == ("TranslateX", 1))
    moved = augment.apply(noise(1, 8, 8), np.random.default_rng(seed))
    assert (moved[:, :, -2:] == augment.fill).all()
    with pytest.raises(InputError, match="fill is 256"):
        RandAugment(fill=(0, 256, 0))


@given(magnitudes, st.sampled_from([-1, 1]), st.integers(1, 30), st.integers(1, 30))
def test_a_rotation_is_pils(magnitude, sign, height, width):
    frame = noise(height, width)
    turned = Image.fromarray(frame).rotate(sign * magnitude * 3, Image.Resampling.BICUBIC, fillcolor=GREY)
    assert (after("Rotate", magnitude, sign, frame) == np.asarray(turned)).all()


def test_a_rotation_of_the_full_scale_is_thirty_degrees_and_its_sign_turns_it_round():
    frame = np.zeros((41, 41, 3), np.uint8)
    frame[20, 21:38] = 255  # a line from the centre to the right
    for sign in (-1, 1):
        rows, columns = np.nonzero(after("Rotate", 10.0, sign, frame)[2:-2, 2:-2, 0] > 150)
        angle = np.degrees(np.arctan2(-(rows - 18.0), columns - 18.0)[columns > 24])
        assert np.median(angle) == pytest.approx(sign * 30, abs=4)


def test_a_shear_of_the_full_scale_moves_each_row_three_tenths_of_a_pixel_further():
    frame = np.zeros((31, 31, 3), np.uint8)
    frame[:, 20] = 255
    sheared = after("ShearX", 10.0, 1, frame)[:, :, 0]
    assert [int(sheared[row].argmax()) for row in (0, 10, 20, 30)] == [20, 17, 14, 11]
    assert (after("ShearY", 10.0, 1, frame.transpose(1, 0, 2)).transpose(1, 0, 2)[:, :, 0] == sheared).all()
