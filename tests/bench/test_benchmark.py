"""`vidstill bench data` at its smallest: what it measures is there and agrees; what it cannot use is a sentence."""

import json
from dataclasses import replace

import av
import pytest

from vidstill.bench import run as benchmark
from vidstill.bench.reading import MAX_PIXEL_DIFFERENCE, PYAV_LOOP, VIDSTILL, find_readers
from vidstill.bench.report import format_benchmark_report
from vidstill.bench.run import BenchmarkConfig, benchmark_data
from vidstill.cli.main import main
from vidstill.data.tools.pack import pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.synthetic.footage import FootageConfig, encode_footage

FOOTAGE = FootageConfig(frames=24, size=(64, 80))
SMALL = {"sampling": SpanSampling(num_frames=4, stride=4), "size": (32, 32), "footage": FOOTAGE}


def film(path, share=1.0):
    """A video, or the first part of its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = encode_footage(FOOTAGE, 0)
    path.write_bytes(data[: int(share * len(data))])


@pytest.fixture(scope="module")
def report():
    return benchmark_data(None, BenchmarkConfig(num_videos=2, clips_per_video=1, **SMALL))


@pytest.fixture
def typed(monkeypatch, capsys):
    """What a command line gives, with everything small that it has no option for."""
    monkeypatch.setattr(
        benchmark, "benchmark_data", lambda data, config: benchmark_data(data, replace(config, **SMALL))
    )

    def run(*texts):
        code = main(["bench", "data", *map(str, texts)])
        out, error = capsys.readouterr()
        return code, out, error

    return run


def test_every_reader_that_works_here_reads_the_same_from_raw_and_packed_files(report):
    available, missing = find_readers()
    assert [(each.reader, each.file_kind) for each in report.reader_timings] == [
        (n, f) for f in ("raw", "packed") for n in available
    ]
    assert report.missing_readers == missing
    for each in report.reader_timings:
        assert each.error == ""
        assert each.pixel_difference <= MAX_PIXEL_DIFFERENCE
        assert each.seconds_per_clip > 0
        assert each.speedup_over_pyav > 0


def test_our_reader_reports_its_frame_utilization_and_packs_use_every_frame(report):
    used = {(each.reader, each.file_kind): each.frame_utilization for each in report.reader_timings}
    assert 0 < used[VIDSTILL, "raw"] < 1
    assert used[VIDSTILL, "packed"] == 1
    assert used[PYAV_LOOP, "raw"] is None


def test_the_report_states_its_command_machine_packing_and_rates(report):
    assert report.command == "vidstill bench data --max-videos 2 --rounds 1"
    assert report.machine.versions["av"] == av.__version__
    assert report.machine.cpu
    assert report.num_videos == 2
    assert report.packing.config == TranscodeConfig(short_side=report.packing.config.short_side)  # by default otherwise
    assert report.packing.packed_bytes > report.packing.raw_bytes > 0
    assert 25 < report.packing.psnr < 50
    assert 0.8 < report.packing.ssim < 1
    assert report.augmentation_clips_per_second > 0
    assert [each.num_workers for each in report.loader_timings] == [0, 1, 2]
    assert all(each.raw_clips_per_second > 0 and each.packed_clips_per_second > 0 for each in report.loader_timings)


def test_the_text_holds_four_whole_tables(report):
    blocks = [block.splitlines() for block in format_benchmark_report(report).split("\n\n") if block.startswith("|")]
    assert [len(block) - 2 for block in blocks] == [len(report.reader_timings), 1, 1, 3]
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1
        assert len({len(line) for line in block}) == 1


def test_the_text_names_readers_that_are_not_compared_and_why(report):
    wrong = replace(report.reader_timings[-1], error="gives other frames of 1 of 2 videos", speedup_over_pyav=None)
    text = format_benchmark_report(
        replace(
            report, reader_timings=[*report.reader_timings[:-1], wrong], missing_readers={"decord": "not installed: …"}
        )
    )
    assert f"{wrong.reader}, packed: gives other frames of 1 of 2 videos." in text
    assert "decord is not compared: not installed: …" in text


def test_some_of_a_data_set_s_videos_are_measured_and_another_stands_in_for_a_broken_one(tmp_path, typed, caplog):
    for n in range(3):
        film(tmp_path / f"{n}.mp4", share=0.5 if n == 1 else 1)
    code, out, _ = typed(tmp_path, "--max-videos", 3, "--rounds", 2, "--json")
    assert code == 0
    output = json.loads(out)
    assert output["num_videos"] == 2
    assert "1.mp4" in caplog.text
    assert len(output["reader_timings"][0]["all_seconds"]) == 2
    assert output["command"] == f"vidstill bench data {tmp_path} --max-videos 3 --rounds 2"


def test_packed_data_can_be_measured_too(tmp_path, typed):
    film(tmp_path / "videos" / "0.mp4")
    pack_dataset(tmp_path / "videos", tmp_path / "packs", TranscodeConfig())
    code, out, _ = typed(tmp_path / "packs", "--max-videos", 1, "--rounds", 1)
    assert code == 0
    assert "1 videos, of " in out


def test_what_cannot_be_measured_is_said_in_a_sentence(tmp_path, typed):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    film(broken / "0.mp4", share=0.5)
    for texts, sentence in (
        ((tmp_path / "empty",), "no videos"),
        ((tmp_path / "nowhere",), "does not exist"),
        ((broken,), "has no video that decodes"),
        (("--max-videos", 0), "max_videos is 0; take 1 or more"),
        (("--rounds", -1), "rounds is -1; take 1 or more"),
    ):
        code, out, error = typed(*texts)
        assert (code, out) == (2, "")
        assert sentence in error.splitlines()[-1]
