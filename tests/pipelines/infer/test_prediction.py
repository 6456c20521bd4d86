"""What is predicted: the same as a test scores, for any video, over time, and written so that others can read it."""

import csv
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import ENCODER, built
from tiny_predictions import CLASSES, RATE, film, picture, write_classifier
from torch import Tensor

import vidstill
from vidstill.checkpoints.io import write_checkpoint
from vidstill.cli.main import main
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.decode.reader import VideoReader, iter_frames, iter_timed_frames
from vidstill.data.manifest.table import VideoRow
from vidstill.data.transforms.crop import crop_views
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, TimedSampling
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import evaluate_classifier
from vidstill.pipelines.infer.videos import build_row_manifest
from vidstill.pipelines.infer.writers.outputs import PREDICTIONS_FILE
from vidstill.pipelines.run_config import Workers
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import make_file_stems

COUNTS = ("temporal_clips", "spatial_crops")

predict_all = partial(vidstill.predict, workers=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def encoder(model):
    return vidstill.load_encoder(str(model), precision="fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder for each class: six videos, and a file that is none."""
    folder = tmp_path_factory.mktemp("data")
    for n, name in enumerate(["run/b", "run/a", "wave/d", "wave/c", "wave/e", "jump, high/f"]):
        film(folder / f"{name}.mp4", 12 + n, seed=n)
    (folder / "wave" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return film(tmp_path_factory.mktemp("clip") / "clip.mp4", 30, seed=9)


def predict(model, *args, **options):
    more = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), str(value))]
    return main(["predict", str(model), *map(str, args), *more, "--workers", "0", "--precision", "fp32"])


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- The answers ----------------------------------------------------------------------------------------------------


def test_the_probabilities_are_the_scores_of_a_test(model, encoder, data):
    tested = evaluate_classifier(str(model), data, workers=Workers(workers=0, precision="fp32"))
    result = predict_all(encoder, data)
    scores = {
        tested.manifest.rows.get_name(index): row for index, row in zip(tested.indices, tested.scores, strict=True)
    }
    assert [each.video for each in result.videos] == sorted(scores)
    assert len(scores) == 6
    for each in result.videos:
        assert torch.equal(each.probabilities, scores[each.video])


def test_three_lines_of_python_name_the_classes(encoder, clip):
    best = encoder.predict(str(clip), topk=2)
    whole = predict_all(encoder, clip).videos[0].probabilities
    shares = dict(zip(CLASSES, whole.tolist(), strict=True))
    assert best == sorted(shares.items(), key=lambda pair: -pair[1])[:2]


@pytest.mark.parametrize(
    ("options", "counts"),
    [({}, (2, 3)), ({"views": 3}, (3, 3)), ({"crops": 1}, (2, 1)), ({"views": 4, "crops": 2}, (4, 2))],
)
def test_views_are_as_many_clips_and_crops_as_are_requested(encoder, clip, options, counts):
    result = predict_all(encoder, clip, **options)
    assert (result.views.temporal_clips, result.views.spatial_crops) == counts
    row, views = (
        build_row_manifest([VideoRow(clip, None)]),
        replace(encoder.test_views, **dict(zip(COUNTS, counts, strict=True))),
    )
    clips = torch.from_numpy(ViewClips(row, views).load_arrays(0)[0][0])
    assert len(clips) == counts[0] * counts[1]
    expected = encoder.merge_views({"logits": encoder.predict_logits(clips)})["probabilities"]
    torch.testing.assert_close(result.videos[0].probabilities, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"fast": True}, {"views": 1, "crops": 1}])
@pytest.mark.parametrize(
    ("sampling", "frames"),
    [
        (DenseSampling(num_frames=4, stride=2), [10, 12, 14, 16]),  # of 30 frames; the released rule has 0, 2, 4, 6
        (TimedSampling(num_frames=4, stride=2.4, frame_rate=30.0), [11, 13, 15, 18]),  # in 8 frames from the 12th on
        (SegmentSampling(num_frames=4), [0, 7, 15, 22]),  # from all of the video
    ],
)
def test_one_view_is_a_clip_from_the_middle_of_the_video(tmp_path, clip, options, sampling, frames):
    model = write_classifier(tmp_path / "model.safetensors", sampling=sampling)
    encoder = vidstill.load_encoder(str(model), precision="fp32")
    result = predict_all(encoder, clip, **options)
    assert result.views.num_views == 1
    expected = encoder.predict_logits(seen_at(clip, frames))[0].softmax(dim=0)
    torch.testing.assert_close(result.videos[0].probabilities, expected, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_the_command_says_how_many_views_a_video_has(model, clip, capsys):
    for options, count, words in (
        ((), (2, 3), "videos, 6 views each"),
        (("--fast",), (1, 1), "videos, 1 view each"),
        (("--views", "3", "--crops", "1"), (3, 1), "videos, 3 views each"),
    ):
        assert predict(model, clip, "--json", *options) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["views"] == dict(zip(COUNTS, count, strict=True))
        assert words in " ".join(printed.err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fast", "--views", "2"), "--fast is one view; leave it out, or --views and --crops"),
        (("--fast", "--crops", "1"), "--fast is one view; leave it out, or --views and --crops"),
        (("--views", "0"), "views is 0; take 1 or more"),
        (("--crops", "-1"), "crops is -1; take 1 or more"),
        (("--views", "many"), "--views"),
    ],
)
def test_views_that_cannot_be_are_refused_in_one_sentence(model, clip, tmp_path, capsys, options, message):
    out = tmp_path / "out.csv"
    assert predict(model, clip, *options, out=out) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def seen_at(path: Path, frames: list[int]) -> Tensor:
    """A clip of these frames by the middle crop, as bytes."""
    pictures = list(iter_frames(path))
    crop = crop_views(np.stack([pictures[n] for n in frames]), 16, (16, 16), 1)[0]
    return torch.from_numpy(crop).permute(3, 0, 1, 2)[None]


def test_a_window_shows_what_its_frames_alone_show(encoder, clip):
    result = predict_all(encoder, clip, timeline=True).videos[0].timeline
    for index, probabilities in enumerate(result.probabilities[:5]):  # a clip is 8 frames long, half of that the hop
        frames = [4 * index + n for n in (0, 2, 4, 6)]
        expected = encoder.predict_logits(seen_at(clip, frames))[0].softmax(dim=0).numpy()
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)
    assert np.ptp(result.probabilities[:, 0]) > 0.01  # windows differ, or the test would say nothing


@pytest.mark.parametrize(
    ("sampling", "windows", "starts", "ends"),
    [
        (None, {"window": 0.4, "hop": 0.1}, 0.1 * np.arange(10), np.minimum(0.1 * np.arange(10) + 0.4, 1.2)),
        (SegmentSampling(num_frames=4), {"timeline": True}, [0.0], [1.2]),  # it samples whole videos: one window
        # 0.4 seconds, where a frame of the clip lasts 0.04
        (TimedSampling(num_frames=4, stride=3.0, frame_rate=30.0), {"timeline": True}, 0.2 * np.arange(5), None),
    ],
    ids=["from start to end", "segments", "seconds"],
)
def test_windows_suit_the_sampling_and_go_to_the_end_of_the_video(tmp_path, clip, sampling, windows, starts, ends):
    options = {} if sampling is None else {"sampling": sampling}
    model = write_classifier(tmp_path / "model.safetensors", **options)
    result = predict_all(str(model), clip, **windows).videos[0].timeline
    np.testing.assert_allclose(result.starts, starts, atol=1e-6)
    np.testing.assert_allclose(result.ends, np.minimum(np.add(starts, 0.4), 1.2) if ends is None else ends, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_a_video_of_any_length_has_a_window(model, tmp_path, frames):
    path = film(tmp_path / "short.mp4", frames)
    result = predict_all(str(model), path, timeline=True).videos[0]
    assert result.timeline.starts[0] == 0
    assert result.timeline.ends[-1] == pytest.approx(frames / RATE)
    assert result.probabilities.sum().item() == pytest.approx(1)


def test_a_video_is_opened_once_for_its_views_and_once_for_its_timeline(encoder, clip, monkeypatch):
    opened, original = [], VideoReader.__init__

    def count(self, source, **options):
        opened.append(source)
        original(self, source, **options)

    monkeypatch.setattr(VideoReader, "__init__", count)
    assert predict_all(encoder, clip, timeline=True).videos[0].timeline is not None
    assert opened == [clip] * 2


def test_classes_that_may_come_together_have_probabilities_of_their_own(tmp_path, clip):
    model = write_classifier(tmp_path / "several.safetensors", multi_label=True)
    encoder = vidstill.load_encoder(str(model), precision="fp32")
    result = predict_all(encoder, clip, timeline=True)
    expected = encoder.predict_logits(seen_at(clip, [0, 2, 4, 6]))[0].sigmoid()
    np.testing.assert_allclose(result.videos[0].timeline.probabilities[0], expected.numpy(), rtol=1e-4)
    assert result.multi_label


def test_two_processes_share_the_videos(encoder, data):
    class Process(Runtime):
        """One of two, which does not hear of the other."""

        def __init__(self, rank):
            super().__init__("fp32")
            self.rank, self.world_size = rank, 2

        def all_gather(self, value):
            return [value]

    alone = predict_all(encoder, data).videos
    shares = [predict_all(replace(encoder, runtime=Process(rank)), data) for rank in (0, 1)]
    result = {each.video: each.probabilities for share in shares for each in share.videos}
    assert sum(len(share.videos) for share in shares) == len(result) == len(alone)
    assert all(torch.equal(result[each.video], each.probabilities) for each in alone)


# ---- What is asked about --------------------------------------------------------------------------------------------


def test_videos_are_named_by_their_paths_or_in_a_single_folder_by_their_names_in_it(model, data, clip, tmp_path):
    files = tmp_path / "files.txt"
    files.write_text(f"{clip}\n{data / 'run/a.mp4'}\n")
    result = predict_all(str(model), [clip, data / "run", files])
    expected = [clip, data / "run/a.mp4", data / "run/b.mp4"]  # each once
    assert [each.video for each in result.videos] == sorted(map(str, expected))
    assert [each.video for each in predict_all(str(model), data / "run").videos] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(("split", "expected"), [("all", ["a.mp4", "b.mp4"]), ("train", ["a.mp4"]), ("val", ["b.mp4"])])
def test_all_splits_of_a_data_set_are_used_or_the_requested_one(model, tmp_path, split, expected):
    for part, name in (("train", "a"), ("val", "b")):
        film(tmp_path / "data" / part / "run" / f"{name}.mp4", 9)
    result = predict_all(str(model), tmp_path / "data", split=split)
    assert [Path(each.video).name for each in result.videos] == expected


def test_a_video_with_a_suffix_that_nobody_knows_is_read_all_the_same(encoder, tmp_path, clip):
    odd = tmp_path / "clip.dat"
    odd.write_bytes(clip.read_bytes())
    result, expected = (predict_all(encoder, path).videos[0] for path in (odd, clip))
    assert torch.equal(result.probabilities, expected.probabilities)


def test_pictures_are_for_models_of_images(model, clip, tmp_path):
    images = write_classifier(tmp_path / "images.safetensors", sampling=DenseSampling(num_frames=1, stride=1), views=1)
    shots = [picture(tmp_path / "shots" / f"{n}.jpg", n) for n in range(2)]
    result = predict_all(str(images), tmp_path / "shots", timeline=True)
    assert [each.timeline for each in result.videos] == [None, None]
    refused = predict_all(str(model), [clip, shots[0]])
    assert [each.video for each in refused.videos] == [str(clip)]
    assert "picture" in refused.skipped[str(shots[0])]


# ---- The command line -----------------------------------------------------------------------------------------------


def test_the_documented_command_writes_a_table_that_a_program_can_read(model, encoder, tmp_path):
    folder = tmp_path / "unlabelled"
    for n, name in enumerate(["b", "a", "c"]):
        film(folder / f"{name}.mp4", 10, seed=n)
    (folder / "files.txt").write_text("a.mp4\nb.mp4\nc.mp4\n")
    assert predict(model, folder, out=tmp_path / "predictions.csv") == 0
    rows = table(tmp_path / "predictions.csv")
    expected = predict_all(encoder, folder).videos
    assert list(rows[0])[:4] == ["video", "label", "class", "probability"]
    assert [row["video"] for row in rows] == ["a.mp4", "b.mp4", "c.mp4"]
    for row, each in zip(rows, expected, strict=True):
        assert each.probabilities.argmax() == int(row["label"])
        assert row["class"] == CLASSES[int(row["label"])]
        assert float(row["probability"]) == pytest.approx(each.probabilities.max().item(), rel=1e-5)
        assert sum(float(row[f"probability{rank}"]) for rank in ("", "_2", "_3")) == pytest.approx(1, rel=1e-4)
    assert predict(model, folder / "a.mp4", out=tmp_path / "out.csv", window=0.2, hop=0.2, topk=1) == 0
    rows = table(tmp_path / "out.csv")
    assert list(rows[0]) == ["video", "start", "end", "label", "class", "probability"]
    assert [(float(row["start"]), float(row["end"])) for row in rows] == [(0, 0.2), (0.2, 0.4)]


def test_the_json_says_all(model, data, tmp_path):
    assert predict(model, data, "--timeline", out=tmp_path / "out.json", topk=2) == 1  # one file is broken
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["classes"] == list(CLASSES)
    assert [each["video"] for each in result["skipped"]] == ["wave/broken.mp4"]
    assert len(result["videos"]) == 6
    for video in result["videos"]:
        assert sum(video["probabilities"]) == pytest.approx(1)
        assert len(video["top"]) == 2
        best = video["top"][0]
        assert video["probabilities"][best["label"]] == pytest.approx(max(video["probabilities"]), abs=1e-6)
        assert best["class"] == CLASSES[best["label"]]
        assert video["windows"][0]["start"] == 0
        assert {"label", "class", "probability"} == set(video["windows"][-1]["top"][0])


def test_the_terminal_shows_json_or_a_table_with_a_timeline_of_a_single_long_video(model, clip, tmp_path, capsys):
    assert predict(model, film(tmp_path / "short.mp4", 10)) == 0
    assert "–" not in capsys.readouterr().out
    assert predict(model, clip) == 0
    assert "0:00.0 – 0:00.3" in capsys.readouterr().out
    assert predict(model, clip, "--json") == 0
    assert json.loads(capsys.readouterr().out)["videos"][0]["video"] == str(clip)
    assert predict(model, clip, tmp_path / "short.mp4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted([str(clip), str(tmp_path / "short.mp4")])


def test_what_is_broken_is_named_and_the_rest_is_done(model, data, clip, tmp_path, capsys):
    nowhere, text = tmp_path / "nowhere.mp4", tmp_path / "notes.txt"
    text.write_text("not a video\n")
    assert predict(model, data / "wave", nowhere, text, clip, out=tmp_path / "out.csv") == 1
    printed = capsys.readouterr().out
    for broken in (data / "wave/broken.mp4", nowhere, text):
        assert str(broken) in printed
    names = [row["video"] for row in table(tmp_path / "out.csv")]
    assert names == sorted(map(str, [clip, *(data / f"wave/{name}.mp4" for name in "cde")]))


def test_a_video_that_breaks_halfway_keeps_its_timeline_up_to_there(model, tmp_path, capsys):
    path = film(tmp_path / "cut.avi", 60, codec="mjpeg")
    raw = bytearray(path.read_bytes())
    pictures = [n for n in range(len(raw)) if raw[n : n + 3] == b"\xff\xd8\xff"]
    raw[pictures[-6] : pictures[-5] - 8] = bytes(pictures[-5] - 8 - pictures[-6])
    path.write_bytes(raw)
    assert predict(model, path, "--timeline", out=tmp_path / "out.json") == 1
    assert str(path) in capsys.readouterr().out
    video = json.loads((tmp_path / "out.json").read_text())["videos"][0]
    assert "breaks after 54 frames" in video["error"]
    assert 1.5 < video["windows"][-1]["end"] <= 54 / RATE


# ---- What is written ------------------------------------------------------------------------------------------------


def test_a_folder_has_an_answer_a_plot_and_a_video_for_each(model, data, tmp_path):
    out = tmp_path / "out"
    assert predict(model, data / "run", "--annotate", out=out) == 0
    expected = {f"{name}.{suffix}" for name in "ab" for suffix in ("json", "png", "mp4")} | {PREDICTIONS_FILE}
    assert set(below(out)) == expected
    assert len(table(out / PREDICTIONS_FILE)) == 2
    assert json.loads((out / "a.json").read_text())["windows"]
    with Image.open(out / "a.png") as plot:
        assert plot.format == "PNG"
    assert len(list(iter_timed_frames(out / "a.mp4"))) == len(list(iter_timed_frames(data / "run/a.mp4")))
    assert predict(model, data / "run", "--annotate", out=out) == 0
    assert set(below(out)) == expected
    one = tmp_path / "one"
    assert predict(model, data / "run/a.mp4", out=one / "out.mp4", plot=one / "plot.png") == 0
    assert set(below(one)) == {"out.mp4", "plot.png"}


def test_odd_names_stay_in_the_folder(model, clip, tmp_path):
    names = ["a b%$'\".mp4", "deep/-x.mp4", "\x1b[31m.mp4", "-x.avi", os.fsdecode(b"\xff.mp4")]
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in names:
        (tmp_path / "in" / name).write_bytes(clip.read_bytes())
    before = below(tmp_path / "in")
    assert predict(model, tmp_path / "in", out=tmp_path / "out") == 0
    assert below(tmp_path / "in") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    answers = [json.loads(path.read_text())["video"] for path in (tmp_path / "out").glob("*.json")]
    assert sorted(answers) == sorted(names)


def test_videos_of_one_name_keep_their_files_when_the_first_is_broken(model, clip, tmp_path):
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "x.mp4").write_bytes(clip.read_bytes())
    assert predict(model, tmp_path / "in", out=tmp_path / "out") == 0
    both = {name: (tmp_path / "out" / name).read_bytes() for name in below(tmp_path / "out")}
    (tmp_path / "in/a/x.mp4").write_bytes(b"no video")
    assert predict(model, tmp_path / "in", out=tmp_path / "out") == 1
    assert (tmp_path / "out/x-2.json").read_bytes() == both["x-2.json"]
    assert [line["video"] for line in table(tmp_path / "out" / PREDICTIONS_FILE)] == ["b/x.mp4"]


@given(st.lists(st.text(max_size=80), unique=True, max_size=6))
def test_every_video_has_a_file_of_its_own_inside_the_folder(names):
    result = make_file_stems(names)
    assert len({stem.casefold() for stem in result}) == len(result) == len(names)
    for stem in result:
        assert stem
        assert stem[0] != "."
        assert "/" not in stem
        assert "\\" not in stem
        assert len(os.fsencode(f"{stem}.json.part")) <= 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "out.png"}, ".csv"),
        ({"plot": "plot.jpg"}, ".png"),
        ({"out": "folder.csv"}, "is a directory"),
        ({"out": "other"}, "something else"),
        ({"out": "file"}, "is a file"),
        ({"out": "file/out.csv"}, "cannot be written"),
        ({"out": "in/clip.mp4"}, "one of the videos"),
        ({"topk": 0}, "topk"),
        ({"window": 0}, "window"),
        ({"hop": "nan"}, "hop"),
        ({"device_batch": 0}, "--device-batch is 0"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    model, clip, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "folder.csv", "other"):
        Path(folder).mkdir()
    Path("in/clip.mp4").write_bytes(clip.read_bytes())
    Path("other/mine.txt").write_text("mine")
    Path("file").write_text("mine")
    before = below(tmp_path)
    assert predict(model, "in/clip.mp4", **options) == 2
    assert message in capsys.readouterr().err
    assert below(tmp_path) == before


def test_a_plot_or_an_mp4_shows_one_video(model, data, tmp_path, capsys):
    assert predict(model, data / "run", out=tmp_path / "out.mp4") == 2
    assert "2 videos" in capsys.readouterr().err
    assert predict(model, data / "run", "--annotate", out=tmp_path / "out.csv") == 2
    assert "--out FOLDER" in capsys.readouterr().err
    assert below(tmp_path) == {}


def test_a_model_without_classes_and_no_video_that_decodes_leave_nothing(model, data, clip, tmp_path, capsys):
    encoder = built(ENCODER)
    clips = ClipsConfig(dataset="made", sampling=DenseSampling(num_frames=4, stride=2), size=(16, 16))
    about = {"kind": "pretraining", "encoder": to_dict(ENCODER), "recipe": {"clips": to_dict(clips)}}
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    write_checkpoint(tmp_path / "encoder.safetensors", tensors, about)
    assert predict(tmp_path / "encoder.safetensors", clip, out=tmp_path / "out") == 2
    assert "has no classes; fine-tune it first" in capsys.readouterr().err
    assert predict(model, data / "wave/broken.mp4", out=tmp_path / "out.csv") == 2
    assert "broken.mp4" in capsys.readouterr().err
    assert predict(model, out=tmp_path / "out.csv") == 2
    assert set(below(tmp_path)) == {"encoder.safetensors"}
    assert not (tmp_path / "out").exists()
