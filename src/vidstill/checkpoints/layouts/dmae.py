"""DMAE's pre-trainings: image MAE's tensors, and the layers that project the student's features."""

from collections.abc import Mapping

from torch import Tensor

from vidstill.checkpoints.layouts import mae
from vidstill.checkpoints.layouts.helpers import ShapeDict


class DMAEPretrainingLayout(mae.MAEPretrainingLayout):
    key = "dmae"
    method_name, signature = "DMAE", ", aligned_feature_projection_heads"

    def infer_extra_shapes(self, tensors: Mapping[str, Tensor]) -> ShapeDict:
        return mae.infer_projection_shapes(tensors)
