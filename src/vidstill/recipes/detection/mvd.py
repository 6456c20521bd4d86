"""MVD's detectors of AVA's actions (Wang et al., CVPR 2023, arXiv:2212.04500): its appendix, table 10.

No script is published; the appendix has VideoMAE's default settings and AIA's boxes of persons. Inferred: that these
are VideoMAE's of the same size. Rates are for a batch of 256 key frames. Settings are the same whoever taught a
student; `_labels`: of one that was then fine-tuned on the labels of K400.
"""

from dataclasses import replace

from vidstill.recipes.detection import videomae
from vidstill.recipes.recipe import DetectionRecipe


def _adapt(recipe: DetectionRecipe, published_result: str) -> DetectionRecipe:
    """VideoMAE's recipe for MVD's encoder: position embeddings by time, column and row, as in pre-training."""
    return replace(recipe, encoder=replace(recipe.encoder, positions="sincos3d"), published_result=published_result)


base_ava = _adapt(videomae.base_ava, "from B: AVA v2.2 mAP 29.3; from L: 31.1")
base_ava_labels = _adapt(videomae.base_ava_labels, "from B: AVA v2.2 mAP 33.6; from L: 34.2")
large_ava = _adapt(videomae.large_ava, "AVA v2.2 mAP 37.7")
large_ava_labels = _adapt(videomae.large_ava_labels, "AVA v2.2 mAP 38.7")
huge_ava = _adapt(videomae.huge_ava, "AVA v2.2 mAP 40.1; with labels: 41.1")  # with labels and without
