"""The parts of a step: named for what a method has, without overlap, and gone when the measurement ends."""

import time

import pytest
import torch
from tiny_models import AMD, CLASSES, ENCODER, MASKAGAIN, MVD, VIDEOMAE

from vidstill.bench import parts as bench_parts
from vidstill.bench.parts import PartTimer, time_parts
from vidstill.engine.distributed import Runtime
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig

CPU = torch.device("cpu")
COMMON = {"embed", "student", "loss", "backward", "optimizer", "loop"}


def build_classification() -> ClassificationTask:
    model = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES).build()
    return ClassificationTask(model, mixup=None, random_erasing=None, label_smoothing=0.0)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (VIDEOMAE.build, {"mask", "decoder", "target"}),
        (MVD.build, {"mask", "teachers", "decoder", "target"}),
        (AMD.build, {"mask", "teachers", "decoder", "target", "projections", "generators"}),
        (MASKAGAIN.build, {"mask", "teachers"}),
        (build_classification, {"head"}),
    ],
)
def test_the_parts_of_a_step_are_those_of_its_method(build, names):
    task, runtime = build().train(), Runtime("fp32")
    attributes = set(vars(task)) | set(vars(task.encoder if hasattr(task, "encoder") else task.model.encoder))
    start = time.perf_counter()
    with time_parts(task, runtime, CPU) as seconds:
        loss = task(torch.rand(2, 3, 4, 16, 12), torch.tensor([0, 1]), torch.tensor([1, 2])).loss
        runtime.backward(loss, 1)
        optimizer = torch.optim.SGD(task.parameters(), lr=0.0)
        runtime.clip_grad_norm(list(task.parameters()), optimizer, None)
        runtime.step_optimizer(optimizer, accept=torch.tensor(True))
    elapsed = time.perf_counter() - start
    assert seconds.keys() == COMMON | names
    assert all(value > 0 for value in seconds.values())
    assert 0.5 * elapsed < sum(seconds.values()) <= elapsed
    after = set(vars(task)) | set(vars(task.encoder if hasattr(task, "encoder") else task.model.encoder))
    assert after == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.modules())
    assert "backward" not in vars(runtime)


def test_a_part_within_a_part_is_not_counted_twice(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bench_parts.time, "perf_counter", lambda: now[0])
    timer = PartTimer(CPU, "loop")
    now[0] += 1
    timer.enter("student")
    now[0] += 2
    timer.enter("embed")
    now[0] += 4
    timer.leave()
    now[0] += 8
    timer.leave()
    timer.enter("backward")
    timer.enter("student")  # recomputed
    now[0] += 16
    timer.leave()
    timer.leave()
    assert timer.seconds == {"loop": 1, "student": 10, "embed": 4, "backward": 16}
