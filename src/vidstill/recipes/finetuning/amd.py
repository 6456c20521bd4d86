"""AMD's fine-tunings (Zhao et al., CVPR 2024, arXiv:2311.03149): its released scripts, and what they lack.

Rates are for a batch of 256 videos or images. For UCF101, HMDB51 and images nothing is released: the results are the
paper's, the settings MVD's and MAE's (inferred).
"""

from dataclasses import replace

from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.models.vit import BASE, IMAGE_SMALL, SMALL
from vidstill.recipes.finetuning import imagemae, mvd, videomae

base_k400_finetune = replace(
    videomae.base_k400_finetune,
    optim=replace(videomae.base_k400_finetune.optim, base_lr=7e-4),
    schedule=CosineConfig(epochs=90, warmup_epochs=5),
    batch=1024,  # 32 GPUs × 16 = 512 videos, of 2 clips
    mixup=videomae.build_mixup(32),
    published_result="K400 top-1 82.2, top-5 95.3 (5 × 3 views)",
)
small_k400_finetune = replace(
    base_k400_finetune,
    encoder=replace(SMALL, drop_path=0.1),
    optim=replace(base_k400_finetune.optim, base_lr=1e-3),
    schedule=CosineConfig(epochs=150, warmup_epochs=5),
    batch=512,  # the cluster's script: 16 GPUs × 16 = 256 videos, of 2 clips; that for four machines has 512
    published_result="K400 top-1 80.1, top-5 94.5 (5 × 3 views)",
)

_SEGMENTS = SegmentSampling(num_frames=16, rule="amd")
base_ssv2_finetune = replace(
    videomae.base_ssv2_finetune,
    clips=replace(videomae.base_ssv2_finetune.clips, sampling=_SEGMENTS),
    views=replace(videomae.base_ssv2_finetune.views, sampling=_SEGMENTS),
    batch=512,  # 16 GPUs × 16 = 256 videos, of 2 clips
    mixup=videomae.build_mixup(32),
    published_result="SSv2 top-1 73.3, top-5 94.0 (2 × 3 views); from K400: 72.6",
)
small_ssv2_finetune = replace(
    base_ssv2_finetune,
    encoder=replace(SMALL, drop_path=0.1),
    optim=replace(base_ssv2_finetune.optim, base_lr=1e-3),  # layer decay 0.75, where VideoMAE's S has 0.7
    schedule=CosineConfig(epochs=40, warmup_epochs=5),
    published_result="SSv2 top-1 70.2, top-5 92.5 (2 × 3 views)",
)

# Inferred: as MVD's. Whether the results are of one split or of all three is not said
base_ucf101_finetune = replace(
    mvd.base_ucf101_finetune,
    encoder=replace(BASE, drop_path=0.2),
    published_result="UCF101 top-1 97.1 (5 × 3 views)",
)
base_hmdb51_finetune = replace(
    mvd.base_hmdb51_finetune,
    encoder=replace(BASE, drop_path=0.2),
    published_result="HMDB51 top-1 79.6 (5 × 3 views)",
)

# Inferred: as MAE's B, of which DMAE's repository says that it serves smaller models too
base_in1k_finetune = replace(imagemae.base_in1k_finetune, published_result="IN-1K top-1 84.6 (1 view)")
small_in1k_finetune = replace(
    base_in1k_finetune,
    encoder=imagemae.build_learned_position_vit_config(IMAGE_SMALL, drop_path=0.1),
    published_result="IN-1K top-1 82.1 (1 view)",
)
