"""DMAE's fine-tunings (Bai et al., CVPR 2023, arXiv:2208.12256): its script on images, and AMD's comparison on videos.

Rates are for a batch of 256 images or videos.
"""

from dataclasses import replace

from vidstill.engine.lr_schedule import CosineConfig
from vidstill.models.vit import IMAGE_BASE, IMAGE_SMALL
from vidstill.recipes.finetuning import amd, imagemae, videomae

base_in1k_finetune = replace(  # batch 1024: 8 GPUs × 128 images
    imagemae.base_in1k_finetune,
    encoder=imagemae.build_learned_position_vit_config(IMAGE_BASE, drop_path=0.15),
    optim=replace(imagemae.base_in1k_finetune.optim, layer_decay=0.75),
    schedule=CosineConfig(epochs=100, warmup_epochs=20, warmup_rule="mae"),
    mixup=videomae.build_mixup(128),
    published_result="IN-1K top-1 84.0 (1 view)",
)
small_in1k_finetune = replace(  # the repository has S, and the same settings for it
    base_in1k_finetune,
    encoder=imagemae.build_learned_position_vit_config(IMAGE_SMALL, drop_path=0.15),
    published_result="IN-1K top-1 79.3 (1 view)",  # AMD's table 8
)

# On videos: results of AMD's authors' own implementation, settings of none. Inferred: as AMD
base_k400_finetune = replace(amd.base_k400_finetune, published_result="K400 top-1 80.8, top-5 94.6 (5 × 3 views)")
base_ssv2_finetune = replace(amd.base_ssv2_finetune, published_result="SSv2 top-1 70.0, top-5 92.5 (2 × 3 views)")
