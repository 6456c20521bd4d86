"""MAE's linear probe agrees with its authors: the head, LARS, and what is learned in three steps."""

import pytest
import torch.nn.functional as F
from foreign_layout import translate_state_dict
from reference_cases import Case, cases
from reference_mae import clip, encoder_config
from reference_models import take_step

from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import LARSConfig
from vidstill.tasks.probes.linear import LinearProbeModel

pytestmark = pytest.mark.reference

HEAD = (RenameRule("head.0.", "norm."), RenameRule("head.1.", "head."))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="linear_probe"))
def test_a_linear_probe_learns_what_its_authors_learns(case: Case) -> None:
    stored = case.json["config"]
    config = encoder_config(stored, learned=True)
    names = (*HEAD, *build_vit_rules(config, "", "encoder."))
    probe = LinearProbeModel(config.build(), stored["num_classes"])
    load_state_dict_strict(probe, translate_state_dict(case.under("weights"), names), case.name)
    optimizer = LARSConfig(base_lr=1.0, weight_decay=stored["weight_decay"]).build(probe)
    probe.train()
    for step in range(stored["steps"]):
        logits = probe(clip(case, f"input/image_{step}"))
        case.hold_each(logits.detach(), f"out/logits_{step}", "out")
        loss = F.cross_entropy(logits, case.tensors[f"input/labels_{step}"])
        case.hold_number(loss.item(), case.json["losses"][f"step{step}"], f"step{step}", "loss")
        take_step(optimizer, Runtime("fp32"), probe, loss, stored["lr"], None)
    probe.eval()
    case.hold_each(probe(clip(case, "input/image_eval")).detach(), "out/logits_eval", "out")
    final = translate_state_dict(case.under("final"), HEAD)
    ours = probe.state_dict()
    assert final.keys() == {name for name in ours if not name.startswith("encoder.")}
    for name, tensor in final.items():
        case.hold_each(ours[name], tensor, "final")
