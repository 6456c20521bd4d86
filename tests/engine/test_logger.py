"""log.jsonl, TensorBoard's curves, and what a person sees of a run."""

import io
import json

import pytest
from engine_toy import toy_plan
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vidstill.engine.logger import StepRecord, TrainingLogger, truncate_log


def build_record(step: int, **changes) -> StepRecord:
    fields = {"epoch": step / 5, "loss": 1 / step, "parts": {"pixels": 2.0}, "lr": 0.1, "grad_norm": 3.0}
    fields |= {"data_seconds": 1.0, "step_seconds": 4.0, "clips_per_second": 2.0, "is_skipped": False}
    return StepRecord(step=step, **fields | changes)


def read_lines(folder) -> list:
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / "log.jsonl").read_text().splitlines()]


def build_logger(folder, start_step=0, is_main=True, is_terminal=False) -> tuple[TrainingLogger, io.StringIO]:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=200)
    logger = TrainingLogger(folder, toy_plan(), start_step=start_step, is_main=is_main, title="toy", console=console)
    return logger, console.file


def test_step_is_one_line_of_strict_json(tmp_path):
    with build_logger(tmp_path)[0] as logger:
        logger.log_step(build_record(1))
        logger.log_step(build_record(2, loss=float("nan"), parts={"pixels": float("inf")}, is_skipped=True))
        logger.log_validation(2, {"top1": 0.5})
    first, second, validation = read_lines(tmp_path)
    assert first["loss"] == 1
    assert first["parts"] == {"pixels": 2}
    assert second["loss"] is second["parts"]["pixels"] is None
    assert second["is_skipped"]
    assert validation["validation"] == {"top1": 0.5}
    assert {"step", "epoch", "lr", "grad_norm", "data_seconds", "step_seconds", "clips_per_second"} <= first.keys()


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["", '{"step": 9, "los', "\x00\x00"]))
def test_log_is_truncated_to_the_step_that_the_run_resumes_from(tmp_path_factory, written, start_step, torn):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_text("".join(f'{{"step": {n}}}\n' for n in range(1, written + 1)) + torn)
    truncate_log(path, start_step)
    assert [line["step"] for line in read_lines(path.parent)] == list(range(1, min(written, start_step) + 1))


def test_resumed_run_logs_no_step_twice(tmp_path):
    for start_step, end in ((0, 6), (4, 9)):
        with build_logger(tmp_path, start_step)[0] as logger:
            for step in range(start_step + 1, end + 1):
                logger.log_step(build_record(step, loss=float(end)))
    assert [line["step"] for line in read_lines(tmp_path)] == list(range(1, 10))
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "parts/pixels", "lr", "grad_norm", "clips_per_second"} <= set(curves.Tags()["scalars"])
    assert [(e.step, e.value) for e in curves.Scalars("loss")] == [(n, 6 if n <= 4 else 9) for n in range(1, 10)]


def test_only_the_main_process_writes(tmp_path):
    logger, output = build_logger(tmp_path, is_main=False)
    with logger:
        logger.log_step(build_record(1))
        logger.log_validation(1, {"top1": 0.5})
        logger.print_message("something")
    assert not list(tmp_path.iterdir())
    assert not output.getvalue()


def test_without_a_terminal_the_first_and_the_last_step_are_plain_lines(tmp_path):
    logger, output = build_logger(tmp_path)
    with logger:
        for step in range(1, 21):
            logger.log_step(build_record(step))
    first, last = output.getvalue().splitlines()
    assert first.startswith("toy: step 1/20  loss 1.0000  2.0 clips/s  25 % waiting for data  0:01:16 left")
    assert last.startswith("toy: step 20/20")


def test_terminal_has_a_bar_with_speed_remaining_time_and_waiting(tmp_path):
    logger, output = build_logger(tmp_path, is_terminal=True)
    with logger:
        logger.log_step(build_record(1))
        logger.log_step(build_record(2))
    for part in ("2/20", "━", "2.0 clips/s", "25 % waiting for data", "0:01:12 left"):
        assert part in output.getvalue()
