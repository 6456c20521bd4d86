import re

import pytest
import torch
from torch import nn

from reference_cases import cases
from vidstill.engine.optim import parameter_groups
from vidstill.engine.schedule import cosine_rate

pytestmark = pytest.mark.reference

OURS = [  # the authors' names → ours, as far as layers and decay depend on them
    (r"^(patch_embed|blocks|pos_embed|cls_token|norm)\b", r"encoder.\1"),
    (r"patch_embed\.proj", "embed"),
    (r"pos_embed", "positions"),
    (r"cls_token", "class_token"),
    (r"^mask_token$", "decoder.infill.mask_token"),
    (r"^encoder_to_decoder", "decoder.project"),
    (r"^decoder\.blocks", "decoder.infill.blocks"),
    (r"^encoder\.projection_heads", "projections"),
]


def translated(name: str) -> str:
    for theirs, ours in OURS:
        name = re.sub(theirs, ours, name)
    return name


@pytest.mark.parametrize("case", cases(kind="table", name="schedules"))
def test_rates_are_the_table_s(case):
    tolerance = case.json["tolerance"]
    for row in case.json["rows"]:
        asked, epoch = row["settings"], row["settings"]["niter_per_ep"]
        ours = [
            cosine_rate(
                step,
                peak=asked["base_value"],
                final=asked["final_value"],
                steps=asked["epochs"] * epoch,
                warmup=asked.get("warmup_steps", 0) or asked.get("warmup_epochs", 0) * epoch,
                start=asked.get("start_warmup_value", 0.0),
            )
            for step in range(row["length"])
        ]
        assert ours == pytest.approx(row["values"], rel=tolerance["rtol"], abs=tolerance["atol"])


@pytest.mark.parametrize("case", cases(kind="table", name="param_groups"))
def test_decay_and_layer_scales_are_the_table_s(case):
    for row in case.json["rows"]:
        theirs = {translated(name): group for name, group in row["parameters"].items()}
        assert len(theirs) == len(row["parameters"])
        groups = parameter_groups(
            [(name, nn.Parameter(torch.zeros(group["shape"]))) for name, group in theirs.items()],
            weight_decay=row["weight_decay"],
            layer_decay=row["layer_decay"],
            undecayed=tuple(translated(name).rpartition(".")[2] for name in row["no_weight_decay_list"]),
        )
        ours = {name: group for group in groups for name, _ in group["params"]}
        assert ours.keys() == theirs.keys()
        for name, group in theirs.items():
            assert ours[name]["weight_decay"] == group["weight_decay"], name
            assert ours[name]["lr_scale"] == pytest.approx(group["lr_scale"], rel=case.json["tolerance"]["rtol"]), name
            if "layer_id" in group:
                assert ours[name]["layer"] == group["layer_id"], name
