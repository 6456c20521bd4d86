"""Every stored model of the reference cases through the public path: a file, recognised, ours, and back again."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference_mae
import test_mae_cases
import test_maskagain_cases
import test_model_cases
import test_mvd_cases
import test_st_mae
import torch
from foreign_layout import translate_state_dict
from reference_cases import Case, cases, load_cases
from reference_models import encoder_config
from torch import Tensor

from vidstill.checkpoints.convert import ConversionReport, import_checkpoint
from vidstill.checkpoints.io import Checkpoint, read_checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict, write_foreign_checkpoint
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import from_dict

pytestmark = pytest.mark.reference

KERNEL, BLOCK = "patch_embed.proj.weight", "blocks.0.mlp.fc2.weight"
SUFFIXES = (".pth", ".safetensors")


# ---- What is stored -------------------------------------------------------------------------------------------------


def prefixes(case: Case) -> list[str]:
    """Before the names of each whole model that a case stores, with its encoder's weights."""
    if not case.path.with_suffix(".safetensors").exists():
        return []
    before = {name.removesuffix(KERNEL).removesuffix("encoder.") for name in case.tensors if name.endswith(KERNEL)}
    return [
        each.rstrip("/")
        for each in sorted(before)
        if not each.startswith("grad") and any(f"{each}{middle}{BLOCK}" in case.tensors for middle in ("", "encoder."))
    ]


def tensors_of(case: Case, prefix: str) -> dict[str, Tensor]:
    """As its authors' file has them; of a student also what stands beside it."""
    expected = case.under(prefix)
    if prefix == "student":
        expected |= case.under("student_extra")
        expected |= {test_maskagain_cases.official(f"align/{name}"): t for name, t in case.under("align").items()}
    return expected


def hint_of(case: Case, prefix: str) -> ViTConfig | None:
    """The encoder that a case says it has: heads, and the kind of computed positions."""
    config = case.json.get("config", {})
    match case.method:
        case "videomae" if case.json["kind"].startswith("pretrain"):
            return encoder_config(config["args"], config["num_frames"], "encoder_")
        case "videomae":
            return encoder_config(config["args"], config["args"]["all_frames"])
        case "amd":
            return encoder_config(config[prefix]["args"], config["num_frames"], "encoder_" * (prefix == "student"))
        case "maskagain":
            return encoder_config(config[prefix]["args"], config["num_frames"], "encoder_")
        case "mvd" if case.json["kind"] == "finetune":
            args = config["args"]
            of_clips = encoder_config(args, args["all_frames"])
            return replace(of_clips, positions="sincos3d", class_token=args["use_cls_token"])
        case "mvd":
            whole = test_mvd_cases.mvd_config(config)
            teachers = {"teacher_image": whole.image, "teacher_video": whole.video}
            return whole.encoder if prefix == "student" else teachers[prefix].model
        case "st_mae":
            return reference_mae.stmae_encoder_config(config or case.json["pretrain_to_finetune"]["config"])
        case "image_mae":
            return reference_mae.encoder_config(config, learned="num_classes" in config)
        case "dmae":
            return reference_mae.encoder_config(config["common"] | config[prefix.replace("final", "student")])
        case _:
            return None


STORED = [
    pytest.param(case, prefix, id=f"{key}-{prefix}")
    for key, case in load_cases().items()
    if case.method != "videomae_hf"  # which test_videomae_hf.py reads with its config.json
    for prefix in prefixes(case)
] or [pytest.param(None, "", marks=pytest.mark.skip(reason="there are no reference cases here"))]


# ---- There and back -------------------------------------------------------------------------------------------------


Through = tuple[Checkpoint, ConversionReport]
"""What came out of a file, and the account of it."""


def through_file(case: Case, prefix: str, path: Path) -> Through:
    expected = tensors_of(case, prefix)
    write_foreign_checkpoint(path, expected, "slowfast" if "pred_head.projections.0.weight" in expected else "videomae")
    return import_checkpoint(read_checkpoint(path), hint_of(case, prefix))


@pytest.mark.parametrize(("case", "prefix"), STORED)
def test_a_stored_model_is_read_from_a_file_and_written_back_the_same(case: Case, prefix: str, tmp_path: Path) -> None:
    case.leave_to_others()
    expected = tensors_of(case, prefix)
    weights, ledger = through_file(case, prefix, tmp_path / "model.pth")
    assert {entry.foreign_name for entry in ledger.entries if entry.foreign_name} == expected.keys()
    config = from_dict(ViTConfig, weights.metadata["encoder"])
    hold_encoder(config, hint_of(case, prefix))
    hold_same(through_file(case, prefix, tmp_path / "model.safetensors")[0].tensors, weights.tensors)

    layout = (
        "mvd" if config.positions == "sincos3d" else weights.metadata["layout"]
    )  # its classifier looks like VideoMAE's
    write_foreign_checkpoint(tmp_path / "back.pth", export_state_dict(weights, layout), layout)
    again = read_checkpoint(tmp_path / "back.pth").tensors
    ignored = {
        entry.foreign_name for entry in ledger.filter_by_status("ignored") if "pos_embed" not in entry.foreign_name
    }
    assert all(name.startswith("generators.") and ".norm." in name for name in ignored)  # never used, never trained
    if weights.metadata["kind"] == "encoder":  # whose names begin with or without `encoder.`
        again, expected = ({name.removeprefix("encoder."): t for name, t in each.items()} for each in (again, expected))
    hold_same(*({name: t for name, t in each.items() if name not in ignored} for each in (again, expected)))


def hold_same(result: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert result.keys() == expected.keys()
    for name, tensor in expected.items():
        assert result[name].dtype == tensor.dtype, name
        assert torch.equal(result[name], tensor), name


def hold_encoder(result: ViTConfig, hint: ViTConfig | None) -> None:
    """What came out is built as the case says, so that the same tensors give the same."""
    assert hint is not None
    same = ("dim", "depth", "heads", "mlp_ratio", "tubelet", "positions", "class_token", "mean", "std", "norm_eps")
    for name in same:
        assert getattr(result, name) == getattr(hint, name), name
    assert bool(result.layer_scale) == bool(hint.layer_scale)
    assert result.attention_bias == hint.attention_bias
    if hint.positions in ("learned", "separable"):
        assert result.learned_grid == hint.learned_grid


# ---- What comes out agrees with the authors -------------------------------------------------------------------------

HELD: dict[Callable[..., None], list[Any]] = {
    test_model_cases.test_videomae_agrees_with_its_authors: cases(method="videomae", kind="pretrain"),
    test_model_cases.test_the_classifier_agrees_with_videomaes_authors: cases(method="videomae", kind="finetune"),
    test_model_cases.test_amd_agrees_with_its_authors: cases(method="amd", kind="distill"),
    test_mvd_cases.test_a_distillation_agrees_with_mvds_authors: cases(method="mvd", kind="distill"),
    test_mvd_cases.test_the_classifier_agrees_with_mvds_authors: cases(method="mvd", kind="finetune"),
    test_st_mae.test_st_mae_agrees_with_its_authors: cases(method="st_mae", kind="pretrain_forward"),
    test_st_mae.test_the_classifier_agrees_with_st_maes_authors: cases(method="st_mae", kind="finetune_forward"),
    test_mae_cases.test_image_mae_agrees_with_its_authors: cases(method="image_mae", kind="pretrain_forward"),
    test_mae_cases.test_the_classifier_agrees_with_image_maes_authors: cases(
        method="image_mae", kind="finetune_forward"
    ),
    test_mae_cases.test_a_linear_probe_learns_what_its_authors_learns: cases(method="image_mae", kind="linear_probe"),
    test_mae_cases.test_dmae_agrees_with_its_authors: cases(method="dmae", kind="distillation_forward"),
    test_maskagain_cases.test_a_distillation_agrees_with_maskagains_authors: test_maskagain_cases.VARIANTS[:1],
}


@pytest.mark.parametrize(
    ("held", "arguments"),
    [
        pytest.param(held, each.values, id=each.id, marks=each.marks)
        for held, arguments in HELD.items()
        for each in arguments
    ],
)  # fmt: skip
def test_what_comes_out_of_a_file_agrees_with_the_authors(
    held: Callable[..., None], arguments: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparisons of each method's own tests, with weights that went through a file, and were recognised."""
    case: Case = arguments[0]
    files = {
        id(tensor): (weights, ledger)
        for number, prefix in enumerate(prefixes(case))
        for weights, ledger in [through_file(case, prefix, tmp_path / f"{number}{SUFFIXES[number % 2]}")]
        for tensor in tensors_of(case, prefix).values()
    }
    used: list[int] = []

    def from_file(case: Case, expected: Mapping[str, Tensor], names: Any) -> dict[str, Tensor]:
        """What `translate` gives, of the tensors that came out of the files."""
        translated = translate_state_dict(expected, names)
        first = next(iter(expected.values()), None)
        if first is None:  # no projections
            return translated
        used.append(len(translated))
        return {name: out_of(files[id(first)], name, translated) for name in translated}

    monkeypatch.setattr(Case, "translate", from_file)
    held(*arguments)
    assert sum(used)


def out_of(through: Through, name: str, translated: Mapping[str, Tensor]) -> Tensor:
    """A tensor of ours, under the name that is asked for."""
    weights, _ = through
    if weights.metadata["layout"] == "amd" and name.startswith("projections."):  # of which layers, no file says
        targets, available = (
            sorted((n for n in each if n.startswith("projections.")), key=index)
            for each in (translated, weights.tensors)
        )
        name = available[targets.index(name)]
    return weights.tensors[name if name in weights.tensors else f"encoder.{name}"]


def index(name: str) -> int:
    return int(name.split(".")[1])
