"""Batches on their way to a GPU: begun one ahead on a stream of their own, waited for by the stream that computes.

No GPU is needed: streams, events and columns are replaced by ones that record what they are asked.
"""

from contextlib import contextmanager

import pytest
import torch

from vidstill.data.loader.loader import _prefetch
from vidstill.data.loader.transfer import Transfer

GPU = torch.device("cuda", 0)


class Column(torch.Tensor):
    """Stands for a tensor in page-locked memory, or for its copy."""

    label: str
    log: list

    def to(self, device, non_blocking=False):
        assert (device, non_blocking) == (GPU, True)
        self.log.append(f"copy {self.label}")
        return make_column(f"{self.label} on the GPU", self.log)

    def record_stream(self, stream):
        self.log.append(f"{stream.name} uses {self.label}")


def make_column(name: str, log: list) -> Column:
    column = torch.ones(1).as_subclass(Column)
    column.label, column.log = name, log
    return column


class Stream:
    def __init__(self, name: str, log: list):
        self.name, self.log, self.num_events = name, log, 0

    def record_event(self) -> str:
        self.num_events += 1
        return f"event {self.num_events}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


@pytest.fixture
def log(monkeypatch):
    """What happens, in order."""
    log, computing = [], []

    @contextmanager
    def use(stream):
        log.append(f"to {stream.name}")
        yield
        log.append(f"from {stream.name}")

    computing.append(Stream("computing", log))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copying", log))
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing[0])
    return log


def test_a_batch_is_copied_on_its_own_stream_and_waited_for_where_it_is_used(log):
    transfer = Transfer(GPU)
    pending = transfer.begin([(make_column("clip", log), make_column("seed", log))])
    assert log == []
    batch = next(pending)
    assert log == ["to copying", "copy clip", "copy seed", "from copying"]
    log.clear()
    clip, seed = transfer.finish(batch)
    assert log == ["computing waits for event 1", "computing uses clip on the GPU", "computing uses seed on the GPU"]
    assert (clip.label, seed.label) == ("clip on the GPU", "seed on the GPU")
    assert list(pending) == []


def test_the_next_batch_is_copied_while_one_is_used_and_the_order_is_kept(log):
    transfer = Transfer(GPU)
    columns = [(make_column(str(number), log),) for number in range(4)]
    names = []
    batches = _prefetch(transfer.begin(columns), lambda: None, torch.device("cpu"))
    for number, batch in enumerate(batches):
        (column,) = transfer.finish(batch)
        names.append(column.label)
        assert f"copy {number}" in log
        assert f"copy {number + 2}" not in log
    assert names == [f"{number} on the GPU" for number in range(4)]
    assert [text for text in log if "waits" in text] == [f"computing waits for event {n}" for n in range(1, 5)]


def test_on_a_cpu_the_columns_are_the_same_tensors():
    columns = (torch.ones(2), torch.zeros(1))
    transfer = Transfer(torch.device("cpu"))
    (batch,) = transfer.begin([columns])
    assert all(one is other for one, other in zip(transfer.finish(batch), columns, strict=True))
