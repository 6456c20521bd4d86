"""What `vidstill probe …` does: each verb's options are the function's signature, read by tyro."""

import json as jsons
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill.pipelines.probe import run as frozen
from vidstill.pipelines.probe.config import ProbeRunConfig
from vidstill.pipelines.probe.fit import ProbeConfig, ProbeKind
from vidstill.pipelines.probe.lars import LarsProbeConfig, train_lars_probe
from vidstill.pipelines.probe.report import ProbeReport
from vidstill.utils.files import write_bytes
from vidstill.utils.terminal import echo
from vidstill.utils.types import InputError

_NO_PREFIX = tyro.conf.arg(name="")  # its fields are options without a prefix

_DEFAULT_LARS = LarsProbeConfig()


def probe_linear_command(
    source: Positional[str],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, _NO_PREFIX],
    penalty: float | None = None,
    shots: tuple[int, ...] = (),
    trials: int = 5,
    seed: int = 0,
    solver: Literal["lbfgs", "lars"] = "lbfgs",
    lars: Annotated[LarsProbeConfig, _NO_PREFIX] = _DEFAULT_LARS,
    json: bool = False,
    csv: Path | None = None,
) -> None:
    """A linear classifier on frozen features: a logistic regression, or MAE's way, on augmented clips (--by lars).

    Args:
        source: a run's folder or a file of weights.
        penalty: of half the squared weights, beside the summed loss; None: of six, 0.01 to 1000, what tells the most of
            fifths of the training features that were held out.
        shots: further probes on so many training clips of each class; penalty 1 then, if none is given.
        trials: how often the clips of each number of shots are drawn anew.
        seed: of the draws, and of all chance of --by lars.
        solver: lbfgs: to the optimum, on features that are computed once; lars: as MAE's authors, a run that trains.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    if solver == "lars":
        if shots or penalty is not None:
            raise InputError("--by lars has neither shots nor a penalty; leave them out, or take --by lbfgs")
        _echo_report(train_lars_probe(source, run_config, lars, seed=seed), json, csv)
    else:
        probes = ProbeConfig(probes=("linear",), penalty=penalty, shots=shots, trials=trials, seed=seed)
        _echo_report(frozen.run_probes([source], run_config, probes), json, csv)


def probe_knn_command(
    source: Positional[str],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, _NO_PREFIX],
    k: tuple[int, ...] = (20,),
    shots: tuple[int, ...] = (),
    trials: int = 5,
    seed: int = 0,
    json: bool = False,
    csv: Path | None = None,
) -> None:
    """The nearest training clips by the cosine of frozen features vote, the nearer ones with more weight.

    Args:
        source: a run's folder or a file of weights.
        k: how many neighbours; all training clips, where there are fewer.
        shots: further probes on so many training clips of each class.
        trials: how often the clips of each number of shots are drawn anew.
        seed: of the draws.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    _echo_report(
        frozen.run_probes(
            [source], run_config, ProbeConfig(probes=("knn",), k=k, shots=shots, trials=trials, seed=seed)
        ),
        json,
        csv,
    )


def probe_attentive_command(
    source: Positional[str],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, _NO_PREFIX],
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
    _echo_report(frozen.run_probes([source], run_config, ProbeConfig(probes=("attentive",), seed=seed)), json, csv)


def probe_all_command(
    sources: Positional[tuple[str, ...]],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, _NO_PREFIX],
    probes: tuple[ProbeKind, ...] = ("linear", "knn", "attentive"),
    penalty: float | None = None,
    k: tuple[int, ...] = (20,),
    shots: tuple[int, ...] = (),
    trials: int = 5,
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
        trials: how often the clips of each number of shots are drawn anew.
        seed: of the draws, and of the attentive probe.
        json: as JSON, for programs.
        csv: a file to write, a line for each probe.
    """
    _check_csv(csv)
    if not sources:
        raise InputError("no encoder is given; name runs or files of weights: vidstill probe all RUN… --data …")
    asked = ProbeConfig(probes=probes, penalty=penalty, k=k, shots=shots, trials=trials, seed=seed)
    _echo_report(frozen.run_probes(sources, run_config, asked), json, csv, compare=True)


def _echo_report(report: ProbeReport, json: bool, csv: Path | None, *, compare: bool = False) -> None:
    if csv is not None and os.environ.get("RANK", "0") == "0":
        write_bytes(csv, report.to_csv().encode())
    echo(
        jsons.dumps(report.to_dict(), indent=1)
        if json
        else report.format_comparison()
        if compare
        else report.format_table()
    )


def _check_csv(path: Path | None) -> None:
    """Raises an InputError where it cannot be written: before the work, not after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"{path} cannot be written; give --csv a file in a folder that is there")
