"""Who sees which video, on any number of processes and workers, and what happens if one is broken."""

import logging
import multiprocessing
import os
import signal
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_videos import write_video

from vidstill.chance import sample_seed
from vidstill.data.annotations import read_listing
from vidstill.data.augment import MultiScaleCrop
from vidstill.data.datasets import ClipsConfig, Sample, TrainClips, ViewClips, ViewsConfig
from vidstill.data.loading import epoch_order, train_batches, view_batches
from vidstill.data.sampling import DenseSampling, SpanSampling
from vidstill.data.sources import BrokenVideo
from vidstill.types import InputError

CPU = torch.device("cpu")
CONFIG = ClipsConfig(
    dataset="numbered",
    sampling=SpanSampling(frames=4, stride=2),
    size=(16, 16),
    crop=MultiScaleCrop(),
    flip=0.5,
    repeats=2,
)
VIEWS = ViewsConfig(sampling=DenseSampling(frames=4, stride=2), views=2, crops=3, short_side=16, size=(16, 16))


class Places(TrainClips):
    """Samples without videos: the label says which place in the listing is shown."""

    def __init__(self, videos: int, seed: int = 0, broken: tuple[int, ...] = ()):
        self.videos, self.seed, self.broken = videos, seed, broken

    def __len__(self) -> int:
        return self.videos

    def sample(self, epoch: int, index: int, *, stand_in: int | None = None) -> Sample:
        shown = index if stand_in is None else stand_in
        if shown in self.broken:
            raise BrokenVideo(f"video {shown} is broken")
        clip = torch.full((1, 3, 1, 1, 1), 255, dtype=torch.uint8)
        return Sample(clip, torch.tensor([shown]), torch.tensor([sample_seed(self.seed, epoch, index)]))


def seen(dataset: TrainClips, **how) -> list[list[int]]:
    """The videos of every micro-batch; an epoch has as many steps as the videos fill."""
    steps = len(dataset) // how["videos_per_step"]
    return [batch.label.tolist() for batch in train_batches(dataset, steps_per_epoch=steps, device=CPU, **how)]


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


chunks = st.integers(1, 4)


@given(videos=st.integers(1, 60), size=chunks, world=chunks, accumulation=chunks, steps=st.integers(1, 12), seed=chunks)
def test_processes_and_micro_batches_share_out_the_videos_of_a_step(videos, size, world, accumulation, steps, seed):
    per_step = size * world * accumulation
    dataset = Places(videos + per_step, seed)
    whole = seen(dataset, videos_per_step=per_step, total_steps=steps)
    ranks = [
        seen(dataset, videos_per_step=per_step, total_steps=steps, rank=rank, world=world, accumulation=accumulation)
        for rank in range(world)
    ]
    for step in range(steps):
        micros = range(step * accumulation, (step + 1) * accumulation)
        assert [video for micro in micros for rank in ranks for video in rank[micro]] == whole[step]


@given(videos=st.integers(4, 60), per_step=chunks, start=st.integers(0, 30), accumulation=chunks)
def test_a_resumed_run_sees_what_it_would_have_seen(videos, per_step, start, accumulation):
    how = {"videos_per_step": per_step * accumulation, "total_steps": 30, "accumulation": accumulation}
    dataset = Places(videos * accumulation)
    assert seen(dataset, **how, start_step=start) == seen(dataset, **how)[start * accumulation :]


@given(videos=st.integers(4, 60), per_step=chunks)
def test_an_epoch_sees_no_video_twice_and_another_epoch_has_another_order(videos, per_step):
    steps = videos // per_step
    batches = seen(Places(videos), videos_per_step=per_step, total_steps=2 * steps)
    for epoch in range(2):
        shown = list(chain(*batches[epoch * steps : (epoch + 1) * steps]))
        assert len(set(shown)) == len(shown) == steps * per_step > videos - per_step
        assert shown == epoch_order(videos, 0, epoch)[: len(shown)].tolist()
    assert videos < 10 or batches[:steps] != batches[steps:]


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    for k in range(6):
        write_video(folder / f"class{k % 2}" / f"{k}.mp4", 20 + k)
    return read_listing(folder)


def test_workers_change_nothing(listing):
    dataset = TrainClips(listing, CONFIG, seed=3)
    how = {"videos_per_step": 2, "steps_per_epoch": 3, "total_steps": 7, "device": CPU}
    alone = list(train_batches(dataset, **how))
    helped = list(train_batches(dataset, start_step=2, workers=2, **how))
    assert len(alone) == 7
    assert len(helped) == 5
    assert all(same(one, other) for one, other in zip(alone[2:], helped, strict=True))


def test_a_batch_holds_its_samples_in_order_with_colours_from_0_to_1(listing):
    dataset = TrainClips(listing, CONFIG, seed=3)
    batch = next(train_batches(dataset, videos_per_step=3, steps_per_epoch=2, total_steps=1, device=CPU))
    samples = [dataset[0, int(index)] for index in epoch_order(6, 3, 0)[:3]]
    assert batch.clip.shape == (6, 3, 4, 16, 16)  # three videos, two copies of each side by side
    torch.testing.assert_close(batch.clip * 255, torch.cat([sample.clip for sample in samples]).float())
    assert batch.seed.tolist() == [seed for sample in samples for seed in sample.seed.tolist()]
    assert batch.label.tolist() == [label for sample in samples for label in sample.label.tolist()]


def test_loading_takes_nothing_from_the_runs_own_chance(listing):
    state = torch.get_rng_state()
    dataset = TrainClips(listing, CONFIG, seed=3)
    for workers in (0, 1):
        list(train_batches(dataset, videos_per_step=2, steps_per_epoch=3, total_steps=2, workers=workers, device=CPU))
    assert torch.equal(state, torch.get_rng_state())


@given(broken=st.sets(st.integers(0, 19), max_size=4), start=st.integers(0, 9))
def test_the_next_of_the_order_stands_in_for_a_broken_video(broken, start):
    how = {"videos_per_step": 4, "steps_per_epoch": 5, "total_steps": 10, "start_step": start, "broken_share": 0.2}
    plain, mended = (list(train_batches(Places(20, broken=out), device=CPU, **how)) for out in ((), tuple(broken)))
    assert all(torch.equal(one.seed, other.seed) for one, other in zip(plain, mended, strict=True))
    whole, shown = (chain(*(batch.label.tolist() for batch in batches)) for batches in (plain, mended))
    for place, (meant, video) in enumerate(zip(whole, shown, strict=True), start * 4):
        order = epoch_order(20, 0, place // 20).tolist()
        after = order[place % 20 :] + order[: place % 20]
        assert video == next(v for v in after if v not in broken)
        assert (video == meant) == (meant not in broken)


def test_a_broken_video_is_named_once(caplog):
    with caplog.at_level(logging.WARNING, "vidstill"):
        seen(Places(20, broken=(3, 8)), videos_per_step=4, total_steps=15, broken_share=0.1)
    assert sorted(record.message for record in caplog.records) == [
        f"video {n} is broken; another video stands in for it" for n in (3, 8)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_more_broken_videos_than_the_stated_share_stop_training_with_their_names(workers):
    dataset = Places(200, broken=(3, 8, 150))
    with pytest.raises(InputError, match=r"^3 of 200 videos are broken and 2 may be") as error:
        seen(dataset, videos_per_step=4, total_steps=50, workers=workers)
    assert all(f"video {n} is broken" in str(error.value) for n in dataset.broken)


def test_where_nothing_decodes_training_stops_at_once():
    with pytest.raises(InputError, match="videos are broken"):
        seen(Places(20, broken=tuple(range(20))), videos_per_step=4, total_steps=50)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_that_a_worker_meets_arrives_as_its_sentence(tmp_path, workers):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.png 0\n")
    dataset = TrainClips(read_listing(tmp_path / "list.txt"), CONFIG, seed=0)
    with pytest.raises(InputError, match=r"^\S+b\.png is a picture, a clip of one frame, and clips of 4 frames"):
        seen(dataset, videos_per_step=2, total_steps=1, workers=workers)


def test_an_epoch_that_the_videos_do_not_fill_is_refused():
    with pytest.raises(InputError, match="7 videos do not fill 2 steps of 4"):  # at once, not at the first batch
        train_batches(Places(7), videos_per_step=4, steps_per_epoch=2, total_steps=1, device=CPU)


def test_a_step_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"6 videos a step do not divide into 2 micro-batches on 2 .* multiple of 4"):
        train_batches(
            Places(30), videos_per_step=6, steps_per_epoch=5, total_steps=1, accumulation=2, world=2, device=CPU
        )


@pytest.mark.parametrize(("workers", "world"), [(0, 1), (0, 4), (2, 1)])
def test_a_test_scores_every_video_once(listing, workers, world):
    dataset, broken = ViewClips(listing, VIEWS), {}
    batches = [
        batch
        for rank in range(world)
        for batch in view_batches(
            dataset, videos_per_batch=4, broken=broken, rank=rank, world=world, workers=workers, device=CPU
        )
    ]
    assert sorted(place for batch in batches for place in batch.place.tolist()) == list(range(6))
    assert broken == {}
    for batch in batches:
        assert batch.clip.shape[1:] == (6, 3, 4, 16, 16)
        for clip, label, place in zip(*batch, strict=True):
            views = dataset[int(place)]
            torch.testing.assert_close(clip * 255, views.clip.float())
            assert int(label) == views.label == listing.rows[int(place)].label


def test_a_test_reports_a_broken_video_and_puts_none_in_its_place(tmp_path, caplog):
    for name in ("a", "c", "d"):
        write_video(tmp_path / f"{name}.mp4")
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "e.mp4").write_bytes(b"")  # a batch of its own, of which nothing is left
    broken: dict[int, str] = {}
    with caplog.at_level(logging.WARNING, "vidstill"):
        batches = list(
            view_batches(ViewClips(read_listing(tmp_path), VIEWS), videos_per_batch=2, broken=broken, device=CPU)
        )
    assert [batch.place.tolist() for batch in batches] == [[0], [2, 3]]
    assert sorted(broken) == [1, 4]
    assert "b.mp4" in broken[1]
    assert [record.message.endswith("it is not scored") for record in caplog.records] == [True, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_leaves_stopping_to_the_run(number):
    how = {"videos_per_step": 2, "steps_per_epoch": 4, "total_steps": 40, "device": CPU}
    batches = train_batches(Places(8), workers=1, **how)
    first = next(batches)
    for worker in multiprocessing.active_children():  # a terminal's Ctrl-C, and `timeout`, reach them too
        os.kill(worker.pid, number)
    assert [b.label.tolist() for b in (first, *batches)] == [b.label.tolist() for b in train_batches(Places(8), **how)]
