"""The verbs of `vidstill probe`; the options of each are the function's signature."""

import json as jsons
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from vidstill.cli.options import NO_PREFIX, Source
from vidstill.pipelines.probe import lars as lars_probe
from vidstill.pipelines.probe import run as frozen
from vidstill.pipelines.probe.config import FewShotConfig, ProbeConfig, ProbeRunConfig
from vidstill.pipelines.probe.lars import LarsProbeConfig
from vidstill.pipelines.probe.report import ProbeReport
from vidstill.utils.files import check_output_file, write_bytes
from vidstill.utils.locks import lock_outputs
from vidstill.utils.terminal import echo
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How the results are reported."""

    json: bool = False  # print JSON
    csv: Path | None = None  # also write a CSV file, one line per probe

    def __post_init__(self) -> None:
        if self.csv is not None:
            check_output_file(self.csv, "--csv")

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from the CSV during the block."""
        return lock_outputs(self.csv) if os.environ.get("RANK", "0") == "0" else nullcontext()

    def echo(self, report: ProbeReport, text: str | None = None) -> None:
        """Print a report: JSON, the text, or its table."""
        if self.csv is not None and os.environ.get("RANK", "0") == "0":
            write_bytes(self.csv, report.to_csv())
        echo(jsons.dumps(report.to_dict(), indent=1) if self.json else text or report.format_table())


_DEFAULT_FEW_SHOT, _DEFAULT_LARS, _DEFAULT_PROBES = FewShotConfig(), LarsProbeConfig(), ProbeConfig()
_DEFAULT_REPORT = ReportConfig()


def probe_linear_command(
    source: Positional[Source],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, NO_PREFIX],
    penalty: float | None = None,
    few_shot: Annotated[FewShotConfig, NO_PREFIX] = _DEFAULT_FEW_SHOT,
    solver: Literal["lbfgs", "lars"] = "lbfgs",
    lars: Annotated[LarsProbeConfig, NO_PREFIX] = _DEFAULT_LARS,
    report: Annotated[ReportConfig, NO_PREFIX] = _DEFAULT_REPORT,
) -> None:
    """Fit a logistic regression on frozen features, or train a linear head on augmented clips (--solver lars).

    Args:
        penalty: Weight of |W|² / 2 beside the summed loss; None: chosen from 0.01 to 1000 by cross-validation, 1 for
            few-shot probes.
        solver: lbfgs: the optimum on features that are computed once; lars: MAE's training.
    """
    with report.lock():
        if solver == "lars":
            if few_shot.shots or penalty is not None:
                raise InputError(
                    "--solver lars takes neither --shots nor --penalty; leave them out, or use --solver lbfgs"
                )
            result = lars_probe.train_lars_probe(source, run_config, lars, seed=few_shot.seed)
        else:
            config = ProbeConfig(probes=("linear",), penalty=penalty, **asdict(few_shot))
            result = frozen.run_probes([source], run_config, config)
        report.echo(result)


def probe_knn_command(
    source: Positional[Source],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, NO_PREFIX],
    k: tuple[int, ...] = (20,),
    few_shot: Annotated[FewShotConfig, NO_PREFIX] = _DEFAULT_FEW_SHOT,
    report: Annotated[ReportConfig, NO_PREFIX] = _DEFAULT_REPORT,
) -> None:
    """Let the nearest training clips, by cosine similarity of frozen features, vote for their classes.

    Args:
        k: Numbers of neighbours; all training clips if there are fewer.
    """
    with report.lock():
        report.echo(frozen.run_probes([source], run_config, ProbeConfig(probes=("knn",), k=k, **asdict(few_shot))))


def probe_attentive_command(
    source: Positional[Source],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, NO_PREFIX],
    seed: int = 0,
    report: Annotated[ReportConfig, NO_PREFIX] = _DEFAULT_REPORT,
) -> None:
    """Train cross-attention from one learned query to all frozen tokens, and a linear layer; 1000 steps or more.

    Args:
        seed: Random seed of the probe's weights and batches.
    """
    with report.lock():
        report.echo(frozen.run_probes([source], run_config, ProbeConfig(probes=("attentive",), seed=seed)))


def probe_all_command(
    sources: Positional[tuple[str, ...]],
    /,
    *,
    run_config: Annotated[ProbeRunConfig, NO_PREFIX],
    config: Annotated[ProbeConfig, NO_PREFIX] = _DEFAULT_PROBES,
    report: Annotated[ReportConfig, NO_PREFIX] = _DEFAULT_REPORT,
) -> None:
    """Compare encoders on datasets: one table of all probes.

    Args:
        sources: Run directories or weights files.
    """
    if not sources:
        raise InputError("no encoder is given; give run directories or weights files: vidstill probe all RUN… --data …")
    with report.lock():
        result = frozen.run_probes(sources, run_config, config)
        report.echo(result, result.format_comparison())
