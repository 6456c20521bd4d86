"""MVD's fine-tunings (Wang et al., CVPR 2023, arXiv:2212.04500): its released scripts; rates are for 256 videos.

`_paper`: where the appendix has another batch or rate than the scripts, which the released accuracies come with. All
students are pre-trained on K400; settings are the same whoever taught a student, and however long.
"""

from dataclasses import replace

from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL, ViTConfig
from vidstill.recipes.finetuning import imagemae, videomae

_NO_OWN_RESULT = "no result is its own: the released ones come with the scripts' settings"


def _build_student(size: ViTConfig, drop_path: float = 0.1) -> ViTConfig:
    """Codes by time, column and row, as in pre-training."""
    return replace(size, positions="sincos3d", drop_path=drop_path)


# ---- Kinetics-400 ---------------------------------------------------------------------------------------------------

base_k400_finetune = replace(
    videomae.base_k400_finetune,  # its rate, 75 epochs, and 384 videos: 32 GPUs × 6 × 2 accumulated
    encoder=_build_student(BASE),
    published_result="from B: K400 top-1 82.7, top-5 95.4 (5 × 3 views); from L: 83.4, top-5 95.8",
)
small_k400_finetune = replace(
    base_k400_finetune,
    encoder=_build_student(SMALL),
    schedule=CosineConfig(epochs=150, warmup_epochs=5),
    batch=768,  # 16 GPUs × 12 × 2 accumulated = 384 videos, of 2 clips
    mixup=videomae.build_mixup(24),
    published_result="from B: K400 top-1 80.6, top-5 94.7 (5 × 3 views); from L: 81.0, top-5 94.8",
)
_OPTIM_512_VIDEOS = replace(base_k400_finetune.optim, base_lr=1e-3)
base_k400_paper_finetune = replace(
    base_k400_finetune,
    optim=_OPTIM_512_VIDEOS,
    batch=1024,
    mixup=videomae.build_mixup(16),
    published_result=_NO_OWN_RESULT,
)
small_k400_paper_finetune = replace(
    small_k400_finetune,
    optim=_OPTIM_512_VIDEOS,
    batch=1024,
    mixup=videomae.build_mixup(16),
    published_result=_NO_OWN_RESULT,
)
large_k400_finetune = replace(
    base_k400_finetune,
    encoder=_build_student(LARGE, drop_path=0.3),
    optim=replace(base_k400_finetune.optim, base_lr=1e-3),
    schedule=CosineConfig(epochs=50, warmup_epochs=5),
    batch=1024,  # 512 videos: 32 GPUs × 2 × 8 accumulated (400 epochs), or 32 × 16 (800)
    mixup=videomae.build_mixup(4),
    dropout=0.5,
    published_result="after 400 epochs: K400 top-1 86.0, top-5 96.9 (5 × 3 views); after 800: 86.4, top-5 97.0",
)
huge_k400_finetune = replace(
    large_k400_finetune,
    encoder=_build_student(HUGE, drop_path=0.3),
    batch=512,  # 32 GPUs × 8 = 256 videos, of 2 clips
    mixup=videomae.build_mixup(16),
    published_result="K400 top-1 87.3, top-5 97.4 (5 × 3 views)",
)
huge_k400_paper_finetune = replace(huge_k400_finetune, batch=1024, published_result=_NO_OWN_RESULT)

# ---- Something-Something V2 -----------------------------------------------------------------------------------------

_SEGMENTS = SegmentSampling(num_frames=16, rule="mvd")
base_ssv2_finetune = replace(
    videomae.base_ssv2_finetune,  # its rate, 30 epochs, and 384 videos: 16 GPUs × 24
    encoder=_build_student(BASE),
    clips=replace(videomae.base_ssv2_finetune.clips, sampling=_SEGMENTS),
    views=replace(videomae.base_ssv2_finetune.views, sampling=_SEGMENTS),
    mixup=videomae.build_mixup(48),
    published_result="from B: SSv2 top-1 72.5, top-5 93.6 (2 × 3 views); from L: 73.7, top-5 94.0",
)
small_ssv2_finetune = replace(
    base_ssv2_finetune,
    encoder=_build_student(SMALL),
    optim=replace(base_ssv2_finetune.optim, base_lr=1e-3, layer_decay=0.7),
    schedule=CosineConfig(epochs=40, warmup_epochs=5),
    batch=768,  # 32 GPUs × 12 = 384 videos, of 2 clips
    mixup=videomae.build_mixup(24),
    published_result="from B: SSv2 top-1 70.7, top-5 92.6 (2 × 3 views); from L: 70.9, top-5 92.8",
)
large_ssv2_finetune = replace(
    base_ssv2_finetune,
    encoder=_build_student(LARGE, drop_path=0.3),
    batch=512,  # 16 GPUs × 16 = 256 videos, of 2 clips
    mixup=videomae.build_mixup(32),
    dropout=0.5,
    published_result="after 400 epochs: SSv2 top-1 76.1, top-5 95.4 (2 × 3 views); after 800: 76.7, top-5 95.5",
)
huge_ssv2_finetune = replace(
    large_ssv2_finetune,
    encoder=_build_student(HUGE, drop_path=0.3),
    optim=replace(base_ssv2_finetune.optim, min_lr=1e-5),
    batch=256,  # 16 GPUs × 8 = 128 videos, of 2 clips
    mixup=videomae.build_mixup(16),
    published_result="SSv2 top-1 77.3, top-5 95.7 (2 × 3 views)",
)
base_ssv2_paper_finetune = replace(
    base_ssv2_finetune, batch=1024, mixup=videomae.build_mixup(16), published_result=_NO_OWN_RESULT
)
small_ssv2_paper_finetune = replace(
    small_ssv2_finetune, batch=1024, mixup=videomae.build_mixup(16), published_result=_NO_OWN_RESULT
)
large_ssv2_paper_finetune = replace(large_ssv2_finetune, batch=1024, published_result=_NO_OWN_RESULT)
huge_ssv2_paper_finetune = replace(huge_ssv2_finetune, batch=1024, published_result=_NO_OWN_RESULT)

# ---- UCF101 and HMDB51: the appendix; results are the means of the three splits -------------------------------------

base_ucf101_finetune = replace(
    videomae.base_ucf101_finetune,
    encoder=_build_student(BASE, drop_path=0.2),
    optim=replace(base_k400_finetune.optim, layer_decay=0.7),
    published_result="from B: UCF101 top-1 97.0 (5 × 3 views); from L: 97.5",
)
base_hmdb51_finetune = replace(
    videomae.base_hmdb51_finetune,
    encoder=_build_student(BASE, drop_path=0.2),
    published_result="from B: HMDB51 top-1 76.4 (5 × 3 views); from L: 79.7",
)

# ---- ImageNet-1K: no settings are published. Inferred: as MAE -------------------------------------------------------

base_in1k_finetune = replace(imagemae.base_in1k_finetune, published_result="IN-1K top-1 84.0 (1 view)")
