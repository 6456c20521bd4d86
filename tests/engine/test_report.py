import io
import json

import pytest
from engine_toy import toy_plan
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vidstill.engine.logger import StepRecord, TrainingLogger, truncate_log

NAN = float("nan")


def done(step: int, **changed) -> StepRecord:
    fields = {"epoch": step / 5, "loss": 1 / step, "parts": {"pixels": 2.0}, "lr": 0.1, "grad_norm": 3.0}
    fields |= {"data_seconds": 1.0, "step_seconds": 4.0, "clips_per_second": 2.0, "is_skipped": False}
    return StepRecord(step=step, **fields | changed)


def lines(folder) -> list:
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / "log.jsonl").read_text().splitlines()]


def report(folder, begin=0, main=True, terminal=False) -> tuple[TrainingLogger, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=200)
    return TrainingLogger(folder, toy_plan(), start_step=begin, is_main=main, title="toy", console=console), shown


def test_a_step_is_one_line_of_strict_json(tmp_path):
    with report(tmp_path)[0] as told:
        told.log_step(done(1))
        told.log_step(done(2, loss=NAN, parts={"pixels": float("inf")}, is_skipped=True))
        told.log_validation(2, {"top1": 0.5})
    first, second, validation = lines(tmp_path)
    assert first["loss"] == 1
    assert first["parts"] == {"pixels": 2}
    assert second["loss"] is second["parts"]["pixels"] is None
    assert second["is_skipped"]
    assert validation["validation"] == {"top1": 0.5}
    wanted = {"step", "epoch", "lr", "grad_norm", "data_seconds", "step_seconds", "clips_per_second"}
    assert wanted <= first.keys()


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["", '{"step": 9, "los', "\x00\x00"]))
def test_a_log_is_cut_back_to_the_step_that_the_run_goes_on_from(tmp_path_factory, written, kept, torn):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_text("".join(f'{{"step": {n}}}\n' for n in range(1, written + 1)) + torn)
    truncate_log(path, kept)
    assert [line["step"] for line in lines(path.parent)] == list(range(1, min(written, kept) + 1))


def test_a_resumed_run_tells_no_step_twice(tmp_path):
    for begin, end in ((0, 6), (4, 9)):
        with report(tmp_path, begin=begin)[0] as told:
            for step in range(begin + 1, end + 1):
                told.log_step(done(step, loss=float(end)))
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 10))
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "parts/pixels", "lr", "grad_norm", "clips_per_second"} <= set(curves.Tags()["scalars"])
    assert [(e.step, e.value) for e in curves.Scalars("loss")] == [(n, 6 if n <= 4 else 9) for n in range(1, 10)]


def test_only_the_main_process_writes(tmp_path):
    told, shown = report(tmp_path, main=False)
    with told:
        told.log_step(done(1))
        told.log_validation(1, {"top1": 0.5})
        told.print_message("something")
    assert not list(tmp_path.iterdir())
    assert not shown.getvalue()


def test_without_a_terminal_the_first_and_the_last_step_are_plain_lines(tmp_path):
    told, shown = report(tmp_path)
    with told:
        for step in range(1, 21):
            told.log_step(done(step))
    first, last = shown.getvalue().splitlines()
    assert first.startswith("toy: step 1/20  loss 1.0000  2.0 clips/s  25 % waiting for data  0:01:16 left")
    assert last.startswith("toy: step 20/20")


def test_a_terminal_shows_a_bar_with_rate_remaining_time_and_waiting(tmp_path):
    told, shown = report(tmp_path, terminal=True)
    with told:
        told.log_step(done(1))
        told.log_step(done(2))
    text = shown.getvalue()
    for part in ("2/20", "━", "2.0 clips/s", "25 % waiting for data", "0:01:12 left"):
        assert part in text
