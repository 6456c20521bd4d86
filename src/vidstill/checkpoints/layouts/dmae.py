"""DMAE's pre-trainings: image MAE's tensors, and the layers that project the student's features."""

from collections.abc import Mapping

from torch import Tensor

from vidstill.checkpoints.layouts import mae
from vidstill.checkpoints.layouts.helpers import Shapes


class Pretraining(mae.Pretraining):
    key = "dmae"
    whose, sign = "DMAE", ", aligned_feature_projection_heads"

    def beside(self, tensors: Mapping[str, Tensor]) -> Shapes:
        return mae.projections(tensors)
