"""VideoMAE's action detectors (AVA), of which the encoder is taken: a final norm and a head of 80 actions."""

from vidstill.checkpoints.layouts.build_match import build_match
from vidstill.checkpoints.layouts.infer_encoder import infer_encoder
from vidstill.checkpoints.layouts.layout import ForeignFile, Layout, LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules

_NUM_ACTIONS = 80


def _match_detector(file: ForeignFile) -> LayoutMatch | None:
    head = file.tensors.get("head.weight")
    if not file.has_patch_embed(5) or head is None or len(head) != _NUM_ACTIONS or "fc_norm" in file.top_modules:
        return None
    if "norm.weight" not in file.tensors:
        return None
    inferred = infer_encoder(file, default_positions="sinusoid")
    description = f"a detector of VideoMAE: its encoder is used (norm, no fc_norm, a head of {_NUM_ACTIONS} actions)"
    rules = (*build_vit_rules(inferred.config, "", "encoder."), RenameRule("head.", None))
    ignored = {"head.": "a detector's head: only its encoder is used"}
    return build_match("encoder", description, inferred, rules, ignored_prefixes=ignored)


LAYOUT = Layout(key="detector", name="VideoMAE's detectors", matchers=(_match_detector,))
