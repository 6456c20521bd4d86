"""VideoMAE's settings (Tong et al., NeurIPS 2022, arXiv:2203.12602): its released scripts, a pair for each model.

The numbers are the scripts', learning rates are for a batch of 256 videos. `_800e`: the shorter one of two published
runs. HMDB51 alone has a published result (62.6) and no script, so there is no pre-training of it.
"""

from dataclasses import replace

from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.data.datasets.base import FrameSampling
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.data.transforms.mixup import MixupCutmix
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.common.masking import TubeMask
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL, ViTConfig
from vidstill.recipes.recipe import DetectionRecipe, FinetuneRecipe, PretrainRecipe, format_result
from vidstill.tasks.detection import BoxJitter

# ---- Pre-training ---------------------------------------------------------------------------------------------------

K400 = ClipsConfig(dataset="kinetics400", sampling=SpanSampling(num_frames=16, stride=4))  # no flip, no colour changes
SSV2 = ClipsConfig(dataset="ssv2", sampling=SpanSampling(num_frames=16, stride=2))
UCF101 = ClipsConfig(dataset="ucf101", sampling=SpanSampling(num_frames=16, stride=4))
VIDEOMAE_ADAMW = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)  # spares the mask token


def build_cosine_schedule(epochs: int) -> CosineConfig:
    """The cosine spans an epoch more than the published weights have: `--epochs 1601`, then `checkpoint-1599.pth`."""
    return CosineConfig(epochs=epochs, warmup_epochs=40, cosine_epochs=epochs + 1)


def _pretrain(method: VideoMAEConfig, clips: ClipsConfig, epochs: int, batch: int, result: str) -> PretrainRecipe:
    return PretrainRecipe(
        method=method,
        clips=clips,
        optim=VIDEOMAE_ADAMW,
        schedule=build_cosine_schedule(epochs),
        batch=batch,
        published_result=f"fine-tuned: {result}",
    )


_SMALL = VideoMAEConfig(encoder=SMALL, decoder=DecoderConfig(dim=192, depth=4, heads=3), mask=TubeMask(ratio=0.90))
_BASE = replace(_SMALL, encoder=BASE, decoder=DecoderConfig(dim=384, depth=4, heads=6))  # half as wide as the encoder
_LARGE = replace(_SMALL, encoder=LARGE, decoder=DecoderConfig(dim=512, depth=12, heads=8))
_HUGE = replace(_SMALL, encoder=HUGE, decoder=DecoderConfig(dim=640, depth=12, heads=8))

# Model, data, epochs, GPUs × videos, published result
base_k400 = _pretrain(_BASE, K400, 1600, 64 * 32, "K400 top-1 81.5, top-5 95.1 (5 × 3 views)")
base_k400_800e = _pretrain(_BASE, K400, 800, 64 * 32, "K400 top-1 80.0, top-5 94.4 (5 × 3 views)")
small_k400 = _pretrain(_SMALL, K400, 1600, 32 * 32, "K400 top-1 79.0, top-5 93.8 (5 × 3 views)")
large_k400 = _pretrain(_LARGE, K400, 1600, 64 * 8, "K400 top-1 85.2, top-5 96.8 (5 × 3 views)")
huge_k400 = _pretrain(_HUGE, K400, 1600, 64 * 16, "K400 top-1 86.6, top-5 97.1 (5 × 3 views)")
base_ssv2 = _pretrain(_BASE, SSV2, 2400, 64 * 32, "SSv2 top-1 70.8, top-5 92.4 (2 × 3 views)")
base_ssv2_800e = _pretrain(_BASE, SSV2, 800, 64 * 32, "SSv2 top-1 69.6, top-5 92.0 (2 × 3 views)")
small_ssv2 = _pretrain(_SMALL, SSV2, 2400, 64 * 32, "SSv2 top-1 66.8, top-5 90.3 (2 × 3 views)")

# Weights and result are published, a script is not: inferred from K400 L and SSv2 B
large_ssv2 = _pretrain(_LARGE, SSV2, 2400, 64 * 8, "SSv2 top-1 74.3, top-5 94.6 (2 × 3 views)")

base_ucf101 = replace(
    _pretrain(_BASE, UCF101, 3200, 8 * 24, "UCF101 top-1 91.3, top-5 98.5 (5 × 3 views)"),
    method=replace(_BASE, mask=TubeMask(ratio=0.75)),
    optim=replace(VIDEOMAE_ADAMW, base_lr=3e-4),
)

# AMD's table 2 (arXiv:2311.03149); 800 epochs are base_ssv2_800e
ablation_epochs_200 = _pretrain(_BASE, SSV2, 200, 64 * 32, "SSv2 top-1 66.4 (2 × 3 views)")
ablation_epochs_400 = _pretrain(_BASE, SSV2, 400, 64 * 32, "SSv2 top-1 67.9 (2 × 3 views)")

# ---- Fine-tuning ----------------------------------------------------------------------------------------------------


def build_finetune_data(
    dataset: str, sampling: FrameSampling, temporal_clips: int, side: int = 224
) -> tuple[ClipsConfig, ViewsConfig]:
    """Build the clips and the test's views (× 3 crops) of a dataset; no flips on SSv2: its classes have directions."""
    clips = ClipsConfig(
        dataset=dataset,
        sampling=sampling,
        size=(side, side),
        crop=RandomResizedCrop(scale=(0.08, 1.0)),
        flip_probability=0.0 if dataset == "ssv2" else 0.5,
        randaugment=RandAugment(num_ops=4, magnitude=7.0, magnitude_std=0.5),  # rand-m7-n4-mstd0.5-inc1
    )
    return clips, ViewsConfig(
        sampling=sampling, temporal_clips=temporal_clips, spatial_crops=3, short_side=side, size=(side, side)
    )


def build_finetuning(
    data: tuple[ClipsConfig, ViewsConfig],
    encoder: ViTConfig,
    drop_path: float,
    base_lr: float,
    layer_decay: float,
    epochs: int,
    devices: int,
    device_clips: int,
    result: str,
    *,
    dropout: float = 0.0,
    min_lr: float = 1e-6,
    repeats: int = 2,
) -> FinetuneRecipe:
    """Build a row of the tables of fine-tunings, of VideoMAE and of the methods that follow it.

    Args:
        devices: GPUs × accumulation steps.
        device_clips: Clips of a GPU, which are mixed with one another; a video gives `repeats` of them.
    """
    clips, views = data
    return FinetuneRecipe(
        encoder=replace(encoder, drop_path=drop_path),
        clips=replace(clips, repeats=repeats),
        views=views,
        optim=AdamWConfig(
            base_lr=base_lr, min_lr=min_lr, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=layer_decay
        ),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=5),
        batch=devices * device_clips,
        dropout=dropout,
        random_erasing=RandomErasing(probability=0.25),
        mixup=MixupCutmix(mixup_alpha=0.8, cutmix_alpha=1.0, switch_probability=0.5, group_clips=device_clips),
        label_smoothing=0.1,
        select="last",  # as published
        published_result=format_result(result, views),
    )


# Encoder, drop path, learning rate, layer decay, epochs, GPUs, clips of a GPU, published result
K400_DATA = build_finetune_data("kinetics400", DenseSampling(num_frames=16, stride=4), temporal_clips=5)
base_k400_finetune = build_finetuning(K400_DATA, BASE, 0.1, 5e-4, 0.75, 75, 64, 12, "K400 top-1 81.5, top-5 95.1")
_RESULT_800E = "K400 top-1 80.0, top-5 94.4; with clips.repeats 2: 81.0, top-5 94.8"
base_k400_800e_finetune = build_finetuning(K400_DATA, BASE, 0.1, 1e-3, 0.75, 100, 64, 8, _RESULT_800E, repeats=1)
small_k400_finetune = build_finetuning(K400_DATA, SMALL, 0.1, 5e-4, 0.75, 150, 32, 24, "K400 top-1 79.0, top-5 93.8")
large_k400_finetune = build_finetuning(K400_DATA, LARGE, 0.1, 2e-3, 0.75, 35, 64, 4, "K400 top-1 85.2, top-5 96.8")
huge_k400_finetune = build_finetuning(
    K400_DATA, HUGE, 0.2, 1e-3, 0.75, 50, 64, 16, "K400 top-1 86.6, top-5 97.1", dropout=0.5, min_lr=1e-5
)

# Larger inputs: results are published, settings are not. Inferred: as at 16 × 224 × 224, the stride of 4 too
_320 = build_finetune_data("kinetics400", DenseSampling(num_frames=32, stride=4), temporal_clips=4, side=320)
large_k400_320_finetune = build_finetuning(_320, LARGE, 0.1, 2e-3, 0.75, 35, 64, 4, "K400 top-1 86.1, top-5 97.3")
huge_k400_320_finetune = build_finetuning(
    _320, HUGE, 0.2, 1e-3, 0.75, 50, 64, 16, "K400 top-1 87.4, top-5 97.6", dropout=0.5, min_lr=1e-5
)

# `_800e`: of the 800 epochs, others of the 2400; from K400, AMD quotes 68.5, MaskAgain and MVD 69.7
_SSV2 = build_finetune_data("ssv2", SegmentSampling(num_frames=16), temporal_clips=2)
base_ssv2_finetune = build_finetuning(
    _SSV2, BASE, 0.1, 5e-4, 0.75, 30, 64, 12, "SSv2 top-1 70.8, top-5 92.4; from K400: 69.7, or 68.5"
)
base_ssv2_800e_finetune = build_finetuning(
    _SSV2, BASE, 0.1, 5e-4, 0.75, 50, 64, 8, "SSv2 top-1 69.6, top-5 92.0", repeats=1
)
small_ssv2_finetune = build_finetuning(
    _SSV2, SMALL, 0.1, 1e-3, 0.7, 40, 32, 24, "SSv2 top-1 66.8, top-5 90.3; from K400: 66.4"
)

# No script is published of these: inferred, as SSv2 B
_32F = build_finetune_data("ssv2", SegmentSampling(num_frames=32), temporal_clips=1)
large_ssv2_finetune = build_finetuning(_SSV2, LARGE, 0.1, 5e-4, 0.75, 30, 64, 12, "SSv2 top-1 74.3, top-5 94.6")
large_ssv2_32f_finetune = build_finetuning(_32F, LARGE, 0.1, 5e-4, 0.75, 30, 64, 12, "SSv2 top-1 75.4, top-5 95.2")

# Pre-trained on the set itself, or on K400 (inferred: by the same settings). No script is published for HMDB51: MVD's
# settings (its appendix, table 16)
UCF101_DATA = build_finetune_data("ucf101", DenseSampling(num_frames=16, stride=4), temporal_clips=5)
HMDB51_DATA = build_finetune_data("hmdb51", DenseSampling(num_frames=16, stride=4), temporal_clips=5)
UCF101_RESULT = "UCF101 top-1 91.3, top-5 98.5; from K400: 96.1"
base_ucf101_finetune = build_finetuning(
    UCF101_DATA, BASE, 0.2, 5e-4, 0.7, 100, 8, 32, UCF101_RESULT, dropout=0.5, min_lr=1e-5
)
base_hmdb51_finetune = build_finetuning(
    HMDB51_DATA, BASE, 0.2, 1e-3, 0.7, 50, 8, 32, "HMDB51 top-1 62.6; from K400: 73.3", dropout=0.5
)

# ---- Detection of AVA's actions: the released detection code, on videos stored at a short side of 360 at most --------

_FRAMES = KeyframeSampling(num_frames=16, stride=4, frame_rate=25.0, rule="videomae")


def build_detector(
    size: ViTConfig, base_lr: float, layer_decay: float, epochs: int, published_result: str
) -> DetectionRecipe:
    """Build a row of the table of detectors.

    Clips have any shape: position embeddings are those of 16 × 224 × 224 pixels, resized. Colours are not those of the
    pre-training.
    """
    return DetectionRecipe(
        encoder=replace(
            size,
            learned_grid=(8, 14, 14),
            drop_path=0.2,
            mean=(122.7717 / 255, 115.9465 / 255, 102.9801 / 255),
            std=(57.375 / 255, 57.375 / 255, 57.375 / 255),
        ),
        clips=BoxClipsConfig(
            dataset="ava",
            sampling=_FRAMES,
            short_side=(256, 256),
            size=(224, 224),
            flip_probability=0.5,
            hsv_jitter=HSVJitter(hue=10, saturation=26, value=26),
            rule="videomae",
        ),
        views=BoxViewsConfig(
            sampling=_FRAMES, short_side=256, min_person_score=0.8, box_expansion=(0.1, 0.05), rule="videomae"
        ),
        optim=AdamWConfig(base_lr=base_lr, min_lr=1e-6, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=layer_decay),
        schedule=CosineConfig(epochs=epochs, warmup_epochs=5),
        batch=128,  # 32 GPUs × 4 key frames; H: 64 × 2
        aligned=False,
        head_scale=0.001,
        edge="pad",
        norm="fresh",  # a fine-tuned encoder's norm after the mean is not used
        box_jitter=BoxJitter(max_outward=0.2, max_inward=0.1),
        loss_per="clip",
        use_person_scores=True,
        matching_rule="score_order",  # the code's copy of AVA's evaluation has no limit
        published_result=published_result,
    )


# Encoder, learning rate, layer decay, epochs, published result. `_labels`: from an encoder that was fine-tuned on the
# labels of the pre-training's data; H has the same settings with labels and without
base_ava = build_detector(BASE, 2.5e-4, 0.75, 30, "AVA v2.2 mAP 26.7")  # the released log: 26.70
base_ava_labels = build_detector(BASE, 5e-4, 0.75, 30, "AVA v2.2 mAP 31.8")
small_ava = build_detector(SMALL, 1e-3, 0.6, 30, "AVA v2.2 mAP 22.5")
small_ava_labels = build_detector(SMALL, 5e-4, 0.6, 30, "AVA v2.2 mAP 28.4")
large_ava = build_detector(LARGE, 2.5e-4, 0.75, 30, "from K400: AVA v2.2 mAP 34.3; from K700: 36.1")
large_ava_labels = build_detector(LARGE, 5e-4, 0.8, 20, "with labels of K400: AVA v2.2 mAP 37.0; of K700: 39.3")
huge_ava = build_detector(HUGE, 5e-4, 0.8, 20, "AVA v2.2 mAP 36.5; with labels: 39.5")
