"""Exported files have the model's outputs and metadata, or are not written."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny_detectors import ACTIONS, write_detector
from tiny_encoders import NAMES, WITH_CLASS_TOKEN, make_videos, write_classifier, write_encoder
from tiny_models import CLASSES, ENCODER, clips

from vidstill.pipelines.export.int8 import Int8Target, quantize_onnx
from vidstill.pipelines.export.model import ExportConfig, load_exportable_model
from vidstill.pipelines.export.onnx import OnnxSession, OnnxTarget
from vidstill.pipelines.export.torch_export import TORCH_EXPORT_METADATA_FILE, TorchExportTarget
from vidstill.pipelines.export.verify import ComparisonBatch, check_outputs, compare_outputs
from vidstill.pipelines.export.write import write_export
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import InputError

CONFIG = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, head_init_scale=1.0)
WITHOUT = "onnx, onnxscript and onnxruntime are not installed: pip install 'vidstill[export]'"


def require_onnx():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=WITHOUT)


def open_session(path):
    onnxruntime = pytest.importorskip("onnxruntime", reason=WITHOUT)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_onnxruntime(path, *inputs):
    """Return the outputs of onnxruntime."""
    session = open_session(path)
    names = [each.name for each in session.get_inputs()]
    return torch.from_numpy(session.run(None, {n: each.numpy() for n, each in zip(names, inputs, strict=True)})[0])


def read_metadata(path):
    model = pytest.importorskip("onnx", reason=WITHOUT).load(str(path))
    return json.loads(next(each.value for each in model.metadata_props if each.key == "vidstill"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory and its model."""
    folder = tmp_path_factory.mktemp("run")
    return folder, write_classifier(folder, CONFIG)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Labelled videos of numbered classes."""
    files = sorted((make_videos(tmp_path_factory.mktemp("videos")) / "val").iterdir())
    numbered = tmp_path_factory.mktemp("numbered") / "val.csv"
    numbered.write_text("".join(f"{path} {label}\n" for label, path in enumerate(files)))
    return numbered


@pytest.fixture(scope="module")
def exported(run, videos, tmp_path_factory):
    """The run as ONNX and its report, compared on videos too."""
    require_onnx()
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return out, write_export(str(run[0]), out, OnnxTarget, ExportConfig(data=videos))


def test_onnxruntime_has_the_models_logits_for_any_batch_size(run, exported):
    for count in (1, 2, 5):
        clip = clips(count, columns=16, seed=count)
        torch.testing.assert_close(run_onnxruntime(exported[0], clip), run[1](clip).detach(), atol=1e-5, rtol=1e-4)


def test_the_report_compares_noise_synthetic_clips_and_videos(exported):
    out, report = exported
    assert {(each.clip_source, each.batch_size) for each in report.comparisons} == {
        (kind, batch) for kind in ("random", "synthetic", "real") for batch in (1, 3)
    }
    assert all(each.max_abs_diff <= 1e-4 and each.top1_agreement == 1 for each in report.comparisons)
    assert json.loads(out.with_name("model.onnx.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    assert report.num_bytes == out.stat().st_size
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert str(out) in report.format_summary()


def test_an_onnx_file_has_metadata_and_takes_any_batch_size(exported):
    metadata = read_metadata(exported[0])
    assert metadata["classes"] == list(NAMES)
    assert (metadata["mean"], metadata["std"]) == (list(ENCODER.mean), list(ENCODER.std))
    assert metadata["input"]["clip"] == ["batch", 3, 4, 16, 16]
    assert {"vidstill", "licence", "provenance"} <= metadata.keys()
    (clip,) = open_session(exported[0]).get_inputs()
    assert (clip.name, clip.shape[0], clip.shape[1:]) == ("clip", "batch", [3, 4, 16, 16])


def test_a_wrong_export_is_not_written(run, tmp_path, monkeypatch):
    require_onnx()
    save = OnnxTarget.save

    def save_wrongly(target, path):
        with torch.no_grad():
            target.model.module.model.head.bias[2] += 0.01
        save(target, path)

    monkeypatch.setattr(OnnxTarget, "save", save_wrongly)
    with pytest.raises(InputError, match=r"model\.onnx differs from its model by 0\.01 .*'class 2'"):
        write_export(str(run[0]), tmp_path / "model.onnx", OnnxTarget)
    assert list(tmp_path.iterdir()) == []


def test_nan_never_agrees():
    expected = torch.ones(1, CLASSES)
    batches = [ComparisonBatch("random", (clips(1, columns=16),), expected)]
    actual = expected.clone()
    actual[0, 1] = torch.nan
    for outputs, message in ((actual, "'class 1'"), (actual[:, :1], "in shape")):
        with pytest.raises(InputError, match=message):
            check_outputs(compare_outputs(batches, [outputs], NAMES), 1e-4, "model.onnx")
    check_outputs(compare_outputs(batches, [expected + 1e-6], NAMES), 1e-4, "model.onnx")


def test_a_process_without_vidstill_runs_the_program(run, tmp_path):
    out = tmp_path / "model.pt2"
    report = write_export(str(run[0]), out, TorchExportTarget)
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
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout)["classes"] == list(NAMES)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), run[1](clip).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        replace(WITH_CLASS_TOKEN, positions="separable", learned_grid=(2, 4, 4)),
        replace(ENCODER, positions="learned", learned_grid=(2, 3, 3), layer_scale=0.1),  # resized
        replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 4), attention_bias="qkv"),
    ],
    ids=["class token", "resized positions", "relative positions"],
)
def test_every_kind_of_encoder_takes_any_batch_size(config, tmp_path):
    write_classifier(tmp_path / "run", replace(CONFIG, encoder=config))
    report = write_export(str(tmp_path / "run"), tmp_path / "model.pt2", TorchExportTarget)
    assert {each.batch_size for each in report.comparisons} == {1, 3}


def test_an_encoders_output_are_its_features(tmp_path):
    require_onnx()
    write_encoder(tmp_path / "run", WITH_CLASS_TOKEN)
    clip = clips(3, columns=16, seed=5)
    report = write_export(str(tmp_path / "run"), tmp_path / "features.onnx", OnnxTarget)
    assert report.metadata["output_type"] == "features"
    expected = load_encoder(str(tmp_path / "run"), precision="fp32").extract_features(clip)["final"]
    torch.testing.assert_close(run_onnxruntime(tmp_path / "features.onnx", clip), expected, atol=1e-5, rtol=1e-4)


def test_a_fine_tuned_model_can_output_tokens(run, tmp_path):
    write_export(
        str(run[0]), tmp_path / "tokens.pt2", TorchExportTarget, ExportConfig(output_type="tokens", size=(16, 24))
    )
    clip = clips(1, columns=24)
    tokens = torch.export.load(tmp_path / "tokens.pt2").module()(clip)
    expected = load_encoder(str(run[0]), precision="fp32").extract_features(clip, pool="tokens")["final"].flatten(1, 3)
    torch.testing.assert_close(tokens.detach(), expected, atol=1e-5, rtol=1e-4)


def test_a_detector_takes_any_number_of_boxes(tmp_path):
    require_onnx()
    model = write_detector(tmp_path / "detector.safetensors")
    report = write_export(str(tmp_path / "detector.safetensors"), tmp_path / "detector.onnx", OnnxTarget)
    assert report.metadata["actions"] == [[number, name] for number, name in ACTIONS.items()]
    clip = clips(2, columns=16)
    boxes = torch.tensor([[0.0, 0, 16, 16], [3, 2, 9, 15], [5, 5, 6, 6], [8, 1, 16, 7]]).expand(2, -1, -1).contiguous()
    torch.testing.assert_close(
        run_onnxruntime(tmp_path / "detector.onnx", clip, boxes), model(clip, boxes).detach(), atol=1e-4, rtol=1e-4
    )


def test_int8_is_measured_beside_the_model(run, videos, tmp_path):
    require_onnx()
    out = tmp_path / "small.onnx"
    report = write_export(str(run[0]), out, Int8Target, ExportConfig(data=videos))
    result = report.quantization
    assert result is not None
    assert result.num_videos == 2
    assert result.scores.keys() == result.float_scores.keys() == {"top1", "top5"}
    assert result.float_scores["top5"] == 100  # of five classes
    assert result.latency_ms.keys() == {"int8", "float32 in onnxruntime", "float32 in torch"}
    assert min(result.latency_ms.values()) > 0
    assert read_metadata(out)["classes"] == list(NAMES)
    onnx = pytest.importorskip("onnx", reason=WITHOUT)
    kinds = [node.op_type for node in onnx.load(str(out)).graph.node]
    assert kinds.count("MatMulInteger") >= 9  # four in each of two blocks, and the embedding
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx", "small.onnx.json"]


def test_an_int8_file_that_is_far_off_is_not_written(run, tmp_path, monkeypatch):
    require_onnx()

    def quantize_another(exact, out, metadata):
        other = write_classifier(tmp_path / "other", CONFIG)
        with torch.no_grad():
            other.head.weight.neg_()
            other.head.bias.neg_()
        model = load_exportable_model(str(run[0]), ExportConfig())
        model.module.model.load_state_dict(other.state_dict(), strict=False)
        OnnxTarget(model, ExportConfig()).save(exact.with_name("other.onnx"))
        quantize_onnx(exact.with_name("other.onnx"), out, metadata)

    monkeypatch.setattr("vidstill.pipelines.export.int8.quantize_onnx", quantize_another)
    with pytest.raises(InputError, match="far off in 8 bits"):
        write_export(str(run[0]), tmp_path / "small.onnx", Int8Target)
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        (ExportConfig(output_type="logits"), "model.pt2", "has no classes; fine-tune it first"),
        (ExportConfig(), "model.onnx", r"does not end with \.pt2"),
        (ExportConfig(frames=5), "model.pt2", "take 4 frames"),
        (ExportConfig(data="nowhere"), "model.pt2", "nowhere"),
    ],
    ids=["no classes", "another suffix", "half a tubelet", "no videos"],
)
def test_an_impossible_export_is_an_error_and_leaves_an_earlier_file(config, name, message, tmp_path):
    write_encoder(tmp_path / "run")
    out = tmp_path / "out" / name
    out.parent.mkdir()
    out.write_text("an earlier one")
    with pytest.raises(InputError, match=message):
        write_export(str(tmp_path / "run"), out, TorchExportTarget, config)
    assert out.read_text() == "an earlier one"
    assert list(out.parent.iterdir()) == [out]


def test_a_session_has_the_outputs_of_onnxruntime(exported):
    clip = clips(2, columns=16)
    assert torch.equal(OnnxSession(exported[0], threads=1)(clip), run_onnxruntime(exported[0], clip))
