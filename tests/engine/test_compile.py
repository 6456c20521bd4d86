"""Compiled tasks compute what the others do, in one graph for all blocks of a kind, from the second step on the same.

They run in fresh processes: the tests' type checks are no part of what users compile.
"""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fresh_programs import start_fresh
from tiny_models import CLASSES, ENCODER, METHODS
from torch import Tensor, nn

from vidstill.cli.main import main
from vidstill.engine.compile import choose_compile_mode, compile_task
from vidstill.engine.mixed_precision import ParameterCast
from vidstill.engine.regions import checkpoint_activations
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig
from vidstill.utils.types import InputError

CPU = torch.device("cpu")

# Graphs of the blocks: the first of a student of three has no drop path, the others have.
GRAPHS = {
    "videomae": 3,  # two of the student, one of the decoder
    "imagemae": 3,
    "stmae": 3,
    "dmae": 4,  # and one of the teacher
    "amd-serial": 5,  # teacher, decoder, generators
    "mvd": 5,  # two teachers, and decoders of one kind
    "maskagain": 7,  # attention maps, and blocks that apply them, are two of student and teacher each
    "classifier": 2,
}


def build_task(name: str) -> nn.Module:
    torch.manual_seed(0)
    encoder = {"drop_path": 0.2, "depth": 3, "layer_scale": 0.1}
    if name == "classifier":
        config = replace(ENCODER, relative_positions=True, class_token=True, learned_grid=(2, 4, 3), **encoder)
        model = ClassifierConfig(encoder=config, num_classes=CLASSES).build()
        return ClassificationTask(model, mixup=None, random_erasing=None, label_smoothing=0.1).train()
    config = METHODS[name]
    return replace(config, encoder=replace(config.encoder, **encoder)).build().train()


def run_steps(task: nn.Module, *, steps: int = 3, dtype: torch.dtype = torch.float32) -> list[float]:
    """Train, and return the losses; a program that compiles a graph after the second step fails."""
    from torch._dynamo.utils import counters

    cast, optimizer, losses = ParameterCast(task, dtype), torch.optim.AdamW(task.parameters(), 1e-3), []
    for step in range(steps):
        torch.manual_seed(step)
        clip, seed, label = torch.rand(4, 3, 4, 16, 12), torch.arange(4) + step, torch.arange(4)
        before = counters["stats"]["unique_graphs"]
        with cast.apply():
            loss = task(clip, label, seed).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        assert step < 2 or counters["stats"]["unique_graphs"] == before
    return losses


def compare(name: str, mode: str, backend: str, dtype: torch.dtype, tolerance: float, num_graphs: int) -> None:
    from torch._dynamo.utils import counters

    plain, compiled = build_task(name), build_task(name)
    names = list(compiled.state_dict())
    compile_task(compiled, mode, CPU, backend=backend)
    losses = run_steps(plain, dtype=dtype), run_steps(compiled, dtype=dtype)
    assert losses[1] == pytest.approx(losses[0], rel=tolerance, abs=0)
    counted = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
    assert counted == (num_graphs, {}), counted
    assert list(compiled.state_dict()) == names == list(dict(compiled.named_parameters()) | dict(plain.state_dict()))


def run_fresh(function, *args) -> int:
    process = start_fresh(function, *args)
    process.join()
    return process.exitcode


@pytest.mark.parametrize("name", GRAPHS)
def test_blocks_of_a_kind_share_one_graph_and_compute_the_same_bits(name):
    assert run_fresh(compare, name, "blocks", "eager", torch.bfloat16, 0.0, GRAPHS[name]) == 0


@pytest.mark.parametrize("name", ["amd-serial", "maskagain", "classifier"])
def test_a_whole_task_is_one_graph(name):
    assert run_fresh(compare, name, "full", "eager", torch.float32, 0.0, 1) == 0


def test_compiled_gradients_train_alike():
    assert run_fresh(compare, "videomae", "blocks", "aot_eager", torch.float32, 1e-5, 3) == 0


def check_eval_mode() -> None:
    """What is trained is not compiled in eval mode, and a copy of it has weights of its own."""
    from torch._dynamo.utils import counters

    task, plain = build_task("classifier"), build_task("classifier")
    compile_task(task, "blocks", CPU, backend="eager")
    other = copy.deepcopy(task)
    clip = torch.rand(1, 3, 4, 16, 12)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.zero_()
        expected = plain.eval().model.encoder(clip).tokens
        assert torch.equal(other.eval().model.encoder(clip).tokens, expected)
        assert not torch.equal(task.eval().model.encoder(clip).tokens, expected)
    assert not counters["stats"]["unique_graphs"]


def test_validation_is_not_compiled_and_copies_are_independent():
    assert run_fresh(check_eval_mode) == 0


def test_auto_compiles_on_a_gpu_only_and_where_shapes_stay():
    task, gpu = build_task("classifier"), torch.device("cuda")
    assert [choose_compile_mode("auto", task, device) for device in (CPU, gpu)] == ["off", "blocks"]
    assert choose_compile_mode("full", task, CPU) == "full"
    masked = ClassificationTask(task.model, mixup=None, random_erasing=None, label_smoothing=0.0, mask_ratio=0.5)
    assert choose_compile_mode("auto", masked, gpu) == "off"
    with pytest.raises(InputError, match="--compile blocks needs equally many tokens in every step"):
        choose_compile_mode("blocks", masked, gpu)


class LiveBytes(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the bytes that operators have allocated and that are still in use."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = torch.multiprocessing.reductions.StorageWeakRef(storage), len(storage)
        return result

    def count(self) -> int:
        return sum(size for storage, size in self.storages.values() if not storage.expired())


@pytest.mark.parametrize("name", ["videomae", "maskagain", "classifier"])
def test_checkpointed_activations_give_the_same_bits_in_less_memory(name):
    results = []
    for is_checkpointed in (False, True):
        task = build_task(name)
        if is_checkpointed:
            checkpoint_activations(task)
        torch.manual_seed(1)
        clip, seed = torch.rand(4, 3, 4, 16, 12), torch.arange(4)
        torch.manual_seed(2)  # drop path
        with LiveBytes() as memory:
            loss = task(clip, torch.arange(4), seed).loss
            used = memory.count()
        loss.backward()
        results.append((loss.detach(), used, [parameter.grad for parameter in task.parameters()]))
    (loss, used, grads), (checkpointed_loss, checkpointed_used, checkpointed_grads) = results
    assert torch.equal(loss, checkpointed_loss)
    assert len(grads) == len(checkpointed_grads) > 0
    assert all(torch.equal(*pair) for pair in zip(grads, checkpointed_grads, strict=True) if pair[0] is not None)
    assert checkpointed_used < 0.75 * used


def check_both() -> None:
    """Compiled blocks are computed a second time by the same graphs."""
    from torch._dynamo.utils import counters

    plain, task = build_task("videomae"), build_task("videomae")
    compile_task(task, "blocks", CPU, backend="aot_eager")
    checkpoint_activations(task)
    assert run_steps(task) == pytest.approx(run_steps(plain), rel=1e-5)
    assert counters["stats"]["unique_graphs"] == GRAPHS["videomae"]


def test_compiled_blocks_are_checkpointed_too():
    assert run_fresh(check_both) == 0


COMMAND = "pretrain quickstart.videomae --data made:unlabelled=16,size=32x32,frames=8,classes=2 --workers 0 --batch 8"
SHORT = "--schedule.epochs 2 --schedule.warmup-epochs 0 --precision fp32 --method.encoder.depth 1"


def run_program(out: Path, *options: str, **environment: str) -> tuple[int, str]:
    printed = out.with_suffix(".txt")
    arguments = [*COMMAND.split(), *SHORT.split(), "--out", str(out), *options]
    process = start_fresh(main, arguments, environment=environment, printed=printed)
    process.join()
    return process.exitcode, printed.read_text()


def test_a_machine_without_a_compiler_refuses_in_one_sentence_and_writes_nothing(tmp_path):
    command = [sys.executable, "-m", "vidstill.cli", *COMMAND.split(), *SHORT.split(), "--compile", "blocks"]
    environment = os.environ | {"CXX": "/nonexistent"}  # it is read where torch is imported
    run = subprocess.run([*command, "--out", str(tmp_path / "run")], env=environment, capture_output=True, text=True)
    assert run.returncode == 2
    assert "install a C++ compiler such as g++, or take --compile off" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run" / "recipe.json").exists()


@pytest.mark.slow
def test_a_compiled_run_writes_what_the_others_write(tmp_path):
    options, cache = ("--compile", "blocks", "--activation-checkpointing"), str(tmp_path / "cache")
    assert run_program(tmp_path / "plain")[0] == 0
    assert run_program(tmp_path / "compiled", *options, TORCHINDUCTOR_CACHE_DIR=cache)[0] == 0
    assert os.listdir(cache)
    plain, compiled = (
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("plain", "compiled")
    )
    losses = [[record["loss"] for record in log if "loss" in record] for log in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert "holds the finished run" in run_program(tmp_path / "compiled")[1]  # without --compile
