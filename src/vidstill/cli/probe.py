"""What `vidstill probe …` does: each verb's options are the function's signature, read by tyro."""

import json as jsons
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill.pipelines.probe import run as frozen
from vidstill.pipelines.probe.config import Ask
from vidstill.pipelines.probe.fit import Kind, Probes
from vidstill.pipelines.probe.lars import LarsProbe, train
from vidstill.pipelines.probe.report import Report
from vidstill.utils.files import write_whole
from vidstill.utils.terminal import tell
from vidstill.utils.types import InputError

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix

_LARS = LarsProbe()


def linear(
    source: Positional[str],
    /,
    *,
    ask: Annotated[Ask, Flat],
    penalty: float | None = None,
    shots: tuple[int, ...] = (),
    draws: int = 5,
    seed: int = 0,
    by: Literal["lbfgs", "lars"] = "lbfgs",
    lars: Annotated[LarsProbe, Flat] = _LARS,
    json: bool = False,
    csv: Path | None = None,
) -> None:
    """A linear classifier on frozen features: a logistic regression, or MAE's way, on augmented clips (--by lars).

    Args:
        source: a run's folder or a file of weights.
        penalty: of half the squared weights, beside the summed loss; None: of six, 0.01 to 1000, what tells the most of
            fifths of the training features that were held out.
        shots: further probes on so many training clips of each class; penalty 1 then, if none is given.
        draws: how often the clips of each number of shots are drawn anew.
        seed: of the draws, and of all chance of --by lars.
        by: lbfgs: to the optimum, on features that are computed once; lars: as MAE's authors, a run that trains.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    if by == "lars":
        if shots or penalty is not None:
            raise InputError("--by lars has neither shots nor a penalty; leave them out, or take --by lbfgs")
        _say(train(source, ask, lars, seed=seed), json, csv)
    else:
        probes = Probes(kinds=("linear",), penalty=penalty, shots=shots, draws=draws, seed=seed)
        _say(frozen.evaluate([source], ask, probes), json, csv)


def knn(
    source: Positional[str],
    /,
    *,
    ask: Annotated[Ask, Flat],
    k: tuple[int, ...] = (20,),
    shots: tuple[int, ...] = (),
    draws: int = 5,
    seed: int = 0,
    json: bool = False,
    csv: Path | None = None,
) -> None:
    """The nearest training clips by the cosine of frozen features vote, the nearer ones with more weight.

    Args:
        source: a run's folder or a file of weights.
        k: how many neighbours; all training clips, where there are fewer.
        shots: further probes on so many training clips of each class.
        draws: how often the clips of each number of shots are drawn anew.
        seed: of the draws.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    _say(frozen.evaluate([source], ask, Probes(kinds=("knn",), k=k, shots=shots, draws=draws, seed=seed)), json, csv)


def attentive(
    source: Positional[str],
    /,
    *,
    ask: Annotated[Ask, Flat],
    seed: int = 0,
    json: bool = False,
    csv: Path | None = None,
) -> None:
    """One learned query attends to all frozen tokens, then a linear layer; trained for 1000 steps of 64 clips or more.

    Args:
        source: a run's folder or a file of weights.
        seed: of the probe's start and of its batches.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    _say(frozen.evaluate([source], ask, Probes(kinds=("attentive",), seed=seed)), json, csv)


def every(
    sources: Positional[tuple[str, ...]],
    /,
    *,
    ask: Annotated[Ask, Flat],
    probes: tuple[Kind, ...] = ("linear", "knn", "attentive"),
    penalty: float | None = None,
    k: tuple[int, ...] = (20,),
    shots: tuple[int, ...] = (),
    draws: int = 5,
    seed: int = 0,
    json: bool = False,
    csv: Path | None = None,
) -> None:
    """One encoder or several on one data set or several: one table of what every probe finds.

    Args:
        sources: runs' folders or files of weights.
        probes: which of them; the attentive one keeps all tokens of all videos on the disk.
        penalty: of the linear probe; None: chosen within the training features.
        k: how many neighbours; all training clips, where there are fewer.
        shots: further linear and nearest-neighbour probes on so many training clips of each class.
        draws: how often the clips of each number of shots are drawn anew.
        seed: of the draws, and of the attentive probe.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    if not sources:
        raise InputError("no encoder is given; name runs or files of weights: vidstill probe all RUN… --data …")
    asked = Probes(kinds=probes, penalty=penalty, k=k, shots=shots, draws=draws, seed=seed)
    _say(frozen.evaluate(sources, ask, asked), json, csv, wide=True)


VERBS: dict[str, Callable[..., None]] = {
    "probe linear": linear,
    "probe knn": knn,
    "probe attentive": attentive,
    "probe all": every,
}


def _say(report: Report, json: bool, csv: Path | None, *, wide: bool = False) -> None:
    if csv is not None and os.environ.get("RANK", "0") == "0":
        write_whole(csv, report.csv().encode())
    tell(jsons.dumps(report.plain(), indent=1) if json else report.side_by_side() if wide else report.listed())


def _check_csv(path: Path | None) -> None:
    """Raises an InputError where it cannot be written: before the work, not after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"{path} cannot be written; give --csv a file in a folder that is there")
