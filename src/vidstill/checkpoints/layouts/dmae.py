"""DMAE's pre-trainings: image MAE's tensors, and the projections of the student's features."""

from dataclasses import replace

from vidstill.checkpoints.layouts import mae
from vidstill.checkpoints.layouts.layout import ForeignFile, Layout, LayoutMatch


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    return mae.match_mae_pretraining(file) if mae.DMAE_PROJECTIONS in file.top_modules else None


LAYOUT = Layout(
    key="dmae",
    name="DMAE",
    matchers=(_match_pretraining,),
    format=replace(mae.FORMAT, project="DMAE", build_rules=mae.build_dmae_format_rules),
)
