"""Frames around a second of a film: the right ones, whatever its rate and form; and what is said if there are none."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_films import file_film, frames_film, numbered, numbers_of, seconds_film, write_video

from vidstill.data.ava.clip_reader import KeyframeClipReader, KeyframeVideo
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.storage.fetch import BrokenVideo

VIDEOMAE = KeyframeSampling(num_frames=8, stride=4, frame_rate=25.0, rule="videomae")  # -15, -11, …, 13
SLOWFAST = KeyframeSampling(num_frames=8, stride=4, frame_rate=30.0, rule="slowfast")  # -16, -12, …, 12
RULES = pytest.mark.parametrize("sampling", [VIDEOMAE, SLOWFAST], ids=["videomae", "slowfast"])
FORMS = pytest.mark.parametrize("film_of", [file_film, frames_film])
RATES = pytest.mark.parametrize("rate", [24, 25, 30])


def around(film: KeyframeVideo, second: int, sampling: KeyframeSampling) -> list[int]:
    return numbers_of(KeyframeClipReader().read_clip(film, second, sampling))


@RULES
@FORMS
@RATES
def test_a_clip_has_the_frames_nearest_in_time(tmp_path, film_of, rate, sampling):
    film = film_of(tmp_path, 4 * rate, rate)
    numbers = around(film, 2, sampling)
    moments = [2 + offset / sampling.frame_rate for offset in sampling.compute_offsets()]
    assert all(abs(n / rate - moment) <= 0.5 / rate + 1e-9 for n, moment in zip(numbers, moments, strict=True))
    if rate == sampling.frame_rate:
        assert numbers == [2 * rate + offset for offset in sampling.compute_offsets()]


@FORMS
def test_seconds_count_from_the_start_second_of_a_video(tmp_path, film_of):
    film = film_of(tmp_path, 120, 30, start=900)
    assert around(film, 902, SLOWFAST) == [60 + offset for offset in SLOWFAST.compute_offsets()]


@RULES
@RATES
def test_one_second_files_give_the_same_clip_as_one_file(tmp_path, rate, sampling):
    whole = file_film(tmp_path / "whole", 4 * rate, rate, start=901)
    parts = seconds_film(tmp_path / "parts", {901 + k: rate for k in range(4)}, rate)
    for second in (902, 903, 904):
        assert around(parts, second, sampling) == around(whole, second, sampling)


def test_one_second_files_may_have_24_or_26_frames(tmp_path):
    film = seconds_film(tmp_path, {900: 25, 901: 24, 902: 26, 903: 25, 904: 24})
    sampling = KeyframeSampling(num_frames=16, stride=4, rule="videomae")
    assert around(film, 902, sampling) == [25 + 24 + offset for offset in sampling.compute_offsets()]


def test_a_missing_one_second_file_shortens_both_sides_equally(tmp_path):
    film = seconds_film(tmp_path, {899: 25, 901: 24, 902: 26, 903: 25})
    sampling = KeyframeSampling(num_frames=16, stride=4, rule="videomae")
    key = 25 + 24  # what is in 899 does not follow on 901
    assert around(film, 902, sampling) == [key + min(max(offset, -24), 23) for offset in sampling.compute_offsets()]


@FORMS
def test_the_first_or_last_frame_is_repeated_at_a_videos_ends(tmp_path, film_of):
    film = film_of(tmp_path, 50, 25)
    slow = replace(SLOWFAST, frame_rate=25.0)
    assert around(film, 0, slow) == [0, 0, 0, 0, 0, 4, 8, 12]
    assert around(film, 1, replace(slow, stride=8)) == [0, 1, 9, 17, 25, 33, 41, 49]
    assert around(film, 1, VIDEOMAE) == [25 + offset for offset in VIDEOMAE.compute_offsets()]
    assert around(film, 0, VIDEOMAE) == [0] * 8  # no frame before it, and so none after it


@FORMS
def test_a_second_after_the_end_is_named_with_the_video_and_its_length(tmp_path, film_of):
    film = film_of(tmp_path, 50, 25, start=900)
    for second in (902, 899):
        with pytest.raises(BrokenVideo, match=f"key frame film,0{second}: .*film.* second 900 .*ends at second 902.00"):
            KeyframeClipReader().read_clip(film, second, VIDEOMAE)


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(BrokenVideo, match="key frame gone,0905: gone has neither a file nor a directory"):
        KeyframeClipReader().read_clip(KeyframeVideo("gone", None), 905, VIDEOMAE)
    with pytest.raises(BrokenVideo, match=r"key frame lost,0001: .*lost\.mp4"):
        KeyframeClipReader().read_clip(KeyframeVideo("lost", tmp_path / "lost.mp4"), 1, VIDEOMAE)
    for form in ("frames", "seconds"):
        with pytest.raises(BrokenVideo, match=r"key frame lost,0001: .*lost.* does not exist"):
            KeyframeClipReader().read_clip(KeyframeVideo("lost", tmp_path / "lost", form), 1, VIDEOMAE)


def test_a_missing_or_damaged_image_affects_only_the_clips_that_need_it(tmp_path):
    film = frames_film(tmp_path, 75, 25)
    (tmp_path / "film" / "film_000040.png").unlink()  # frame 39
    one = KeyframeSampling(num_frames=2, stride=2, rule="slowfast")  # -2, 0
    assert around(film, 2, one) == [48, 50]
    with pytest.raises(BrokenVideo, match=r"key frame film,0001: .*film_000040\.png"):
        KeyframeClipReader().read_clip(film, 1, KeyframeSampling(num_frames=4, stride=14, rule="slowfast"))
    (tmp_path / "film" / "film_000026.png").write_bytes(b"")
    with pytest.raises(BrokenVideo, match=r"key frame film,0001: .*film_000026\.png"):
        KeyframeClipReader().read_clip(film, 1, one)


def test_images_without_numbers_are_ordered_by_name(tmp_path):
    for n, name in enumerate(("a", "b", "c", "d")):
        Image.fromarray(numbered(n)).save(tmp_path / f"{name}.png")
    one = KeyframeSampling(num_frames=2, stride=1, frame_rate=1.0, rule="slowfast")
    assert around(KeyframeVideo("film", tmp_path, "frames", frame_rate=1.0), 2, one) == [1, 2]


def test_frames_of_two_sizes_are_refused(tmp_path):
    film = frames_film(tmp_path, 30, 25)
    Image.fromarray(numbered(0)[:16]).save(tmp_path / "film" / "film_000026.png")
    with pytest.raises(BrokenVideo, match=r"80x32 and of 80x16|80x16 and of 80x32"):
        KeyframeClipReader().read_clip(film, 1, KeyframeSampling(num_frames=2, stride=1, rule="slowfast"))


def test_a_file_that_ends_before_its_header_says_is_read_as_far_as_it_goes(tmp_path):
    whole = write_video(tmp_path / "film.mp4", [numbered(n) for n in range(75)])
    data = whole.read_bytes()
    film = KeyframeVideo("film", whole)
    reader = KeyframeClipReader()
    assert numbers_of(reader.read_clip(film, 1, VIDEOMAE)) == [25 + offset for offset in VIDEOMAE.compute_offsets()]
    (tmp_path / "film.mp4").write_bytes(data[: len(data) // 2])  # its index, at the end, is lost
    with pytest.raises(BrokenVideo, match="key frame film,0002"):
        KeyframeClipReader().read_clip(film, 2, VIDEOMAE)


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_key_frames_are_read_from_every_form(tmp_path, rate):
    films = (
        file_film(tmp_path / "file", 3 * rate, rate, start=900),
        frames_film(tmp_path / "frames", 3 * rate, rate, start=900),
        seconds_film(tmp_path / "seconds", {900 + k: rate for k in range(3)}, rate),
    )
    for film in films:
        assert numbers_of(np.stack(KeyframeClipReader().read_keyframes(film, [902, 900]))) == [2 * rate, 0]
        with pytest.raises(BrokenVideo, match="key frames film,0901, film,0903"):
            KeyframeClipReader().read_keyframes(film, [901, 903])
