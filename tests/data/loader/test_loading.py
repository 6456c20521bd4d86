"""Who sees which video, on any number of processes and workers, and what happens if one is broken."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from deadly import children, hang, kill
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import PROJECT
from samples import RowDataset, RowViews, train_sample, view_sample
from tiny_videos import cut_short, write_video

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.loader.loader import iter_train_batches, iter_view_batches
from vidstill.data.loader.order import draw_epoch_order
from vidstill.data.loader.protocols import TrainBatch, TrainDataset, ViewBatch, ViewDataset
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import StorageUnreachable
from vidstill.data.transforms.frame_sampling import DenseSampling, SpanSampling
from vidstill.utils.types import InputError

CPU = torch.device("cpu")
CONFIG = ClipsConfig(
    dataset="numbered", sampling=SpanSampling(num_frames=4, stride=2), size=(16, 16), flip_probability=0.5, repeats=2
)
VIEWS = ViewsConfig(
    sampling=DenseSampling(num_frames=4, stride=2), temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16)
)


def batches_of(dataset: TrainDataset, per_step: int, steps: int, **how) -> Iterator[TrainBatch]:
    """An epoch has as many steps as the videos fill."""
    how |= {"videos_per_step": per_step, "steps_per_epoch": len(dataset) // per_step, "total_steps": steps}
    return iter_train_batches(dataset, device=CPU, **how)


def views_of(dataset: ViewDataset, per_batch: int, broken: dict[int, str] | None = None, **how) -> Iterator[ViewBatch]:
    broken = {} if broken is None else broken
    return iter_view_batches(dataset, videos_per_batch=per_batch, broken_videos=broken, device=CPU, **how)


def load_labels(dataset: TrainDataset, per_step: int, steps: int, **how) -> list[list[int]]:
    """The videos of every micro-batch."""
    return [batch.label.tolist() for batch in batches_of(dataset, per_step, steps, **how)]


def same(ones, others) -> bool:
    """Whether equally many batches are equal to the bit."""
    pairs = [zip(one, other, strict=True) for one, other in zip(ones, others, strict=True)]
    return all(torch.equal(a, b) for pair in pairs for a, b in pair)


@pytest.fixture
def warnings(caplog):
    """The messages that are logged from now on."""
    caplog.set_level(logging.WARNING, "vidstill")
    return lambda: [record.message for record in caplog.records]


chunks = st.integers(1, 4)


@settings(max_examples=20)
@given(videos=st.integers(1, 60), size=chunks, world=chunks, accumulation=chunks, steps=st.integers(1, 12), seed=chunks)
def test_processes_and_micro_batches_divide_the_videos_of_a_step(videos, size, world, accumulation, steps, seed):
    per_step = size * world * accumulation
    dataset = RowDataset(videos + per_step, seed=seed)
    whole = load_labels(dataset, per_step, steps)
    how = {"world_size": world, "accumulation_steps": accumulation}
    ranks = [load_labels(dataset, per_step, steps, rank=rank, **how) for rank in range(world)]
    for step in range(steps):
        micros = range(step * accumulation, (step + 1) * accumulation)
        assert [video for micro in micros for rank in ranks for video in rank[micro]] == whole[step]


@settings(max_examples=20)
@given(videos=st.integers(4, 60), per_step=chunks)
def test_an_epoch_sees_no_video_twice_and_another_epoch_has_another_order(videos, per_step):
    steps = videos // per_step
    batches = load_labels(RowDataset(videos), per_step, 2 * steps)
    for epoch in range(2):
        labels = list(chain(*batches[epoch * steps : (epoch + 1) * steps]))
        assert len(set(labels)) == len(labels) == steps * per_step > videos - per_step
        assert labels == draw_epoch_order(videos, 0, epoch)[: len(labels)].tolist()
    assert videos < 10 or batches[:steps] != batches[steps:]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("accumulation", "world"), [(1, 1), (2, 3)])
def test_workers_processes_and_micro_batches_do_not_change_the_order(workers, accumulation, world):
    how = {"world_size": world, "accumulation_steps": accumulation, "workers": workers}
    alone = list(chain(*load_labels(RowDataset(25), 6, 7)))
    ranks = [load_labels(RowDataset(25), 6, 7, rank=rank, **how) for rank in range(world)]
    assert list(chain(*chain(*zip(*ranks, strict=True)))) == alone


def test_an_epochs_order_is_uniform():
    """Which video is at which position, and after which, by the chi-squared statistic per degree of freedom."""
    orders = np.array([draw_epoch_order(12, seed, epoch) for seed in range(40) for epoch in range(50)])
    at, after = np.zeros((12, 12)), np.zeros((12, 12))
    np.add.at(at, (np.arange(12)[None], orders), 1)
    np.add.at(after, (orders[:, :-1], orders[:, 1:]), 1)
    for counts, freedom in ((at, 11**2), (after[~np.eye(12, dtype=bool)], 12 * 11 - 1)):
        statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum() / freedom
        assert statistic < 1.5  # 100 degrees of freedom and more: as large once in 1,000 times


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    for k in range(6):
        write_video(folder / f"class{k % 2}" / f"{k}.mp4", 20 + k)
    return open_manifest(folder)


def test_workers_change_nothing_and_the_global_random_state_is_not_used(listing):
    dataset, state = TrainClips(listing, CONFIG, seed=3), torch.get_rng_state()
    alone, helped = list(batches_of(dataset, 2, 7)), list(batches_of(dataset, 2, 7, start_step=2, workers=2))
    assert (len(alone), len(helped)) == (7, 5)
    assert same(alone[2:], helped)
    assert torch.equal(state, torch.get_rng_state())


def test_a_batch_holds_its_samples_in_order_with_colours_from_0_to_1(listing):
    dataset = TrainClips(listing, CONFIG, seed=3)
    batch = next(batches_of(dataset, 3, 1))
    samples = [train_sample(dataset, 0, int(index)) for index in draw_epoch_order(6, 3, 0)[:3]]
    assert batch.clip.shape == (6, 3, 4, 16, 16)  # three videos, two copies of each side by side
    torch.testing.assert_close(batch.clip * 255, torch.cat([sample.clip for sample in samples]).float())
    assert batch.seed.tolist() == [seed for sample in samples for seed in sample.seed.tolist()]
    assert batch.label.tolist() == [label for sample in samples for label in sample.label.tolist()]


@settings(max_examples=40)
@given(broken=st.sets(st.integers(0, 19), max_size=4), start=st.integers(0, 9))
def test_the_next_of_the_order_replaces_a_broken_video(broken, start):
    how = {"start_step": start, "max_broken_fraction": 0.2}
    plain, mended = (list(batches_of(RowDataset(20, broken=out), 4, 10, **how)) for out in ((), tuple(broken)))
    assert all(torch.equal(one.seed, other.seed) for one, other in zip(plain, mended, strict=True))
    whole, labels = (chain(*(batch.label.tolist() for batch in batches)) for batches in (plain, mended))
    for position, (meant, video) in enumerate(zip(whole, labels, strict=True), start * 4):
        order = draw_epoch_order(20, 0, position // 20).tolist()
        after = order[position % 20 :] + order[: position % 20]
        assert video == next(v for v in after if v not in broken)
        assert (video == meant) == (meant not in broken)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_video_is_named_once(warnings, workers):
    broken = [int(video) for video in draw_epoch_order(20, 0, 0)[7:9]]  # the second is asked for for two batches
    load_labels(RowDataset(20, broken=tuple(broken)), 4, 15, max_broken_fraction=0.1, workers=workers)
    assert warnings() == [f"video {n} is broken; another video replaces it" for n in broken]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_videos_stop_training_with_their_names(workers):
    dataset = RowDataset(200, broken=(3, 8, 150))
    with pytest.raises(InputError, match=r"^3 of 200 videos are broken, and at most 2 may be") as error:
        load_labels(dataset, 4, 50, workers=workers)
    assert all(f"video {n} is broken" in str(error.value) for n in dataset.broken)


def test_where_nothing_decodes_training_stops_at_once():
    with pytest.raises(InputError, match="videos are broken"):
        load_labels(RowDataset(20, broken=tuple(range(20))), 4, 50)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_input_error_in_a_worker_arrives_with_its_message(tmp_path, workers):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.png 0\n")
    dataset = TrainClips(open_manifest(tmp_path / "list.txt"), CONFIG, seed=0)
    with pytest.raises(InputError, match=r"^\S+b\.png is an image, a clip of one frame, but clips have 4 frames"):
        load_labels(dataset, 2, 1, workers=workers)


def test_an_epoch_that_the_videos_do_not_fill_is_refused():
    with pytest.raises(InputError, match="7 videos do not fill 2 steps of 4"):  # at once, not at the first batch
        iter_train_batches(RowDataset(7), videos_per_step=4, steps_per_epoch=2, total_steps=1, device=CPU)


def test_a_step_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"6 videos a step do not divide into 2 micro-batches on 2 .* multiple of 4"):
        batches_of(RowDataset(30), 6, 1, accumulation_steps=2, world_size=2)


@pytest.mark.parametrize(("workers", "world"), [(0, 1), (0, 4), (2, 1)])
def test_an_evaluation_loads_every_video_once(listing, workers, world):
    dataset, broken, how = ViewClips(listing, VIEWS), {}, {"world_size": world, "workers": workers}
    batches = [batch for rank in range(world) for batch in views_of(dataset, 4, broken, rank=rank, **how)]
    assert sorted(position for batch in batches for position in batch.video_index.tolist()) == list(range(6))
    assert broken == {}
    for batch in batches:
        assert batch.clip.shape[1:] == (6, 3, 4, 16, 16)
        for clip, label, position in zip(*batch, strict=True):
            views = view_sample(dataset, int(position))
            torch.testing.assert_close(clip * 255, views.clip.float())
            assert int(label) == views.label == listing.rows[int(position)].label


def test_an_evaluation_reports_a_broken_video_and_leaves_it_out(tmp_path, warnings):
    for name in ("a", "c", "d"):
        write_video(tmp_path / f"{name}.mp4")
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "e.mp4").write_bytes(b"")  # a batch of its own, of which nothing is left
    broken: dict[int, str] = {}
    batches = list(views_of(ViewClips(open_manifest(tmp_path), VIEWS), 2, broken))
    assert [batch.video_index.tolist() for batch in batches] == [[0], [2, 3]]
    assert sorted(broken) == [1, 4]
    assert "b.mp4" in broken[1]
    assert [message.endswith("it is left out") for message in warnings()] == [True, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_ignores_signals_to_stop(number):
    batches = batches_of(RowDataset(8), 2, 40, workers=1)
    first = next(batches)
    for worker in multiprocessing.active_children():  # a terminal's Ctrl-C, and `timeout`, reach them too
        os.kill(worker.pid, number)
    assert [batch.label.tolist() for batch in (first, *batches)] == load_labels(RowDataset(8), 2, 40)


@pytest.mark.survival("SIGKILL of a worker", "1→1", "same bits")
def test_a_worker_that_is_killed_changes_nothing():
    batches = batches_of(RowDataset(8), 2, 40, workers=2)
    labels = []
    for batch in batches:
        labels.append(batch.label.tolist())
        if len(labels) in (5, 20):
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            time.sleep(0.05)  # a training step, which nothing disturbs
    assert labels == load_labels(RowDataset(8), 2, 40)


DEADLY = {3: hang, 11: lambda: kill(signal.SIGSEGV), 12: lambda: kill(signal.SIGABRT)}


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.survival("hung decoder in training", "1→1", "same bits")
@pytest.mark.survival("worker SEGV in training", "1→1", "same bits")
def test_a_decoder_that_hangs_or_dies_is_a_broken_video(caplog, warnings, start):
    how = {"start_step": start, "max_broken_fraction": 0.2}
    plain = list(batches_of(RowDataset(20, broken=tuple(DEADLY)), 4, 15, **how))
    caplog.clear()
    results = list(batches_of(RowDataset(20, on_load=DEADLY), 4, 15, workers=2, timeout_seconds=0.4, **how))
    assert len(results) == 15 - start
    assert same(plain, results)
    assert sorted(message for message in warnings() if "replaces" in message) == [
        "videos/11.mp4 ended its process (signal 11); another video replaces it",
        "videos/12.mp4 ended its process (signal 6); another video replaces it",
        "videos/3.mp4 took longer than 0.4 s and was killed; another video replaces it",
    ]


@pytest.mark.survival("hung decoder, for more videos than the allowed share", "1→1", "refused with a sentence")
def test_too_many_hanging_decoders_stop_training_with_their_names():
    with pytest.raises(InputError, match=r"^2 of 20 videos are broken, and at most 1 may be") as error:
        load_labels(RowDataset(20, on_load=DEADLY), 4, 15, workers=2, timeout_seconds=0.4)
    assert error.value.args[0].count("videos/") == 2


def test_an_evaluation_reports_a_decoder_that_hangs_or_dies():
    broken: dict[int, str] = {}
    batches = list(views_of(RowViews(20, on_load=DEADLY), 3, broken, workers=2, timeout_seconds=0.4))
    loaded = [position for batch in batches for position in batch.video_index.tolist()]
    assert loaded == [n for n in range(20) if n not in DEADLY]
    assert broken == {
        3: "videos/3.mp4 took longer than 0.4 s and was killed",
        11: "videos/11.mp4 ended its process (signal 11)",
        12: "videos/12.mp4 ended its process (signal 6)",
    }


@pytest.mark.survival("out of memory in training, at the same video twice", "1→1", "refused with a sentence")
@pytest.mark.parametrize("load", [load_labels, lambda data, *how, **named: list(views_of(data, 3, {}, **named))])
def test_short_memory_breaks_no_video_in_training_and_in_an_evaluation(load):
    data = (RowViews if load is not load_labels else RowDataset)(20, on_load={12: lambda: kill(signal.SIGKILL)})
    with pytest.raises(InputError, match=r"^the worker of videos/12\.mp4 was killed twice .* memory ran out"):
        load(data, 4, 15, workers=2)


def gone() -> None:
    raise StorageUnreachable("s3://bucket does not answer")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_does_not_answer_stops_loading(workers):
    batches = batches_of(RowDataset(20, on_load={int(draw_epoch_order(20, 0, 0)[6]): gone}), 4, 5)
    assert len(list(islice(batches, 1))) == 1  # what came before it
    with pytest.raises(StorageUnreachable, match=r"^s3://bucket does not answer$"):
        next(batches)
    batches = views_of(RowViews(20, on_load={2: gone}), 2, workers=workers)
    assert next(batches).video_index.tolist() == [0, 1]
    with pytest.raises(StorageUnreachable, match=r"^s3://bucket does not answer$"):
        next(batches)


@pytest.mark.parametrize(("videos", "allowed"), [(9, 0), (10, 1), (199, 1), (200, 2)])
def test_of_ten_videos_or_more_one_may_be_broken(videos, allowed):
    assert len(load_labels(RowDataset(videos, broken=tuple(range(allowed))), 1, videos)) == videos
    message = rf"^{allowed + 1} of {videos} videos are broken, and at most {allowed} may be"
    with pytest.raises(InputError, match=message):
        load_labels(RowDataset(videos, broken=tuple(range(allowed + 1))), 1, videos)


def test_a_broken_video_is_not_tried_again():
    dataset = RowDataset(20, broken=(3, 8))
    load_labels(dataset, 4, 15, max_broken_fraction=0.1)
    tries = Counter(dataset.loaded)
    assert tries[3] == tries[8] == 1
    assert sum(tries.values()) == 15 * 4 + 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_a_scan_calls_broken_is_named_with_its_reason_and_not_opened(tmp_path, warnings, workers):
    listing = numbered_listing(tmp_path, 12)
    columns = {"label": listing.rows.labels, "frames": [20] * len(listing)}
    names = [row.name for row in listing.rows]
    rows = VideoTable(tmp_path, names, columns, errors={4: "does not decode: no key frame"})
    Path(listing.rows[4].source).unlink()
    dataset = TrainClips(replace(listing, rows=rows), CONFIG, seed=3)
    list(batches_of(dataset, 4, 6, workers=workers))
    assert warnings() == [f"{rows[4].source} does not decode: no key frame; another video replaces it"]


def numbered_listing(folder: Path, videos: int) -> Manifest:
    first = write_video(folder / "00.mp4", 20)
    for number in range(1, videos):
        shutil.copy(first, folder / f"{number:02}.mp4")
    return open_manifest(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_deleted_or_cut_in_mid_epoch_is_replaced(tmp_path, warnings, workers):
    """With the samples, to the bit, of a run in which those files were broken from the start."""
    how = {"max_broken_fraction": 0.1, "workers": workers}
    late = [int(video) for video in draw_epoch_order(30, 3, 0)[[20, 21, 25]]]  # long after what is asked for ahead
    results = {}
    for name in ("from the start", "in mid-epoch"):
        dataset = TrainClips(numbered_listing(tmp_path / name, 30), CONFIG, seed=3)
        batches = batches_of(dataset, 2, 15, **how)
        first = next(batches) if name == "in mid-epoch" else None
        deleted, _, cut = (Path(dataset.manifest.rows[video].source) for video in late)
        deleted.unlink()
        cut_short(cut)
        results[name] = [*([first] if first else []), *batches]
    assert len(results["in mid-epoch"]) == 15
    assert same(*results.values())
    named = [message for message in warnings() if "mid-epoch" in message]
    assert len(named) == 2
    assert all(any(f"{video:02}.mp4" in sentence for sentence in named) for video in (late[0], late[2]))


def test_a_pipe_is_replaced(tmp_path, warnings):
    listing = numbered_listing(tmp_path, 12)
    pipe = Path(listing.rows[5].source)
    pipe.unlink()
    os.mkfifo(pipe)  # nobody ever writes to it
    dataset = TrainClips(listing, CONFIG, seed=3)
    assert len(list(batches_of(dataset, 4, 6, workers=2, timeout_seconds=1.0))) == 6
    assert warnings() == [f"{pipe} is a FIFO and no file, and is not opened; another video replaces it"]


def test_no_more_is_prefetched_than_stated(tmp_path):
    start_time = {video: (tmp_path / f"{video}").touch for video in range(200)}
    batches = batches_of(RowDataset(200, on_load=start_time), 5, 40, workers=3)
    for num_batches in range(3):
        next(batches)
        deadline = time.monotonic() + 20
        ready = 5 * (num_batches + 1) + 5 + (5 + 2 * 3) - 1  # taken, gathered, kept by the workers; the last is in use
        while len(list(tmp_path.iterdir())) < ready:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        assert len(list(tmp_path.iterdir())) == ready


def test_closed_batches_leave_no_process_and_no_thread():
    before = children(), threading.active_count()
    batches = batches_of(RowDataset(20, on_load={int(draw_epoch_order(20, 0, 0)[3]): hang}), 2, 5, workers=2)
    next(batches)
    start_time = time.monotonic()
    batches.close()
    assert time.monotonic() - start_time < 4
    assert (children(), threading.active_count()) == before


@pytest.mark.nightly
def test_the_memory_of_workers_does_not_grow_with_the_number_of_rows():
    def measure(rows: int) -> list[dict[str, float]]:
        script = [sys.executable, PROJECT / "scripts/loader_memory.py", "--rows", str(rows), "--samples", "1000"]
        return json.loads(subprocess.check_output(script))["workers_mb"]

    few, many = measure(1000), measure(1_000_000)
    assert len(few) == len(many) == 2
    for worker in many:
        assert worker["private"] < 100
        assert worker["share"] < 300
        assert worker["private"] < max(other["private"] for other in few) + 30
