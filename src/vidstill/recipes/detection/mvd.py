"""MVD's detectors of AVA's actions (Wang et al., CVPR 2023, arXiv:2212.04500): its appendix, table 10.

No script is published; the appendix has VideoMAE's default settings and AIA's boxes of persons. Inferred: that these
are VideoMAE's of the same size. Rates are for a batch of 256 key frames. Settings are the same whoever taught a
student; `_decode_labels`: of one that was then fine-tuned on the labels of K400.
"""

from dataclasses import replace

from vidstill.models.vit import ViTConfig
from vidstill.recipes.detection import videomae


def _build_student(encoder: ViTConfig) -> ViTConfig:
    """Codes by time, column and row, as in pre-training."""
    return replace(encoder, positions="sincos3d")


base_ava = replace(
    videomae.base_ava,
    encoder=_build_student(videomae.base_ava.encoder),
    published_result="from B: AVA v2.2 mAP 29.3; from L: 31.1",
)
base_ava_labels = replace(
    videomae.base_ava_labels,
    encoder=_build_student(videomae.base_ava_labels.encoder),
    published_result="from B: AVA v2.2 mAP 33.6; from L: 34.2",
)
large_ava = replace(
    videomae.large_ava,
    encoder=_build_student(videomae.large_ava.encoder),
    published_result="AVA v2.2 mAP 37.7",
)
large_ava_labels = replace(
    videomae.large_ava_labels,
    encoder=_build_student(videomae.large_ava_labels.encoder),
    published_result="AVA v2.2 mAP 38.7",
)
huge_ava = replace(  # with labels and without
    videomae.huge_ava,
    encoder=_build_student(videomae.huge_ava.encoder),
    published_result="AVA v2.2 mAP 40.1; with labels: 41.1",
)
