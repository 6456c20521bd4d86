"""What the persons in a video do: as a test scores them, moment by moment, however long the video is."""

import itertools
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh_programs import run_ranks
from tiny_detectors import ACTIONS, VIEWS, write_detector
from tiny_predictions import RATE, film, picture, write_classifier

from vidstill.cli.detect import detect_predict_command
from vidstill.cli.main import main
from vidstill.data.ava.box_table import read_box_csv
from vidstill.data.ava.clip_reader import KeyframeClipReader, KeyframeVideo
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.keyframes import KeyframeBuilder
from vidstill.data.ava.samples import KeyframeViewDataset
from vidstill.data.decode.reader import TimedFrame, VideoReader, iter_timed_frames
from vidstill.data.manifest.table import VideoRow
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer.detect import DetectRequest, detect_video, read_video_persons
from vidstill.pipelines.infer.keyframe_stream import read_keyframe_clips
from vidstill.pipelines.infer.person_detector import PersonDetections
from vidstill.pipelines.trained_models import load_detector
from vidstill.utils.types import InputError

PERSONS = """\
clip,0,0.1,0.2,0.4,0.9,,0.9
clip,1,0.15,0.2,0.45,0.9,,0.8
clip,1,0.6,0.1,0.9,0.8,,0.95
clip,1,0.3,0.3,0.5,0.5,,0.3
clip,2,0.62,0.1,0.92,0.8,-1,0.7
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_detector(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """3.2 seconds."""
    return film(tmp_path_factory.mktemp("clip") / "clip.mp4", 80, seed=3)


@pytest.fixture
def persons(tmp_path):
    path = tmp_path / "persons.csv"
    path.write_text(PERSONS)
    return path


def ask(model, *videos, **options):
    detect_predict_command(str(model), tuple(map(str, videos)), precision="fp32", **options)


def answers(capsys, model, *videos, **options):
    ask(model, *videos, json=True, **options)
    return json.loads(capsys.readouterr().out)


def test_the_scores_are_those_that_a_test_gives(capsys, model, clip, persons):
    result = answers(capsys, model, clip, person_boxes=str(persons))
    loaded = load_detector(str(model))
    builder = KeyframeBuilder(loaded.actions, [KeyframeVideo("clip", clip)])
    frames = builder.build_test(read_box_csv(persons, has_scores=True), min_score=0.5)
    views = KeyframeViewDataset(frames, loaded.recipe.views)
    moments = result["videos"][0]["keyframes"]
    assert [moment["seconds"] for moment in moments] == [0, 1, 2, 3]
    assert [len(moment["boxes"]) for moment in moments] == [1, 2, 1, 0]  # the box below the model's threshold is out
    for index in range(len(frames)):
        pixels, boxes, _ = map(torch.from_numpy, views.load_arrays(index))
        with torch.inference_mode():
            expected = loaded.model.eval()(pixels.float() / 255, boxes)[0].sigmoid().numpy()
        expected = expected * frames[index].scores[:, None]
        here = moments[frames[index].second]["boxes"]
        np.testing.assert_allclose([each["scores"] for each in here], expected, rtol=1e-4, atol=2e-6)
        np.testing.assert_allclose([each["box"] for each in here], frames[index].boxes, atol=1e-5)
        expected_pixels = frames[index].boxes * [48, 32, 48, 32]
        np.testing.assert_allclose([each["pixels"] for each in here], expected_pixels, atol=0.051)
    scores = np.array([box["scores"] for moment in moments for box in moment["boxes"]])
    assert np.ptp(scores, axis=0).max() > 0.05  # or the test would say nothing


@pytest.mark.parametrize("rule", ["videomae", "slowfast"])
@pytest.mark.parametrize("rate", [25.0, 12.0])
def test_clips_of_a_stream_are_those_that_are_read_one_by_one(clip, rule, rate):
    views = replace(VIEWS, sampling=KeyframeSampling(num_frames=4, stride=3, frame_rate=rate, rule=rule), short_side=32)
    with VideoReader(clip) as reader:
        for streamed in read_keyframe_clips(reader, views, 1.0, float(RATE)):
            video, second = KeyframeVideo("clip", clip), round(streamed.seconds)
            frames, _ = streamed.build_clip(np.zeros((0, 4)))
            expected = KeyframeClipReader().read_clip(video, second, views.sampling)
            np.testing.assert_array_equal(frames.transpose(1, 2, 3, 0), expected)


def test_memory_does_not_grow_with_the_video():
    """Of the frames of ten minutes, those of two clips are alive at a time."""
    alive, most = 0, 0

    def forget():
        nonlocal alive
        alive -= 1

    def make_image():
        nonlocal alive, most
        image = np.zeros((24, 32, 3), np.uint8)
        weakref.finalize(image, forget)
        alive += 1
        most = max(most, alive)
        return image

    class TenMinutes(VideoReader):
        name, num_frames = "ten minutes", 15_000

        def __init__(self):
            pass

        def iter_timed_frames(self, *, default_frame_rate):
            return (TimedFrame(n / 25, 0.04, make_image) for n in range(15_000))

    clips = read_keyframe_clips(TenMinutes(), VIEWS, 1.0, 25.0)
    assert [clip.seconds for clip in clips] == list(range(600))
    assert most < 20


def test_without_boxes_persons_are_detected_and_the_video_is_opened_once(model, clip, monkeypatch):
    images = []

    def find(pictures):
        images.extend(pictures)
        boxes = np.array([[0.1, 0.1, 0.5, 0.9], [0.0, 0.0, 0.1, 0.1]])
        return [PersonDetections(boxes, np.array([0.9, 0.4]))] * len(pictures)

    loaded = load_detector(str(model))
    asker = DetectRequest(replace(loaded, model=loaded.model.eval()), Runtime("fp32"), 0.5, 0.5, person_detector=find)
    opened, original = [], VideoReader.__init__

    def count(self, source, **options):
        opened.append(source)
        original(self, source, **options)

    monkeypatch.setattr(VideoReader, "__init__", count)
    result = detect_video(asker, "clip", VideoRow(clip, None, name="clip.mp4"))
    assert opened == [clip]
    moments, frames_of_clip = result.tracks.keyframes, list(iter_timed_frames(clip))
    assert [moment.seconds for moment in moments] == pytest.approx([0.5 * n for n in range(7)], abs=0.021)
    assert [len(moment.boxes) for moment in moments] == [1] * 7
    for moment, image in zip(moments, images, strict=True):
        np.testing.assert_array_equal(image, frames_of_clip[round(moment.seconds * RATE)].to_image())


def test_rows_and_json_agree_and_tracks_and_actions_are_in_order(capsys, model, clip, persons, tmp_path):
    options = {"person_boxes": str(persons), "topk": 2, "min_action_score": 0.2}
    moments = answers(capsys, model, clip, out=tmp_path / "rows.csv", **options)["videos"][0]["keyframes"]
    rows = read_box_csv(tmp_path / "rows.csv", has_scores=True)
    boxes = [(moment["seconds"], box) for moment in moments for box in moment["boxes"]]
    assert rows.video_names == ("clip",)
    assert rows.second.tolist() == [second for second, _ in boxes for _ in ACTIONS]
    assert rows.action_id.tolist() == [number for _ in boxes for number in ACTIONS]
    np.testing.assert_allclose(rows.score, [score for _, box in boxes for score in box["scores"]], atol=1e-5)
    np.testing.assert_allclose(rows.box[:: len(ACTIONS)], [box["box"] for _, box in boxes], atol=1e-5)
    assert [[box["track"] for box in moment["boxes"]] for moment in moments] == [[1], [1, 2], [2], []]
    for _, box in boxes:
        pairs = sorted(zip(box["scores"], ACTIONS.items(), strict=True), key=lambda pair: -pair[0])
        expected = [(number, name) for score, (number, name) in pairs[:2] if score >= 0.2]
        assert [(each["action_id"], each["name"]) for each in box["top"]] == expected


def test_a_video_without_a_box_is_answered_and_drawn(capsys, model, clip, tmp_path):
    nobody = tmp_path / "nobody.csv"
    nobody.write_text("")
    ask(model, clip, person_boxes=str(nobody), out=tmp_path / "out")
    printed = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert [moment["boxes"] for moment in printed["keyframes"]] == [[]] * 4
    assert (tmp_path / "out" / "clip.csv").read_text() == ""
    assert len(list(iter_timed_frames(tmp_path / "out" / "clip.mp4"))) == 80


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (  # the boxes are of a later time
            "clip,0902,0.1,0.2,0.4,0.9,,0.9\nclip,0800,0.1,0.2,0.4,0.9,,0.9\n",
            {"min_score": 0.0, "start_second": 900},
            {2: ([0.9], [[0.1, 0.2, 0.4, 0.9]])},
        ),
        (  # annotations have a person's number in place of the score
            "clip,1,0.1,0.2,0.4,0.9,1,37\nclip,1,0.1,0.2,0.4,0.9,3,37\nclip,1,0.5,0.2,0.9,0.9,1,0\n",
            {"min_score": 0.8},
            {1: ([1, 1], [[0.1, 0.2, 0.4, 0.9], [0.5, 0.2, 0.9, 0.9]])},
        ),
    ],
    ids=["detections", "annotations"],
)
def test_boxes_of_a_file_are_read_by_the_second_of_the_video(model, tmp_path, text, options, expected):
    (tmp_path / "boxes.csv").write_text(text)
    videos = ["films/clip.mp4"]
    result = read_video_persons(tmp_path / "boxes.csv", videos, load_detector(str(model)), **options)[videos[0]]
    assert list(result) == list(expected)
    for second, (scores, boxes) in expected.items():
        assert result[second].scores.tolist() == scores
        np.testing.assert_allclose(result[second].boxes, boxes)


# ---- What goes wrong -------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_named_and_the_others_are_done(capsys, model, clip, persons, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    more = ["--person-boxes", str(persons), "--precision", "fp32", "--out", str(tmp_path / "all.json")]
    assert main(["detect", "predict", str(model), str(clip), *more]) == 0
    assert main(["detect", "predict", str(model), str(clip), str(tmp_path / "broken.mp4"), *more]) == 1
    assert main(["detect", "predict", str(model), *more]) == 2
    printed = json.loads((tmp_path / "all.json").read_text())
    assert [each["video"] for each in printed["videos"]] == [str(clip)]
    assert "broken.mp4" in printed["skipped"][0]["reason"]
    assert "broken.mp4" in capsys.readouterr().out


def test_a_video_that_ends_early_is_answered_up_to_there(capsys, model, tmp_path, persons, monkeypatch):
    whole = film(tmp_path / "clip.mp4", 80)
    original = VideoReader.iter_timed_frames

    def cut(self, *, default_frame_rate):
        return itertools.islice(original(self, default_frame_rate=default_frame_rate), 40)

    monkeypatch.setattr(VideoReader, "iter_timed_frames", cut)
    with pytest.raises(SystemExit) as left:
        ask(model, whole, person_boxes=str(persons), json=True)
    assert left.value.code == 1
    video = json.loads(capsys.readouterr().out)["videos"][0]
    assert [moment["seconds"] for moment in video["keyframes"]] == [0, 1]
    assert "40 of 80 frames" in video["error"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "CLASSIFIER"}, r"no detector of actions but classifier.*detect train"),
        ({"video": "picture.png"}, "is a picture"),
        ({"out": "x.avi"}, "not a .csv, .json or .mp4"),
        ({"out": "x.csv", "interval": 0.5}, "whole seconds"),
        ({"out": "mine"}, "holds something else than detections"),
        ({"person_boxes": "persons.csv", "interval": 0.5}, "whole seconds"),
        ({"person_boxes": "persons.csv", "weights": "w.pth"}, "give one of them"),
        ({"person_boxes": "missing.csv"}, "missing.csv"),
        ({"person_boxes": "other.csv"}, "has boxes of 'another', but not of"),
        ({"topk": 0}, "topk"),
        ({"interval": 0.0}, "interval"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    model, clip, persons, tmp_path, monkeypatch, options, sentence
):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "picture.png")
    Path("other.csv").write_text("another,1,0.1,0.2,0.4,0.9,,0.9\n")
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    options = dict(options)
    source = write_classifier(tmp_path / "classifier.safetensors") if options.pop("model", None) else model
    video = options.pop("video", clip)
    if "out" in options:
        options["out"] = Path(options["out"])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=sentence):
        ask(source, video, **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_has_all_files_of_each_video_and_can_be_written_again(capsys, model, clip, persons, tmp_path):
    other = film(tmp_path / "other.mp4", 30)
    for _ in range(2):
        ask(model, clip, other, person_boxes=str(persons), out=tmp_path / "out")
    names = {f"{stem}.{suffix}" for stem in ("clip", "other") for suffix in ("json", "csv", "mp4")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"detections.json"}
    summary = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [each["files"] for each in summary["videos"]] == ["clip", "other"]


@pytest.fixture
def equal_names(clip, tmp_path):
    """Three videos of one name, of which the first is broken; and boxes for the others."""
    for folder in "abc":
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "x.mp4").write_bytes(b"no video" if folder == "a" else clip.read_bytes())
    boxes = "".join(f"{folder}/x,0,0.1,0.2,0.4,0.9,,0.9\n" for folder in "bc")
    (tmp_path / "boxes.csv").write_text(boxes)
    return tmp_path / "in"


def check_index(folder: Path) -> list[str]:
    """Check that the index names files of the very videos, and return these."""
    videos = json.loads((folder / "detections.json").read_text())["videos"]
    for each in videos:
        assert json.loads((folder / f"{each['files']}.json").read_text())["video"] == each["video"]
        assert {row.split(",")[0] for row in (folder / f"{each['files']}.csv").read_text().split()} == {each["files"]}
        assert (folder / f"{each['files']}.mp4").is_file()
    return [each["video"] for each in videos]


@pytest.mark.parametrize("processes", [1, 2])
def test_videos_of_one_name_have_files_of_their_own_whichever_is_broken(model, equal_names, tmp_path, processes):
    command = ["detect", "predict", str(model), str(equal_names), "--person-boxes", str(tmp_path / "boxes.csv")]
    for number, out in enumerate(("out", "out", "all.csv")):
        arguments, printed = [*command, "--precision", "fp32", "--out", str(tmp_path / out)], tmp_path / f"{number}.txt"
        assert run_ranks(main, arguments, world_size=processes, printed=printed) == [1, 0][:processes]
        assert "skipped or incomplete: 1 video" in printed.read_text()
    assert check_index(tmp_path / "out") == ["b/x.mp4", "c/x.mp4"]
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"x-2.mp4", "x-3.mp4"}
    assert {row.split(",")[0] for row in (tmp_path / "all.csv").read_text().split()} == {"x-2", "x-3"}


def test_index_of_an_interrupted_command_names_the_files_that_are_there(model, equal_names, tmp_path, monkeypatch):
    def stop_at_the_third(request, name, row, *, progress):
        if name == "c/x.mp4":
            raise KeyboardInterrupt
        return detect_video(request, name, row, progress=progress)

    monkeypatch.setattr("vidstill.cli.detect.detect_video", stop_at_the_third)
    options = {"person_boxes": str(tmp_path / "boxes.csv"), "out": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        ask(model, equal_names, **options)
    assert check_index(tmp_path / "out") == ["b/x.mp4"]
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        ask(model, equal_names, **options)
    assert check_index(tmp_path / "out") == ["b/x.mp4", "c/x.mp4"]


def test_the_table_has_a_line_for_each_box(capsys, model, clip, persons):
    ask(model, clip, person_boxes=str(persons), min_action_score=0.0)
    lines = capsys.readouterr().out.splitlines()
    assert "4 key frames, 4 boxes, 2 tracks" in lines[0]
    assert [line.split()[:2] for line in lines[1:]] == [["0:00", "1"], ["0:01", "1"], ["0:01", "2"], ["0:02", "2"]]
    assert all(sum(name in line for name in ACTIONS.values()) == 3 for line in lines[1:])


def test_scores_are_not_multiplied_where_the_model_says_so(capsys, clip, persons, tmp_path):
    scores = []
    for times in (True, False):
        write_detector(tmp_path / "model.safetensors", times_person_score=times)
        result = answers(capsys, tmp_path / "model.safetensors", clip, person_boxes=str(persons))["videos"][0]
        scores.append(np.array([box["scores"] for moment in result["keyframes"] for box in moment["boxes"]]))
    np.testing.assert_allclose(scores[0], scores[1] * np.array([[0.9], [0.8], [0.95], [0.7]]), atol=2e-6)
