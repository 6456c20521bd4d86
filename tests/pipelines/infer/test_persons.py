"""Boxes of persons: torchvision's detectors on key frames, written as PySlowFast reads them."""

import json
import os
import pickle
import shutil
import threading
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_videos import write_images
from torch import nn
from torchvision.models import get_model_builder
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from vidstill.cli.main import main
from vidstill.data.ava.box_table import NO_ACTION, read_box_csv
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.decode.reader import iter_frames
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.infer import person_detector as detectors
from vidstill.pipelines.infer.find_persons import find_person_boxes
from vidstill.pipelines.infer.keyframe_sets import KeyframeSet, find_keyframes
from vidstill.pipelines.infer.person_detector import PersonDetector, list_person_detectors, load_person_detector
from vidstill.pipelines.run_config import Workers
from vidstill.utils.types import InputError

RATE = 5
NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"


class Finds(nn.Module):
    """In place of a detector: a bright rectangle is a person, a chair at the same position, and a faint person."""

    def forward(self, pictures):
        result = []
        for picture in pictures:
            assert picture.shape[0] == 3
            assert picture.max() <= 1
            rows, columns = np.nonzero((picture.mean(dim=0) > 0.5).numpy())
            box = [] if not len(rows) else [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes = torch.tensor([box, box, [0, 0, 4, 4]] if box else [], dtype=torch.float32).reshape(-1, 4)
            labels = torch.tensor([1, 62, 1] if box else [], dtype=torch.int64)
            scores = torch.tensor([float(picture.max()), 0.99, 0.06] if box else [])
            result.append({"boxes": boxes, "labels": labels, "scores": scores})
        return result


def rectangle(number):
    """Where the rectangle of a film's frame is: x1, y1, x2, y2 in pixels, all even."""
    return 2 + 2 * number, 4, 10 + 2 * number, 20


def film(path: Path, frames: int = 16, *, size=(34, 62), degrees: int = 0, dark=()) -> Path:
    """A video at five frames a second in which a rectangle moves to the right, but in dark frames."""
    images = np.zeros((frames, *size, 3), np.uint8)
    for number in set(range(frames)) - set(dark):
        x1, y1, x2, y2 = rectangle(number)
        images[number, y1:y2, x1:x2] = 230
    exact = {"pix_fmt": "yuv444p", "options": {"crf": "1"}}
    return write_images(path, images, rate=RATE, ticks=range(frames), degrees=degrees, **exact)


def find(data, out, model=None, *, interval=None, runtime=None, batch=8, workers=0, progress=None, **options):
    """Find the persons in key frames, or in those of data."""
    keyframes = data if isinstance(data, KeyframeSet) else find_keyframes(data, interval=interval)
    machine = Workers(workers=workers, device_batch=batch)
    detector, progress = PersonDetector(model or Finds(), **options), progress or (lambda done, total: None)
    return find_person_boxes(
        detector, keyframes, out, runtime=runtime or Runtime("fp32"), workers=machine, progress=progress
    )


def read(path):
    return read_box_csv(path, has_scores=True)


def run(*args):
    return main(["detect", "boxes", *map(str, args), "--workers", "0"])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    film(folder / "b.mp4", 12)
    film(folder / "a, b.mp4", 16, size=(38, 74), dark=(5,))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A detector of two classes that nobody has trained."""
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=2)
    path = tmp_path_factory.mktemp("weights") / "persons.pth"
    torch.save({"model": model.state_dict(), "epoch": 3}, path)
    return path


# ---- Which boxes are written, and how -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [1, 8])
def test_every_second_of_every_video_has_its_persons_in_order(films, tmp_path, batch, workers):
    printed = []
    options = {"batch": batch, "workers": workers, "progress": lambda *at: printed.append(at)}
    result = find(films, tmp_path / "out.csv", min_score=0.5, **options)
    rows = read(tmp_path / "out.csv")
    keys = [(rows.video_names[video], int(second)) for video, second in zip(rows.video_index, rows.second, strict=True)]
    assert keys == [("a, b", 0), ("a, b", 2), ("a, b", 3), ("b", 0), ("b", 1), ("b", 2)]
    for (name, second), box in zip(keys, rows.box, strict=True):
        size = np.array([62, 34, 62, 34] if name == "b" else [74, 38, 74, 38])
        np.testing.assert_allclose(box * size, rectangle(RATE * second), atol=1e-3)
    np.testing.assert_allclose(rows.score, 230 / 255, atol=0.01)
    assert (rows.action_id == NO_ACTION).all()
    assert (result.keyframes, result.boxes, result.empty_keyframes, result.broken) == (7, 6, 1, ())
    assert printed[0] == (0, 7)
    assert printed[-1] == (7, 7)


def test_a_line_reads_as_pyslowfast_has_it(films, tmp_path):
    find(films / "b.mp4", tmp_path / "out.csv", interval=2)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    fields = [line.split(",") for line in lines]
    expected = [("b", second, "") for second in ("0000", "0000", "0002", "0002")]
    assert [(name, second, action) for name, second, *_, action, _ in fields] == expected
    assert lines[1] == f"b,0000,0.00000,0.00000,{4 / 62:.5f},{4 / 34:.5f},,0.06000"


def test_boxes_are_those_of_the_upright_picture(tmp_path):
    turned = film(tmp_path / "turned.mp4", 4, degrees=90)
    find(turned, tmp_path / "out.csv", min_score=0.5)
    x1, y1, x2, y2 = rectangle(0)
    box = read(tmp_path / "out.csv").box[0]
    np.testing.assert_allclose(box * [34, 62, 34, 62], [y1, 62 - x2, y2, 62 - x1], atol=1e-3)


def test_only_persons_with_a_higher_score_are_written_the_best_first(films, tmp_path):
    def scores(name, **options):
        find(films / "b.mp4", tmp_path / name, interval=9, **options)
        return read(tmp_path / name).score.tolist()

    assert scores("all", min_score=0.05) == [pytest.approx(230 / 255, abs=0.01), 0.06]
    assert scores("bright", min_score=0.06) == scores("one", max_persons=1) == scores("all2")[:1]
    assert scores("chairs", person_label=62) == [0.99]


def test_a_video_without_persons_gives_a_file_without_rows(tmp_path):
    result = find(film(tmp_path / "dark.mp4", 6, dark=range(6)), tmp_path / "out.csv")
    assert (result.keyframes, result.boxes, result.empty_keyframes) == (2, 0, 2)
    assert (tmp_path / "out.csv").read_bytes() == b""
    assert len(read(tmp_path / "out.csv")) == 0


def test_videos_of_different_sizes_and_folders_of_frames_may_be_mixed(films, tmp_path):
    folder = tmp_path / "data"
    (folder / "frames").mkdir(parents=True)
    for number, picture in enumerate(iter_frames(films / "b.mp4")):
        Image.fromarray(picture).save(folder / "frames" / f"{number:06d}.png")
    (folder / "list.txt").write_text(f"frames\n{films / 'b.mp4'}\n")
    find(folder / "list.txt", tmp_path / "out.csv", interval=9)
    rows = read(tmp_path / "out.csv")
    assert rows.video_names == ("frames", str(films / "b"))
    np.testing.assert_array_equal(rows.box[rows.video_index == 0], rows.box[rows.video_index == 1])


def annotations(folder: Path, rows, *, ava: bool = False) -> Path:
    """A data set of one video `b` with these rows: second, box in pixels, action."""
    lines = [
        f"b,{second:04d},{','.join(f'{side / size:.3f}' for side, size in zip(box, [62, 34, 62, 34], strict=True))}"
        f",{action},0\n"
        for second, box, action in rows
    ]
    annotation_dir = folder / "annotations"
    annotation_dir.mkdir(parents=True)
    (annotation_dir / ("ava_val_v2.2.csv" if ava else "val.csv")).write_text("".join(lines))
    (annotation_dir / ("ava_action_list_v2.2.pbtxt" if ava else "actions.txt")).write_text(
        "".join(f'item {{ name: "{name}" id: {n} }}\n' if ava else f"{name}\n" for n, name in enumerate("ab", 1))
    )
    return folder


def test_the_key_frames_of_ones_own_data_are_the_annotated_ones(tmp_path):
    far = (40, 20, 60, 30)
    data = annotations(tmp_path, [(2, rectangle(10), 1), (2, rectangle(10), 2), (0, rectangle(0), 1), (0, far, 2)])
    film(data / "videos" / "b.mp4", 12)
    result = find(data, tmp_path / "out.csv", min_score=0.5)
    rows = read(tmp_path / "out.csv")
    assert rows.second.tolist() == [0, 2]
    assert result.annotated_boxes == 3  # one of them does two things
    assert result.recall == result.confident_recall == pytest.approx(2 / 3)
    assert find(data, tmp_path / "none.csv", min_score=0.95).recall == 0


def test_every_second_of_avas_videos_counts_except_the_excluded_ones(tmp_path):
    data = annotations(tmp_path, [(903, rectangle(15), 1)], ava=True)
    (data / "annotations" / "ava_included_timestamps_v2.2.txt").write_text("0901\n0902\n0903\n")
    (data / "annotations" / "ava_val_excluded_timestamps_v2.2.csv").write_text("b,0902\n")
    film(data / "videos_15min" / "b.mp4", 16)
    result = find(data, tmp_path / "out.csv", min_score=0.5)
    rows = read(tmp_path / "out.csv")
    assert rows.second.tolist() == [901, 903]
    np.testing.assert_allclose(rows.box * [62, 34, 62, 34], [rectangle(5), rectangle(15)], atol=1e-3)
    assert (result.annotated_boxes, result.recall) == (1, 1.0)


def test_a_data_sets_key_frames_and_regular_ones_are_not_mixed(tmp_path):
    data = annotations(tmp_path, [(0, rectangle(0), 1)])
    film(data / "videos" / "b.mp4", 6)
    with pytest.raises(InputError, match="leave out --interval"):
        find(data, tmp_path / "out.csv", interval=1)
    (data / "annotations" / "actions.txt").unlink()
    with pytest.raises(InputError, match="no list of actions"):  # and is not taken for a folder of videos
        find(data, tmp_path / "out.csv")


# ---- What goes wrong ------------------------------------------------------------------------------------------------


def test_the_key_frames_before_the_end_of_a_short_video_are_searched(films, tmp_path):
    moments = KeyframeSet({KeyframeVideo("b", films / "b.mp4"): (0, 2, 7, 8)})
    result = find(moments, tmp_path / "out.csv", batch=1)
    assert result.keyframes == 2
    assert len(result.broken) == 1
    assert "b,0007" in result.broken[0]


def test_what_cannot_be_done_is_refused_and_nothing_is_written(films, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for suffix in ("mp4", "mkv"):
        film(tmp_path / "twice" / f"a.{suffix}", 2)
    (tmp_path / "theirs.csv").write_text("theirs")
    before = sorted(tmp_path.rglob("*"))
    for data, out, message in (
        (tmp_path / "broken.mp4", "out.csv", r"no key frame can be read; .*broken\.mp4"),
        (tmp_path / "twice", "out.csv", r"two videos called a, a\.mkv and a\.mp4"),
        (films, "theirs.csv", "exists; move it away"),
    ):
        with pytest.raises(InputError, match=message):
            find(data, tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "theirs.csv").read_text() == "theirs"


class OneOfSeveral(Runtime):
    """A process of several, each a thread here."""

    def __init__(self, rank, barrier, shared):
        self.rank, self.world_size, self.device = rank, len(shared), torch.device("cpu")
        self.precision = "fp32"
        self.barrier, self.shared = barrier, shared

    def all_gather(self, value):
        self.shared[self.rank] = value
        self.barrier.wait(60)
        result = list(self.shared)
        self.barrier.wait(60)
        return result


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_find_each_person_once_and_one_of_them_writes(films, tmp_path, processes):
    """Of the eight key frames that are asked for, one lies behind the end of its film."""
    first, second = find_keyframes(films).seconds
    moments = KeyframeSet({first: (0, 1, 2, 3), second: (0, 1, 2, 50)})
    find(moments, tmp_path / "one.csv", batch=1)
    barrier, shared = threading.Barrier(processes), [None] * processes
    num_images = [Stops(99) for _ in range(processes)]

    def work(rank):
        runtime = OneOfSeveral(rank, barrier, shared)
        return find(moments, tmp_path / "out.csv", num_images[rank], runtime=runtime, batch=1)

    with ThreadPoolExecutor(processes) as pool:
        result = list(pool.map(work, range(processes)))
    assert sum(each.num_images for each in num_images) == 7
    assert min(each.num_images for each in num_images) >= 2
    assert all(each == result[0] for each in result)
    assert (result[0].keyframes, len(result[0].broken)) == (7, 1)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


class Stops(Finds):
    """Is stopped after some pictures."""

    def __init__(self, after):
        super().__init__()
        self.after, self.num_images = after, 0

    def forward(self, pictures):
        self.num_images += len(pictures)
        if self.num_images > self.after:
            raise KeyboardInterrupt
        return super().forward(pictures)


def test_the_same_call_goes_on_where_it_was_stopped(films, tmp_path):
    find(films, tmp_path / "whole.csv")
    with pytest.raises(KeyboardInterrupt):
        find(films, tmp_path / "out.csv", Stops(5), batch=2)
    assert not (tmp_path / "out.csv").exists()
    with (tmp_path / "out.csv.journal" / "records-0.jsonl").open("a") as file:
        file.write('{"key": ["a, b", 3], "boxes": [[0.1')  # what a kill cuts
    with pytest.raises(InputError, match="other settings"):
        find(films, tmp_path / "out.csv", min_score=0.3)
    rest = Stops(99)
    result = find(films, tmp_path / "out.csv", rest, batch=2)
    assert rest.num_images == 3
    assert result.keyframes == 7
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "whole.csv"]


def test_a_changed_video_is_searched_again(tmp_path):
    film(tmp_path / "a.mp4", 12)
    with pytest.raises(KeyboardInterrupt):
        find(tmp_path, tmp_path / "out.csv", Stops(2), batch=1)
    film(tmp_path / "a.mp4", 11)
    again = Stops(99)
    find(tmp_path, tmp_path / "out.csv", again)
    assert again.num_images == 3


# ---- Detectors and their weights ------------------------------------------------------------------------------------


def test_every_detector_of_boxes_tells_its_classes_by_its_shapes():
    names = list_person_detectors()
    assert {"fasterrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"} <= set(names)
    for name in names:
        with torch.device("meta"):
            model = get_model_builder(name)(weights=None, weights_backbone=None, num_classes=2)
            assert detectors._infer_num_classes(name, model.state_dict(), Path("file.pth")) == 2


def test_the_boxes_are_those_that_torchvision_finds(films, weights, tmp_path):
    state = torch.load(weights)["model"]
    save_file(state, tmp_path / "persons.safetensors")
    options = {"num_classes": 2, "box_score_thresh": 0.3}
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, **options)
    model.load_state_dict(state)
    picture = np.stack(list(iter_frames(films / "b.mp4")))[0]
    with torch.no_grad():
        result = model.eval()([torch.from_numpy(picture).permute(2, 0, 1) / 255])[0]
    persons = result["boxes"][result["labels"] == 1][:7] / torch.tensor([62, 34, 62, 34])
    assert len(persons) == 7
    for path in (weights, tmp_path / "persons.safetensors"):
        detector = load_person_detector(NAME, path, runtime=Runtime("fp32"), min_score=0.3, max_persons=7)
        np.testing.assert_allclose(detector([picture])[0].boxes, persons.numpy(), atol=1e-5)


def test_a_file_fetched_by_hand_finds_what_torchvision_finds_with_it(tmp_path, monkeypatch):
    """Its weights of COCO were trained with another constant than torchvision's layers have by themselves."""
    torch.manual_seed(0)
    build = get_model_builder("fasterrcnn_resnet50_fpn")
    tensors = build(weights=None, weights_backbone=None).state_dict()
    state = {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}
    state["backbone.body.bn1.running_var"].fill_(1e-5)
    state["backbone.body.bn1.weight"].fill_(1e-3)
    torch.save(state, tmp_path / "coco.pth")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **options: state)
    reference = build(weights="DEFAULT").eval()
    detector = load_person_detector("fasterrcnn_resnet50_fpn", tmp_path / "coco.pth", runtime=Runtime("fp32"))
    clip = torch.ones(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(detector.model.backbone(clip)["0"], reference.backbone(clip)["0"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"weight": torch.zeros(3)}, "no class scores"),
        ("misspelt", "near are fasterrcnn_resnet50_fpn"),
        ("another", "--person-detector"),
        ("nan", "not finite"),
        ("code", "no code in it was run"),
        ("text", "no code in it was run"),
    ],
)
def test_a_file_of_something_else_is_refused_with_the_reason(films, weights, tmp_path, capsys, content, why):
    path = tmp_path / "file.pth"
    detector = NAME
    if content == "text":
        path.write_text("weights")
    elif content == "code":
        path.write_bytes(pickle.dumps(Opens(tmp_path / "executed"), 2))
    elif content in ("another", "misspelt"):
        path, detector = weights, {"another": "fasterrcnn_resnet50_fpn", "misspelt": "fasterrcnn_resnet50_v2"}[content]
    elif content == "nan":
        state = torch.load(weights)["model"]
        state["rpn.head.cls_logits.bias"][0] = torch.nan
        torch.save(state, path)
    else:
        torch.save(content, path)
    before = sorted(os.listdir(tmp_path))
    assert run(films, "--out", tmp_path / "out.csv", "--person-detector", detector, "--weights", path) == 2
    assert why in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before


class Opens:
    """Opens a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_are_downloaded_once_or_their_url_is_named(films, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    urls = []

    def download(url, path, digest, progress):
        assert digest in url
        urls.append(url)
        if len(urls) == 1:
            raise urllib.error.URLError("no route to host")
        shutil.copy(weights, path)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert run(films, "--out", tmp_path / "out.csv") == 2
    printed = capsys.readouterr().err
    for part in ("no route to host", "models/fasterrcnn_resnet50_fpn_v2_coco", "--weights"):
        assert part in printed
    for _ in range(2):
        assert load_person_detector(NAME, runtime=Runtime("fp32")).person_label == 1
    assert len(urls) == 2


# ---- The command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_boxes_and_prints_their_numbers(films, weights, tmp_path, capsys):
    options = f"--person-detector {NAME} --min-person-score 0 --max-persons 5 --device-batch 2 --json".split()
    assert run(films, "--out", tmp_path / "out.csv", "--weights", weights, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["keyframes"], printed["boxes"], printed["empty_keyframes"], printed["broken"]) == (7, 35, 0, [])
    assert printed["recall"] is None
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 35
    film(tmp_path / "data" / "c.mp4", 6)
    (tmp_path / "data" / "broken.mp4").write_bytes(b"no video")
    args = ["--person-detector", NAME, "--weights", weights, "--out", tmp_path / "broken.csv"]
    assert run(tmp_path / "data", *args) == 1
    printed = capsys.readouterr().out
    for part in ("in 2 key frames", "skipped or incomplete: 1 video", "broken.mp4"):
        assert part in printed
