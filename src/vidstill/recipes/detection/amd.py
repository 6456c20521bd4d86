"""AMD's detectors of AVA's actions (Zhao et al., CVPR 2024, arXiv:2311.03149): its table 6.

No script is published; the paper follows VideoMAE. Inferred: that these are VideoMAE's settings of the same size.
Rates are for a batch of 256 key frames; `_labels`: of a student that was then fine-tuned on the labels of K400.
"""

from dataclasses import replace

from vidstill.recipes.detection import videomae

base_ava = replace(videomae.base_ava, published_result="AVA v2.2 mAP 29.9")
base_ava_labels = replace(videomae.base_ava_labels, published_result="AVA v2.2 mAP 33.5")
