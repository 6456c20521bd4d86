"""How a command uses this machine, and where a run reads and writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.datasets.open_cache import open_frame_cache
from vidstill.data.manifest.manifest import Manifest
from vidstill.engine.compile import RequestedCompileMode, choose_compile_mode, compile_task
from vidstill.engine.cpu import count_cores, count_local_processes
from vidstill.engine.distributed import Precision, Runtime
from vidstill.engine.regions import checkpoint_activations
from vidstill.pipelines.box_data import BoxDataConfig
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The options that every command on videos takes; its results depend on them only by rounding."""

    workers: int = -1  # decoding processes per device; -1: the device's share of the CPU cores, minus one
    device_batch: int | None = None  # clips that a device processes at once; None: all clips of a batch
    precision: Precision = "auto"  # auto: bf16 where the device computes it fast, else fp32

    def __post_init__(self) -> None:
        if self.workers < -1:
            raise InputError(f"--workers is {self.workers}; give 0 or more, or -1 for one less than there are cores")
        if self.device_batch is not None and self.device_batch < 1:
            raise InputError(f"--device-batch is {self.device_batch}; give 1 or more clips")

    @property
    def num_workers(self) -> int:
        """Decoding processes of this process: `workers`, or its share of the cores minus one where that is -1."""
        if self.workers >= 0:
            return self.workers
        return max(1, count_cores() // count_local_processes() - 1)


@dataclass(frozen=True, kw_only=True)
class BaseRunConfig(Workers):
    """What every training needs beside its recipe."""

    # directory of videos or of class directories, list, or packed shards, a path or URL; or clips that are drawn in
    # memory: made:train=600,val=300,size=32x32
    data: str | Path
    out: Path  # run directory; the same command again resumes the run in it
    save_seconds: float = 600.0  # seconds between two checkpoints
    keep_states: int = 2  # checkpoints that remain in the run directory, the newest ones
    keep_every: int | None = None  # steps after each of which a checkpoint is saved that remains
    resume_from: int | None = None  # step of a checkpoint of this run to go on from; None: the newest one
    # KEY=VALUE …: settings with which the run goes on, such as optim.base_lr=1e-4 or schedule.epochs=200; recorded, so
    # that the command without them goes on with them too
    resume_with: tuple[str, ...] = ()
    # torch.compile in training, of the blocks (one graph for all of a kind) or of everything in one graph (full); auto:
    # blocks on a GPU, off on a CPU
    compile: RequestedCompileMode = "auto"
    # keep only the inputs of the blocks for the backward pass and compute them twice: less memory, more time
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.save_seconds >= 0:
            raise InputError(f"--save-seconds is {self.save_seconds}; give 0 or more seconds")
        for option, number in (("--keep-states", self.keep_states), ("--keep-every", self.keep_every)):
            if number is not None and number < 1:
                raise InputError(f"{option} is {number}; give 1 or more")

    def prepare_task(self, task: nn.Module, runtime: Runtime) -> str:
        """Compile a task's training and checkpoint its activations, as far as wanted; return a message.

        Raises:
            InputError: It was asked to be compiled, and cannot be; raised on every rank.
        """
        mode, error = choose_compile_mode(self.compile, task, runtime.device), ""
        try:
            compile_task(task, mode, runtime.device)
        except InputError as raised:
            error = str(raised)
        error = next(filter(None, runtime.all_gather(error)), "")
        if error and self.compile != "auto":
            raise InputError(error)
        if self.activation_checkpointing:
            checkpoint_activations(task)
        if error:
            return f"nothing is compiled: {error}"
        return "" if mode == "off" else f"compiling in the first steps, which take longer (--compile {mode})"


@dataclass(frozen=True, kw_only=True)
class ClipRunConfig(BaseRunConfig):
    """What every training on clips of whole videos needs."""

    # hold videos of training and validation decoded in memory, each decoded once, where they fit a quarter of what is
    # free (off: never); results are the same
    cache: Literal["auto", "off"] = "auto"

    def open_cache(self, manifest: Manifest) -> tuple[FrameCache | None, str]:
        """Open the cache of a dataset's decoded videos if one is wanted, as `open_frame_cache` does."""
        return (None, "") if self.cache == "off" else open_frame_cache(manifest, workers=self.num_workers)


@dataclass(frozen=True, kw_only=True)
class RunConfig(ClipRunConfig):
    """Where and how a pre-training runs; its results depend on this only by rounding."""

    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51


@dataclass(frozen=True, kw_only=True)
class FinetuneRunConfig(ClipRunConfig):
    """Where and how a fine-tuning runs; its results depend on this only by rounding."""

    # labelled test videos, their val split if they have splits; None: that of data, or what --val-share holds out
    test_data: str | Path | None = None
    # labelled videos scored after each epoch, as for test_data; None: what --val-share holds out, or the val split, or
    # the test set
    val_data: str | Path | None = None
    # share of the training videos held out for validation, of each class alike, by group where a table has the column
    # `group`; None: nothing is held out
    val_share: float | None = None
    fold: Literal[1, 2, 3, "all"] = 1  # official split of UCF101 and HMDB51; all: a run for each, and their mean

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_share is not None and self.val_data is not None:
            raise InputError("--val-share and --val-data both choose the validation videos; give one of them")

    @property
    def first_fold(self) -> int:
        return 1 if self.fold == "all" else self.fold


@dataclass(frozen=True, kw_only=True)
class AutoRunConfig(FinetuneRunConfig):
    """Where and how a fine-tuning by the automatic recipe runs, and what comes before it."""

    # videos without labels, of the same kind and many more than the labelled ones: the encoder is first pre-trained on
    # them (VideoMAE), in the run directory's `pretraining`; None: it is not
    pretrain_first: str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrain_first is not None and self.fold == "all":
            raise InputError("--pretrain-first is for one run; give --fold 1, 2 or 3, or leave it out")


@dataclass(frozen=True, kw_only=True)
class DetectRunConfig(BaseRunConfig, BoxDataConfig):
    """Where and how the training of an action detector runs."""

    train_person_boxes: str | None = None  # detected person boxes of the training key frames, for recipes that use them
