"""Models for other programs: what is written gives what our model gives, says what it is, or is not written."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_detectors import ACTIONS, write_detector
from tiny_encoders import NAMES, WITH_CLASS_TOKEN, make_videos, write_classifier, write_encoder
from tiny_models import CLASSES, ENCODER, clips
from torch import Tensor

from vidstill.pipelines.export import onnx as onnx_files
from vidstill.pipelines.export.int8 import quantize_onnx, write_int8
from vidstill.pipelines.export.model import ExportConfig, load_exportable_model
from vidstill.pipelines.export.onnx import OnnxSession, read_onnx_metadata, write_onnx
from vidstill.pipelines.export.report import ExportReport, open_export_draft
from vidstill.pipelines.export.torch_export import TORCH_EXPORT_METADATA_FILE, write_torch_export
from vidstill.pipelines.export.verify import ComparisonBatch, check_outputs, compare_outputs
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils.types import InputError

CONFIG = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, head_init_scale=1.0)
WITHOUT = "onnx, onnxscript and onnxruntime are not installed: pip install 'vidstill[export]'"


def onnx_is_there() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=WITHOUT)


def answered(path: Path, *inputs: Tensor) -> Tensor:
    """What onnxruntime makes of them, by itself."""
    runtime = pytest.importorskip("onnxruntime", reason=WITHOUT)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return torch.from_numpy(session.run(None, {n: each.numpy() for n, each in zip(names, inputs, strict=True)})[0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classifier]:
    """The folder of a fine-tuning, and what is in it."""
    folder = tmp_path_factory.mktemp("run")
    return folder, write_classifier(folder, CONFIG)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled videos of numbered classes."""
    made = sorted((make_videos(tmp_path_factory.mktemp("videos")) / "val").iterdir())
    numbered = tmp_path_factory.mktemp("numbered") / "val.csv"
    numbered.write_text("".join(f"{path} {label}\n" for label, path in enumerate(made)))
    return numbered


@pytest.fixture(scope="module")
def made(
    run: tuple[Path, Classifier], videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ExportReport]:
    """The run as ONNX, and what was found of it, on videos too."""
    onnx_is_there()
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return out, write_onnx(str(run[0]), out, ExportConfig(data=videos))


def test_onnxruntime_gives_the_logits_of_any_number_of_clips(
    run: tuple[Path, Classifier], made: tuple[Path, ExportReport]
) -> None:
    for count in (1, 2, 5):
        clip = clips(count, columns=16, seed=count)
        torch.testing.assert_close(answered(made[0], clip), run[1](clip).detach(), atol=1e-5, rtol=1e-4)


def test_the_report_tells_of_noise_drawn_clips_and_videos_and_stands_beside_the_file(
    made: tuple[Path, ExportReport],
) -> None:
    out, report = made
    assert {(each.clip_source, each.batch_size) for each in report.comparisons} == {
        (kind, batch) for kind in ("random", "drawn", "real") for batch in (1, 3)
    }
    assert all(each.max_abs_diff <= 1e-4 and each.top1_agreement == 1 for each in report.comparisons)
    assert json.loads(out.with_name("model.onnx.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    assert report.num_bytes == out.stat().st_size
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert str(out) in report.format_summary()


def test_an_onnx_file_says_what_it_is(made: tuple[Path, ExportReport]) -> None:
    about = read_onnx_metadata(made[0])
    assert about["classes"] == list(NAMES)
    assert (about["mean"], about["std"]) == (list(ENCODER.mean), list(ENCODER.std))
    assert about["input"]["clip"] == ["batch", 3, 4, 16, 16]
    assert {"vidstill", "licence", "provenance"} <= about.keys()


def test_its_first_side_is_free_and_the_others_are_not(made: tuple[Path, ExportReport]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason=WITHOUT)
    (clip,) = runtime.InferenceSession(str(made[0]), providers=["CPUExecutionProvider"]).get_inputs()
    assert (clip.name, clip.shape[0], clip.shape[1:]) == ("clip", "batch", [3, 4, 16, 16])


def test_an_export_that_is_wrong_is_not_written(
    run: tuple[Path, Classifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_is_there()
    save = onnx_files.save_onnx

    def save_wrongly(model: object, path: Path) -> None:
        with torch.no_grad():
            model.model.model.head.bias[2] += 0.01  # type: ignore[attr-defined]
        save(model, path)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_files, "save_onnx", save_wrongly)
    with pytest.raises(InputError, match=r"model\.onnx does not give .* 0\.01 apart .*'class 2'"):
        write_onnx(str(run[0]), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_never_agrees(run: tuple[Path, Classifier]) -> None:
    model, given = (
        load_exportable_model(str(run[0]), ExportConfig()),
        [ComparisonBatch("random", (clips(1, columns=16),))],
    )
    ours = torch.ones(1, CLASSES)
    theirs = ours.clone()
    theirs[0, 1] = torch.nan
    with pytest.raises(InputError, match="'class 1'"):
        check_outputs(compare_outputs(given, [ours], [theirs], model), 1e-4, "model.onnx")
    with pytest.raises(InputError, match="in the shape"):
        check_outputs(compare_outputs(given, [ours], [theirs[:, :1]], model), 1e-4, "model.onnx")
    check_outputs(compare_outputs(given, [ours], [ours + 1e-6], model), 1e-4, "model.onnx")


def test_a_process_that_does_not_know_us_runs_the_program(run: tuple[Path, Classifier], tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    report = write_torch_export(str(run[0]), out)
    assert all(each.max_abs_diff <= 1e-5 for each in report.comparisons)
    clip = clips(4, columns=16, seed=7)
    torch.save(clip, tmp_path / "clip.pt")
    code = f"""
import sys, torch
extra = {{"{TORCH_EXPORT_METADATA_FILE}": ""}}
model = torch.export.load("model.pt2", extra_files=extra).module()
assert "vidstill" not in sys.modules
torch.save(model(torch.load("clip.pt")), "logits.pt")
print(extra["{TORCH_EXPORT_METADATA_FILE}"])
"""
    told = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["classes"] == list(NAMES)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), run[1](clip).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        replace(WITH_CLASS_TOKEN, positions="separable", learned_grid=(2, 4, 4)),
        replace(ENCODER, positions="learned", learned_grid=(2, 3, 3), layer_scale=0.1),  # resized
        replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 4), attention_bias="qkv"),
    ],
    ids=["class token", "resized codes", "relative positions"],
)
def test_a_program_of_every_kind_of_encoder_takes_any_number_of_clips(config: object, tmp_path: Path) -> None:
    write_classifier(tmp_path / "run", replace(CONFIG, encoder=config))
    report = write_torch_export(str(tmp_path / "run"), tmp_path / "model.pt2")
    assert {each.batch_size for each in report.comparisons} == {1, 3}


def test_of_an_encoder_it_gives_the_features_that_encoders_give(tmp_path: Path) -> None:
    onnx_is_there()
    write_encoder(tmp_path / "run", WITH_CLASS_TOKEN)
    clip = clips(3, columns=16, seed=5)
    report = write_onnx(str(tmp_path / "run"), tmp_path / "features.onnx")
    assert report.metadata["gives"] == "features"
    expected = load_encoder(str(tmp_path / "run"), precision="fp32").extract_features(clip)["final"]
    torch.testing.assert_close(answered(tmp_path / "features.onnx", clip), expected, atol=1e-5, rtol=1e-4)


def test_of_a_fine_tuned_model_it_gives_tokens_where_they_are_asked_for(
    run: tuple[Path, Classifier], tmp_path: Path
) -> None:
    write_torch_export(str(run[0]), tmp_path / "tokens.pt2", ExportConfig(output_type="tokens", size=(16, 24)))
    clip = clips(1, columns=24)
    found = torch.export.load(tmp_path / "tokens.pt2").module()(clip)
    expected = load_encoder(str(run[0]), precision="fp32").extract_features(clip, pool="tokens")["final"].flatten(1, 3)
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-4)


def test_a_detector_is_asked_about_any_number_of_boxes(tmp_path: Path) -> None:
    onnx_is_there()
    model = write_detector(tmp_path / "detector.safetensors")
    report = write_onnx(str(tmp_path / "detector.safetensors"), tmp_path / "detector.onnx")
    assert report.metadata["actions"] == [[number, name] for number, name in ACTIONS.items()]
    clip = clips(2, columns=16)
    boxes = torch.tensor([[0.0, 0, 16, 16], [3, 2, 9, 15], [5, 5, 6, 6], [8, 1, 16, 7]]).expand(2, -1, -1).contiguous()
    found = answered(tmp_path / "detector.onnx", clip, boxes)
    torch.testing.assert_close(found, model(clip, boxes).detach(), atol=1e-4, rtol=1e-4)


def test_eight_bits_are_measured_beside_the_model(run: tuple[Path, Classifier], videos: Path, tmp_path: Path) -> None:
    onnx_is_there()
    out = tmp_path / "small.onnx"
    report = write_int8(str(run[0]), out, ExportConfig(data=videos))
    found = report.quantization
    assert found is not None
    assert found.num_videos == 2
    assert found.scores.keys() == found.float_scores.keys() == {"top1", "top5"}
    assert found.float_scores["top5"] == 100  # of five classes
    assert found.latency_ms.keys() == {"int8", "float32 in onnxruntime", "float32 in torch"}
    assert min(found.latency_ms.values()) > 0
    assert read_onnx_metadata(out)["classes"] == list(NAMES)
    onnx = pytest.importorskip("onnx", reason=WITHOUT)
    kinds = [node.op_type for node in onnx.load(str(out)).graph.node]
    assert kinds.count("MatMulInteger") >= 9  # four in each of two blocks, and the embedding
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx", "small.onnx.json"]


def test_eight_bits_that_are_far_off_are_not_written(
    run: tuple[Path, Classifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_is_there()

    def quantise_another(exact: Path, out: Path, about: dict[str, object]) -> None:
        other = write_classifier(tmp_path / "other", CONFIG)
        with torch.no_grad():
            other.head.weight.neg_()
            other.head.bias.neg_()
        model = load_exportable_model(str(run[0]), ExportConfig())
        model.module.model.load_state_dict(other.state_dict(), strict=False)  # type: ignore[operator, union-attr]
        onnx_files.save_onnx(model, exact.with_name("other.onnx"))
        quantize_onnx(exact.with_name("other.onnx"), out, about)

    monkeypatch.setattr("vidstill.pipelines.export.int8.quantize_onnx", quantise_another)
    with pytest.raises(InputError, match="far off in 8 bits"):
        write_int8(str(run[0]), tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize(
    ("asked", "name", "sentence"),
    [
        (ExportConfig(output_type="logits"), "model.pt2", "has no classes; fine-tune it first"),
        (ExportConfig(), "model.onnx", r"does not end with \.pt2"),
        (ExportConfig(frames=5), "model.pt2", "take 4 frames"),
        (ExportConfig(data="nowhere"), "model.pt2", "nowhere"),
    ],
    ids=["no classes", "another end", "half a tubelet", "no videos"],
)
def test_what_cannot_be_shipped_is_said_and_nothing_is_left(
    asked: ExportConfig, name: str, sentence: str, tmp_path: Path
) -> None:
    write_encoder(tmp_path / "run")
    out = tmp_path / "out" / name
    with pytest.raises(InputError, match=sentence):
        write_torch_export(str(tmp_path / "run"), out, asked)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_what_was_there_stays_where_an_export_fails(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_text("an earlier one")

    def fail() -> None:
        with open_export_draft(out, ".onnx") as draft:
            draft.write_text("a new one")
            raise InputError("wrong")

    with pytest.raises(InputError, match="wrong"):
        fail()
    assert out.read_text() == "an earlier one"
    assert list(tmp_path.iterdir()) == [out]


def test_a_session_computes_what_onnxruntime_computes(made: tuple[Path, ExportReport]) -> None:
    clip = clips(2, columns=16)
    assert torch.equal(OnnxSession(made[0], threads=1)(clip), answered(made[0], clip))
