"""log.jsonl, TensorBoard's curves, and what a person sees of a run."""

import hashlib
import io
import json
import re
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest
from engine_toy import toy_plan
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from vidstill.engine.logger import StepRecord, TrainingLogger, restore_log


def build_record(step: int, **changes) -> StepRecord:
    fields = {"epoch": step / 5, "loss": 1 / step, "parts": {"pixels": 2.0}, "lr": 0.1, "grad_norm": 3.0}
    fields |= {"data_seconds": 1.0, "step_seconds": 4.0, "clips_per_second": 2.0, "is_skipped": False}
    return StepRecord(step=step, **fields | changes)


def read_lines(folder) -> list:
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / "log.jsonl").read_text().splitlines()]


def build_logger(
    folder, start_step=0, is_main=True, is_terminal=False, width=200, plan=None, title="toy", position=None
) -> tuple[TrainingLogger, io.StringIO]:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=width)
    plan = plan or toy_plan()
    settings = {"start_step": start_step, "position": position, "is_main": is_main, "title": title}
    logger = TrainingLogger(folder, plan, **settings, console=console)
    return logger, console.file


def render_bar(folder, width: int, *, total_steps=40_000) -> str:
    """Return what a terminal of a width shows after a step late in a long run that has been validated."""
    plan = replace(toy_plan(), total_steps=total_steps, steps_per_epoch=total_steps // 100)
    logger, output = build_logger(folder, total_steps // 2, is_terminal=True, width=width, plan=plan, title="finetune")
    with logger:
        logger.log_validation(total_steps // 2, {"top1": 83.333, "top5": 97.0}, "top1", (12, 85.0))
        record = build_record(total_steps // 2 + 1, loss=2.48479, step_seconds=0.05, data_seconds=0.02)
        logger.log_step(record)
        output.seek(output.truncate(0))
        logger.progress_bar.refresh()
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).strip("\r\n").splitlines()
    assert len(lines) == 1, lines
    return lines[0]


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


TORN = ["", '{"step": 9, "los', "\x00\x00", "{}\n", "7\n", "[" * 9999 + "\n", '{"step": "x"}\n', "\udcff\n", "\u2028\n"]


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from(TORN))
def test_log_is_truncated_to_the_step_that_the_run_resumes_from(tmp_path_factory, written, start_step, torn):
    """An older version's state does not say how long the log was."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = [f'{{"step": {n}}}\n' for n in range(1, written + 1)]
    path.write_bytes(
        "".join([*lines[:3], torn if torn.endswith("\n") else "", *lines[3:], torn]).encode(errors="surrogateescape")
    )
    assert restore_log(path, start_step, None) == ""
    assert [line["step"] for line in read_lines(path.parent)] == list(range(1, min(written, start_step) + 1))


def test_log_is_truncated_to_the_bytes_that_the_state_states(tmp_path):
    with build_logger(tmp_path)[0] as logger:
        logger.log_step(build_record(5))
        position, content = logger.position, (tmp_path / "log.jsonl").read_bytes()
        logger.log_validation(5, {"top1": 0.5})  # of the same step, and logged again
    assert position == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with build_logger(tmp_path, 5, position=position)[0] as logger:
        assert (tmp_path / "log.jsonl").read_bytes() == content
        assert logger.position == position


@pytest.mark.survival("flipped bit in log.jsonl", "1→1", "same bits")
@pytest.mark.parametrize("fault", ["flipped", "torn", "empty", "deleted"])
def test_damaged_log_is_said_and_copied_and_what_can_be_read_remains(tmp_path, fault):
    with build_logger(tmp_path)[0] as logger:
        for step in range(1, 5):
            logger.log_step(build_record(step))
        position = logger.position
        logger.log_step(build_record(5))
    path = tmp_path / "log.jsonl"
    content = bytearray(path.read_bytes())
    if fault == "flipped":
        content[1] ^= 128
    else:
        del content[{"torn": position["bytes"] - 9}.get(fault, 0) :]
    path.write_bytes(content) if fault != "deleted" else path.unlink()
    logger, output = build_logger(tmp_path, 4, position=position)
    with logger:
        pass
    assert "log.jsonl is not what was logged up to step 4" in output.getvalue()
    assert [line["step"] for line in read_lines(tmp_path)] == {"flipped": [2, 3, 4], "torn": [1, 2, 3]}.get(fault, [])
    if fault != "deleted":
        assert (tmp_path / "log.damaged.jsonl").read_bytes() == content


def test_resumed_run_logs_no_step_twice(tmp_path):
    for start_step, end in ((0, 6), (4, 9)):
        with build_logger(tmp_path, start_step)[0] as logger:
            for step in range(start_step + 1, end + 1):
                logger.log_step(build_record(step, loss=float(end)))
    assert [line["step"] for line in read_lines(tmp_path)] == list(range(1, 10))
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "parts/pixels", "lr", "grad_norm", "clips_per_second"} <= set(curves.Tags()["scalars"])
    assert [(e.step, e.value) for e in curves.Scalars("loss")] == [(n, 6 if n <= 4 else 9) for n in range(1, 10)]


def test_step_costs_one_event_and_one_write_of_the_log(tmp_path):
    with build_logger(tmp_path)[0] as logger:
        logger.log_file = Mock(wraps=logger.log_file)
        for step in range(1, 6):
            logger.log_step(build_record(step))
            assert read_lines(tmp_path)[-1]["step"] == step  # it is there for those who follow the log
    assert logger.log_file.write.call_count == logger.log_file.flush.call_count == 5
    path = next(tmp_path.glob("events.out.tfevents.*"))
    tags = [[value.tag for value in event.summary.value] for event in EventFileLoader(str(path)).Load()][1:]
    assert tags == 5 * [["loss", "parts/pixels", "lr", "grad_norm", "clips_per_second", "data_wait"]]


def test_numbers_that_are_not_finite_are_in_no_curve(tmp_path):
    with build_logger(tmp_path)[0] as logger:
        logger.log_step(build_record(1, loss=float("nan"), parts={"pixels": float("inf")}))
    names = {"lr", "grad_norm", "clips_per_second", "data_wait"}
    assert set(EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]) == names


def test_the_share_of_the_machines_limit_and_of_waiting_for_data_is_logged_drawn_and_shown(tmp_path):
    logger, output = build_logger(tmp_path)
    with logger:
        logger.log_step(build_record(1, mfu=0.375))
        logger.log_step(build_record(2))
    first, second = read_lines(tmp_path)
    assert (first["mfu"], first["data_wait"]) == (0.375, 0.25)
    assert second["mfu"] is None
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [point.value for point in curves.Scalars("mfu")] == [0.375]
    assert [point.value for point in curves.Scalars("data_wait")] == [0.25, 0.25]
    assert "data wait 25 %  MFU 38 %" in output.getvalue()


def test_bar_changes_a_few_times_a_second_and_at_the_last_step(tmp_path):
    logger, output = build_logger(tmp_path, is_terminal=True)
    start = time.monotonic()
    with logger:
        logger.progress_bar.update = Mock(wraps=logger.progress_bar.update)
        for step in range(1, 21):
            logger.log_step(build_record(step))
        assert logger.progress_bar.update.call_count <= 3 + 4 * (time.monotonic() - start)
    assert "20/20" in output.getvalue()


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
        logger.log_step(build_record(1))
        logger.log_validation(5, {"top1": 50.0}, "top1", (1, 50.0))
        for step in range(2, 21):
            logger.log_step(build_record(step))
    first, validation, last = output.getvalue().splitlines()
    assert first == "toy: step 1/20  loss 1  0:01:16 left  2.0 clips/s  data wait 25 %"
    assert validation == "toy: epoch 1: validation top1 50 (best 50.0, epoch 1)"
    assert last.startswith("toy: step 20/20  loss 0.05  0:00:00 left  val top1 50.0  2.0 clips/s  best 50.0, epoch 1")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_progress_fits_the_terminal_with_a_bar_of_ten_cells_or_more(tmp_path, width):
    line = render_bar(tmp_path, width)
    assert len(line) <= width
    assert len(re.findall("[━╸╺]", line)) >= 10
    for text in ("finetune", "20001/40000", "loss 2.485", "0:16:40 left"):
        assert text in line


@pytest.mark.parametrize(
    ("width", "texts"),
    [
        (60, []),
        (80, ["val top1 83.3"]),
        (120, ["val top1 83.3", "160 clips/s", "best 85.0, epoch 12"]),
        (140, ["val top1 83.3", "160 clips/s", "best 85.0, epoch 12", "data wait 40 %"]),
    ],
)
def test_wider_terminal_shows_validation_then_speed_then_the_best_epoch_then_the_wait_for_data(tmp_path, width, texts):
    line = render_bar(tmp_path, width)
    optional = re.findall(r"val top1 [0-9.]+|[0-9]+ clips/s|best [0-9.]+, epoch [0-9]+|data wait [0-9]+ %", line)
    assert optional == texts


def test_progress_of_a_short_run_shows_validation_and_wait_in_120_columns(tmp_path):
    line = render_bar(tmp_path, 120, total_steps=400)
    for text in ("val top1 83.3", "best 85.0, epoch 12", "data wait 40 %"):
        assert text in line


def test_mean_average_precision_is_shortened_and_a_score_without_a_best_has_none(tmp_path):
    logger, output = build_logger(tmp_path)
    with logger:
        logger.log_validation(5, {"mean_average_precision": 41.26}, "mean_average_precision")
        logger.log_step(build_record(6))
    assert "val mAP 41.3  40.0 clips/s  data wait" in output.getvalue()


def test_images_are_called_images(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    logger = TrainingLogger(
        tmp_path, toy_plan(), start_step=0, is_main=True, title="toy", noun="image", console=console
    )
    with logger:
        logger.log_step(build_record(1))
    assert "2.0 images/s" in console.file.getvalue()


def test_of_epochs_that_take_a_second_one_line_in_ten_seconds_is_printed_and_all_are_logged(tmp_path):
    logger, output = build_logger(tmp_path)
    with logger:
        for epoch in range(1, 4):
            logger.log_validation(5 * epoch, {"top1": 10.0 * epoch}, "top1", (epoch, 10.0 * epoch))
    assert output.getvalue().count("validation top1") == 1
    assert [line["validation"]["top1"] for line in read_lines(tmp_path)] == [10, 20, 30]
