"""Command lines of the smallest runs, by the quickstart's recipes: width 24, depth 2, clips of 4 frames of 16 × 16."""

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fresh_programs import FreshProgram
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from vidstill.cli.main import main
from vidstill.engine.trainer import Trainer
from vidstill.synthetic.boxes import SyntheticBoxesConfig
from vidstill.synthetic.dataset import SyntheticClipsConfig, make_dataset

CLASSES = ("left", "right")
STEPS = {"teacher": 20, "amd": 20, "finetune": 10}  # 10 epochs

_LAUNCH = "--workers 0 --precision fp32"
_CLIPS = "--clips.size 16 16 --clips.sampling.num-frames 4 --batch 8"
_ENCODER = "encoder.dim 24 --{0}encoder.depth 2 --{0}encoder.heads 2 --{0}encoder.tubelet 2 4 4"
_POSITIONS = "encoder.positions sinusoid"
_METHOD = (
    f"--method.{_ENCODER.format('method.')} --method.{_POSITIONS} --method.decoder.dim 16 --method.decoder.depth 1 "
    "--method.decoder.heads 2 --method.decoder.positions sinusoid"
)
_SCHEDULE = "--schedule.epochs 10 --schedule.warmup-epochs 1 --optim.base-lr 0.1"

TEACHER = f"pretrain quickstart.teacher {_LAUNCH} {_CLIPS} {_METHOD} {_SCHEDULE} --method.encoder.depth 3"
IMAGE_TEACHER = (
    f"pretrain quickstart.image_teacher {_LAUNCH} {_CLIPS} {_METHOD} {_SCHEDULE} --clips.sampling.num-frames 1 "
    "--method.encoder.tubelet 1 4 4"
)
AMD = f"pretrain quickstart.amd {_LAUNCH} {_CLIPS} {_METHOD} {_SCHEDULE} --method.layer-pairs 1 2 2 3"
MVD = f"pretrain quickstart.mvd {_LAUNCH} {_CLIPS} {_METHOD} {_SCHEDULE}"
MASKAGAIN = (
    f"pretrain quickstart.maskagain {_LAUNCH} {_CLIPS} --method.{_ENCODER.format('method.')} --method.{_POSITIONS} "
    f"{_SCHEDULE} --method.output.relation-clips 2"
)
DMAE = f"pretrain quickstart.dmae {_LAUNCH} {_CLIPS} {_METHOD} {_SCHEDULE} --method.layer-pairs 1 2"
STMAE = (
    f"pretrain stmae.base_k400 {_LAUNCH} {_CLIPS} --clips.repeats 2 {_METHOD} {_SCHEDULE} "
    "--method.encoder.positions separable --method.encoder.learned-grid 2 4 4 "
    "--method.decoder.positions learned --method.decoder.learned-grid 2 4 4"
)
FINETUNE = (
    f"finetune quickstart.finetune {_LAUNCH} {_CLIPS} --{_ENCODER.format('')} --{_POSITIONS} {_SCHEDULE} "
    "--views.size 16 16 --views.short-side 16 --views.sampling.num-frames 4 --views.temporal-clips 2 "
    "--views.spatial-crops 3"
)


METHODS = {"imagemae": IMAGE_TEACHER, "stmae": STMAE, "mvd": MVD, "amd": AMD, "maskagain": MASKAGAIN, "dmae": DMAE}
_TEACHERS = {
    "imagemae": {},
    "stmae": {},
    "mvd": {"method__image__checkpoint": "image_teacher", "method__video__checkpoint": "teacher"},
}
_TEACHER = {"method__teacher__checkpoint": "teacher"}


def teachers_of(method: str, folder: Path) -> dict[str, Path]:
    """The options that give one of METHODS its teachers' weights, runs of that folder."""
    return {option: folder / name for option, name in _TEACHERS.get(method, _TEACHER).items()}


def make_data(folder: Path) -> Path:
    """Drawn clips with their lists: 16 without labels, 8 to train on, 6 to test on."""
    config = SyntheticClipsConfig(train=8, val=6, unlabelled=16, frames=8, size=(16, 24), classes=CLASSES)
    return copy_dataset(folder, config)


def copy_dataset(folder: Path, config: SyntheticClipsConfig | SyntheticBoxesConfig) -> Path:
    """Make a drawn dataset in this folder; each is drawn once in a process."""
    return shutil.copytree(Path(_draw_dataset(config).name), folder, dirs_exist_ok=True)


@cache
def _draw_dataset(config: SyntheticClipsConfig | SyntheticBoxesConfig) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    make_dataset(Path(folder.name), config, workers=1)
    return folder


def typed(command: str, **options: Any) -> list[str]:
    """A command line with more options; `method__mask__ratio=0.5` is `--method.mask.ratio 0.5`."""
    more = []
    for name, value in options.items():
        more += [
            "--" + name.replace("__", ".").replace("_", "-"),
            *map(str, value if isinstance(value, tuple) else [value]),
        ]
    return [*command.split(), *more]


def run(command: str, **options: Any) -> None:
    assert main(typed(command, **options)) == 0


def kill_run(arguments: list[str], out: Path, text: str = "\n", count: int = 4) -> None:
    """Start a run in a process of one thread, and kill it as soon as its log has the text this often."""
    program = FreshProgram(arguments, out.with_name(f"{out.name}.txt"))
    wait_for_log(out, text, count, alive=program.is_alive)
    assert program.kill() == -signal.SIGKILL


def interrupt(command: list[str], monkeypatch: pytest.MonkeyPatch, step: int = 2) -> None:
    """Run a command in this process until the user interrupts it after a step."""
    train_step = Trainer.train_step

    def train_or_stop(self: Trainer, batches: Any) -> Any:
        if self.completed_steps == step:
            raise KeyboardInterrupt
        return train_step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_or_stop)
        assert main(command) == 130


def wait_for_log(out: Path, text: str, count: int, alive: Callable[[], bool]) -> None:
    path = out / "log.jsonl"
    while not path.exists() or path.read_text().count(text) < count:
        assert alive(), "the run ended before it could be killed"
        time.sleep(0.001)


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model.safetensors")


def about(out: Path) -> dict[str, Any]:
    """What a run's weights say of themselves."""
    with safe_open(out / "model.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["vidstill"])


def log(out: Path) -> list[dict[str, Any]]:
    """A run's steps, without what the clock says."""
    clock = ("data_seconds", "step_seconds", "clips_per_second", "data_wait", "mfu")
    steps = [line for line in _read_log(out) if "loss" in line]
    return [{name: value for name, value in line.items() if name not in clock} for line in steps]


def read_validation(out: Path) -> list[dict[str, float]]:
    """A run's validation scores of each epoch."""
    return [line["validation"] for line in _read_log(out) if "validation" in line]


def _read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
