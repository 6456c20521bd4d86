"""Samples of videos whose frames show their number: which frames, which crop, which seed."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import train_sample, view_sample
from tiny_videos import number_of, numbered, write_video

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.decode.reader import read_frames
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.transforms.crop import MultiScaleCrop, RandomResizedCrop
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling, TimedSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import InputError

WHOLE = ClipsConfig(  # the frame as it is, so that it shows its number
    dataset="numbered", sampling=SpanSampling(num_frames=4, stride=2), size=(32, 64), crop=MultiScaleCrop(scales=(1.0,))
)
BUSY = replace(
    WHOLE, size=(16, 16), crop=RandomResizedCrop(), flip_probability=0.5, randaugment=RandAugment(), repeats=2
)


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    write_video(folder / "left" / "long.mp4", 60)
    write_video(folder / "right" / "short.mp4", 3)
    write_video(folder / "right" / "other.mp4", numbers=range(100, 160))
    return open_manifest(folder)


LONG, OTHER, SHORT = range(3)


def numbers_in(clip: torch.Tensor) -> list[int]:
    return [number_of(frame) for frame in clip.permute(1, 2, 3, 0).numpy()]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 1000), index=st.sampled_from([LONG, SHORT, OTHER]))
def test_a_sample_follows_from_seed_epoch_and_index(listing, seed, epoch, index):
    one = train_sample(TrainClips(listing, BUSY, seed=seed), epoch, index)
    used = TrainClips(listing, BUSY, seed=seed)
    train_sample(used, epoch + 1, index), train_sample(used, epoch, LONG)
    for value, again in zip(one, train_sample(used, epoch, index), strict=True):
        assert torch.equal(value, again)
    assert one.seed.tolist() == [derive_sample_seed(seed, epoch, index, copy) for copy in range(2)]


@pytest.mark.parametrize(("config", "count"), [(WHOLE, 2), (replace(WHOLE, flip_probability=0.5), 3), (BUSY, 7)])
def test_sample_seeds_a_generator_for_its_frames_and_each_random_transform_of_a_copy(
    monkeypatch, listing, config, count
):
    seed_generator = Mock(wraps=np.random.default_rng)
    monkeypatch.setattr(np.random, "default_rng", seed_generator)
    TrainClips(listing, config, seed=0).load_arrays(0, LONG, 0, LONG)
    assert seed_generator.call_count == count


def test_other_epochs_and_other_runs_show_other_frames(listing):
    starts = [
        {
            numbers_in(train_sample(TrainClips(listing, WHOLE, seed=seed), epoch, LONG).clip[0])[0]
            for seed, epoch in draws
        }
        for draws in ([(0, epoch) for epoch in range(12)], [(seed, 0) for seed in range(12)])
    ]
    assert min(map(len, starts)) > 5


def test_a_clip_has_the_drawn_frames_unchanged(listing):
    sample = train_sample(TrainClips(listing, WHOLE, seed=1), 0, LONG)
    numbers = numbers_in(sample.clip[0])
    assert np.diff(numbers).tolist() == [2, 2, 2]
    frames = read_frames(listing.rows[LONG].source, numbers)
    assert sample.clip.dtype == torch.uint8
    np.testing.assert_array_equal(sample.clip[0].permute(1, 2, 3, 0).numpy(), frames)


def test_a_video_shorter_than_a_clip_repeats_its_frames(listing):
    numbers = numbers_in(train_sample(TrainClips(listing, WHOLE, seed=1), 0, SHORT).clip[0])
    assert len(numbers) == 4
    assert set(numbers) <= {0, 1, 2}


def test_copies_share_their_frames_but_not_their_augmentation(listing):
    sample = train_sample(TrainClips(listing, replace(WHOLE, repeats=3), seed=1), 0, LONG)
    assert len({tuple(numbers_in(clip)) for clip in sample.clip}) == 1
    assert len(set(sample.seed.tolist())) == 3
    busy = train_sample(TrainClips(listing, replace(BUSY, randaugment=None), seed=1), 0, LONG)
    assert not torch.equal(busy.clip[0], busy.clip[1])


def test_copies_with_own_frames_have_a_segment_each(listing):
    config = replace(WHOLE, repeats=2, repeat_sampling="own")
    for epoch in range(8):
        first, second = (
            numbers_in(clip) for clip in train_sample(TrainClips(listing, config, seed=1), epoch, LONG).clip
        )
        assert first[0] < 26 <= second[0]  # (60 - 8 + 1) // 2 starts for each
        assert np.diff([first, second]).tolist() == [[2] * 3] * 2


def test_copies_with_own_frames_start_anywhere_if_the_span_is_timed(listing):
    config = replace(WHOLE, sampling=TimedSampling(num_frames=4, stride=2.0), repeats=2, repeat_sampling="own")
    pairs = [
        [numbers_in(clip)[0] for clip in train_sample(TrainClips(listing, config, seed=1), epoch, LONG).clip]
        for epoch in range(20)
    ]
    assert any(first < second for first, second in pairs)
    assert any(first > second for first, second in pairs)


def test_a_timed_span_adapts_to_the_frame_rate_of_the_video(listing, tmp_path):
    sampling = TimedSampling(num_frames=4, stride=8.0, frame_rate=50.0)  # 16 frames of a video with 25 a second
    config = ViewsConfig(sampling=sampling, temporal_clips=1, spatial_crops=1, short_side=32, size=(32, 64))
    # the middle of 60, 15 frames on
    assert numbers_in(view_sample(ViewClips(listing, config), LONG).clip[0]) == [22, 27, 32, 37]
    numbers = numbers_in(train_sample(TrainClips(listing, replace(WHOLE, sampling=sampling), seed=1), 0, LONG).clip[0])
    assert np.diff(numbers).tolist() == [5, 5, 5]
    for n in range(60):
        (tmp_path / "v").mkdir(exist_ok=True)
        Image.fromarray(numbered(n)).save(tmp_path / "v" / f"img_{n:05d}.png")
    (tmp_path / "list.txt").write_text("v 60 0\n")  # pictures have no rate, so they have the rule's: 32 frames
    assert numbers_in(view_sample(ViewClips(open_manifest(tmp_path / "list.txt"), config), 0).clip[0]) == [
        14,
        24,
        34,
        45,
    ]


def test_randaugment_comes_before_the_crop_or_after_the_flip(listing):
    plain = replace(BUSY, randaugment=None, repeats=1)
    before, after = (replace(BUSY, repeats=1, randaugment_stage=stage) for stage in ("frame", "crop"))
    cropped, first, last = (
        train_sample(TrainClips(listing, config, seed=1), 0, LONG) for config in (plain, before, after)
    )
    rng = numpy_rng(int(cropped.seed), "randaugment")
    expected = RandAugment().apply(cropped.clip[0].permute(1, 2, 3, 0).numpy(), rng)
    np.testing.assert_array_equal(last.clip[0].permute(1, 2, 3, 0).numpy(), expected)
    assert not torch.equal(first.clip, last.clip)


def test_a_flip_is_a_mirror(listing):
    plain, mirrored = (
        train_sample(TrainClips(listing, replace(WHOLE, flip_probability=p), seed=1), 0, LONG).clip for p in (0.0, 1.0)
    )
    assert torch.equal(plain.flip(-1), mirrored)


def test_every_copy_has_the_label_of_its_video(listing):
    dataset = TrainClips(listing, BUSY, seed=1)
    assert [train_sample(dataset, 0, index).label.tolist() for index in range(3)] == [[0, 0], [1, 1], [1, 1]]


def test_a_video_without_a_label_has_minus_one(listing):
    unlabelled = open_manifest(listing.rows[LONG].source)
    assert train_sample(TrainClips(unlabelled, WHOLE, seed=1), 0, 0).label.tolist() == [-1]


def test_a_replacement_shows_another_video_with_the_draws_of_the_broken_one(listing):
    dataset = TrainClips(listing, WHOLE, seed=1)
    sample = train_sample(dataset, 0, LONG, source_index=OTHER)
    numbers, original = numbers_in(sample.clip[0]), numbers_in(train_sample(dataset, 0, LONG).clip[0])
    assert [n - 100 for n in numbers] == original  # both videos have 60 frames
    assert sample.seed.tolist() == train_sample(dataset, 0, LONG).seed.tolist()
    assert sample.label.tolist() == [1]


def test_an_image_is_a_clip_of_one_frame_only(tmp_path):
    Image.fromarray(numbered(9)).save(tmp_path / "nine.png")
    listing = open_manifest(tmp_path)
    config = replace(WHOLE, sampling=SegmentSampling(num_frames=1))
    assert numbers_in(train_sample(TrainClips(listing, config, seed=1), 0, 0).clip[0]) == [9]
    with pytest.raises(InputError, match=r"nine\.png is an image, a clip of one frame, but clips have 4 frames"):
        TrainClips(listing, WHOLE, seed=1)


def test_a_folder_of_frames_has_the_number_that_its_list_states(tmp_path):
    (tmp_path / "v").mkdir()
    for n in range(30):
        Image.fromarray(numbered(n)).save(tmp_path / "v" / f"img_{n + 1:05d}.png")
    (tmp_path / "list.txt").write_text("v 10 0\n")
    dataset = TrainClips(open_manifest(tmp_path / "list.txt"), WHOLE, seed=1)
    assert max(max(numbers_in(train_sample(dataset, epoch, 0).clip[0])) for epoch in range(20)) < 10


def test_own_frames_are_refused_for_other_sampling_rules():
    with pytest.raises(InputError, match="a rule of SpanSampling and TimedSampling, not of DenseSampling"):
        replace(WHOLE, sampling=DenseSampling(), repeat_sampling="own")


def test_views_come_by_frames_and_then_by_crop(listing):
    config = ViewsConfig(
        sampling=DenseSampling(num_frames=4, stride=5), temporal_clips=2, spatial_crops=3, short_side=32, size=(32, 32)
    )
    views = view_sample(ViewClips(listing, config), LONG)
    path = listing.rows[LONG].source
    expected = [
        read_frames(path, frames)[:, :, left : left + 32]
        for frames in ([0, 5, 10, 15], [40, 45, 50, 55])  # of the 12 candidates, the first and the last four
        for left in (0, 16, 32)
    ]
    np.testing.assert_array_equal(views.clip.permute(0, 2, 3, 4, 1).numpy(), expected)
    assert (views.label, views.video_index) == (0, LONG)


def test_a_broken_video_is_an_error_in_training_and_in_evaluation(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"")
    listing = open_manifest(tmp_path)
    config = ViewsConfig(sampling=DenseSampling(num_frames=4), temporal_clips=1, spatial_crops=1)
    for load in (
        lambda: train_sample(TrainClips(listing, WHOLE, seed=1), 0, 0),
        lambda: view_sample(ViewClips(listing, config), 0),
    ):
        with pytest.raises(BrokenVideo, match=r"broken\.mp4"):
            load()
