"""VideoMAE's settings (Tong et al., NeurIPS 2022, arXiv:2203.12602): its released scripts, a pair for each model.

The numbers are the scripts'; rates are for a batch of 256 videos. `_800e`: the shorter one of two published runs.
HMDB51 has a published result (62.6) and no script, so there is no recipe of it.
"""

from dataclasses import replace

from vidstill.data.augment import RandomResizedCrop
from vidstill.data.datasets import ClipsConfig, ViewsConfig
from vidstill.data.erasing import Erasing
from vidstill.data.mixing import Mixing
from vidstill.data.randaugment import RandAugment
from vidstill.data.sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.engine.optim import AdamWConfig
from vidstill.engine.schedule import CosineConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL
from vidstill.pretext.masks import TubeMask
from vidstill.recipes.recipe import Finetune, Pretrain

# ---- Pre-training ---------------------------------------------------------------------------------------------------

K400 = ClipsConfig(dataset="kinetics400", sampling=SpanSampling(frames=16, stride=4))  # no flip, no colour changes
SSV2 = ClipsConfig(dataset="ssv2", sampling=SpanSampling(frames=16, stride=2))
UCF101 = ClipsConfig(dataset="ucf101", sampling=SpanSampling(frames=16, stride=4))
ADAMW = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)  # spares the mask token


def cosine(epochs: int) -> CosineConfig:
    """The cosine spans an epoch more than the published weights have: `--epochs 1601`, then `checkpoint-1599.pth`."""
    return CosineConfig(epochs=epochs, warmup_epochs=40, span_epochs=epochs + 1)


base_k400 = Pretrain(
    method=VideoMAEConfig(
        encoder=BASE,
        decoder=DecoderConfig(dim=384, depth=4, heads=6),  # half as wide as the encoder
        mask=TubeMask(ratio=0.90),
    ),
    clips=K400,
    optim=ADAMW,
    schedule=cosine(1600),
    batch=2048,  # 64 GPUs × 32 videos
    expects="fine-tuned: K400 top-1 81.5, top-5 95.1 (5 × 3 views)",
)
base_k400_800e = replace(
    base_k400, schedule=cosine(800), expects="fine-tuned: K400 top-1 80.0, top-5 94.4 (5 × 3 views)"
)
small_k400 = replace(
    base_k400,
    method=VideoMAEConfig(encoder=SMALL, decoder=DecoderConfig(dim=192, depth=4, heads=3)),
    batch=1024,  # 32 GPUs × 32 videos
    expects="fine-tuned: K400 top-1 79.0, top-5 93.8 (5 × 3 views)",
)
large_k400 = replace(
    base_k400,
    method=VideoMAEConfig(encoder=LARGE, decoder=DecoderConfig(dim=512, depth=12, heads=8)),
    batch=512,  # 64 GPUs × 8 videos
    expects="fine-tuned: K400 top-1 85.2, top-5 96.8 (5 × 3 views)",
)
huge_k400 = replace(
    base_k400,
    method=VideoMAEConfig(encoder=HUGE, decoder=DecoderConfig(dim=640, depth=12, heads=8)),
    batch=1024,  # 64 GPUs × 16 videos
    expects="fine-tuned: K400 top-1 86.6, top-5 97.1 (5 × 3 views)",
)

base_ssv2 = replace(
    base_k400, clips=SSV2, schedule=cosine(2400), expects="fine-tuned: SSv2 top-1 70.8, top-5 92.4 (2 × 3 views)"
)
base_ssv2_800e = replace(
    base_ssv2, schedule=cosine(800), expects="fine-tuned: SSv2 top-1 69.6, top-5 92.0 (2 × 3 views)"
)
small_ssv2 = replace(
    base_ssv2,
    method=small_k400.method,
    batch=2048,  # 64 GPUs × 32 videos
    expects="fine-tuned: SSv2 top-1 66.8, top-5 90.3 (2 × 3 views)",
)
large_ssv2 = replace(  # weights and result are published, a script is not: inferred from K400 L and SSv2 B
    large_k400, clips=SSV2, schedule=cosine(2400), expects="fine-tuned: SSv2 top-1 74.3, top-5 94.6 (2 × 3 views)"
)
base_ucf101 = replace(
    base_k400,
    method=replace(base_k400.method, mask=TubeMask(ratio=0.75)),
    clips=UCF101,
    optim=replace(ADAMW, base_lr=3e-4),
    schedule=cosine(3200),
    batch=192,  # 8 GPUs × 24 videos
    expects="fine-tuned: UCF101 top-1 91.3, top-5 98.5 (5 × 3 views)",
)

# AMD's table 2 (arXiv:2311.03149); 800 epochs are base_ssv2_800e
ablation_epochs_200 = replace(base_ssv2, schedule=cosine(200), expects="fine-tuned: SSv2 top-1 66.4 (2 × 3 views)")
ablation_epochs_400 = replace(base_ssv2, schedule=cosine(400), expects="fine-tuned: SSv2 top-1 67.9 (2 × 3 views)")

# ---- Fine-tuning ----------------------------------------------------------------------------------------------------

base_k400_finetune = Finetune(  # of the 1600 epochs
    encoder=replace(BASE, drop_path=0.1),
    clips=ClipsConfig(
        dataset="kinetics400",
        sampling=DenseSampling(frames=16, stride=4),
        crop=RandomResizedCrop(area=(0.08, 1.0)),
        flip=0.5,
        randaugment=RandAugment(operations=4, magnitude=7.0, magnitude_std=0.5),  # rand-m7-n4-mstd0.5-inc1
        repeats=2,
    ),
    views=ViewsConfig(sampling=DenseSampling(frames=16, stride=4), views=5, crops=3),
    optim=AdamWConfig(base_lr=5e-4, min_lr=1e-6, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.75),
    schedule=CosineConfig(epochs=75, warmup_epochs=5),
    batch=768,  # 64 GPUs × 6 = 384 videos, of 2 clips
    erasing=Erasing(probability=0.25),
    mixing=Mixing(mixup=0.8, cutmix=1.0, switch=0.5),
    smoothing=0.1,
    expects="K400 top-1 81.5, top-5 95.1 (5 × 3 views)",
)
base_k400_800e_finetune = replace(
    base_k400_finetune,
    clips=replace(base_k400_finetune.clips, repeats=1),
    optim=replace(base_k400_finetune.optim, base_lr=1e-3),
    schedule=CosineConfig(epochs=100, warmup_epochs=5),
    batch=512,  # 64 GPUs × 8 videos
    expects="K400 top-1 80.0, top-5 94.4 (5 × 3 views)",
)
small_k400_finetune = replace(
    base_k400_finetune,
    encoder=replace(SMALL, drop_path=0.1),
    schedule=CosineConfig(epochs=150, warmup_epochs=5),
    batch=768,  # 32 GPUs × 12 = 384 videos, of 2 clips
    expects="K400 top-1 79.0, top-5 93.8 (5 × 3 views)",
)
large_k400_finetune = replace(
    base_k400_finetune,
    encoder=replace(LARGE, drop_path=0.1),
    optim=replace(base_k400_finetune.optim, base_lr=2e-3),
    schedule=CosineConfig(epochs=35, warmup_epochs=5),
    batch=256,  # 64 GPUs × 2 = 128 videos, of 2 clips
    expects="K400 top-1 85.2, top-5 96.8 (5 × 3 views)",
)
huge_k400_finetune = replace(
    base_k400_finetune,
    encoder=replace(HUGE, drop_path=0.2),
    optim=replace(base_k400_finetune.optim, base_lr=1e-3, min_lr=1e-5),
    schedule=CosineConfig(epochs=50, warmup_epochs=5),
    batch=1024,  # 64 GPUs × 8 = 512 videos, of 2 clips
    dropout=0.5,
    expects="K400 top-1 86.6, top-5 97.1 (5 × 3 views)",
)

base_ssv2_finetune = replace(  # of the 2400 epochs
    base_k400_finetune,
    clips=replace(  # no flip: the classes tell left from right
        base_k400_finetune.clips, dataset="ssv2", sampling=SegmentSampling(frames=16), flip=0.0
    ),
    views=ViewsConfig(sampling=SegmentSampling(frames=16), views=2, crops=3),
    schedule=CosineConfig(epochs=30, warmup_epochs=5),
    expects="SSv2 top-1 70.8, top-5 92.4 (2 × 3 views)",
)
base_ssv2_800e_finetune = replace(
    base_ssv2_finetune,
    clips=replace(base_ssv2_finetune.clips, repeats=1),
    schedule=CosineConfig(epochs=50, warmup_epochs=5),
    batch=512,  # 64 GPUs × 8 videos
    expects="SSv2 top-1 69.6, top-5 92.0 (2 × 3 views)",
)
small_ssv2_finetune = replace(
    base_ssv2_finetune,
    encoder=replace(SMALL, drop_path=0.1),
    optim=replace(base_ssv2_finetune.optim, base_lr=1e-3, layer_decay=0.7),
    schedule=CosineConfig(epochs=40, warmup_epochs=5),
    batch=768,  # 32 GPUs × 12 = 384 videos, of 2 clips
    expects="SSv2 top-1 66.8, top-5 90.3 (2 × 3 views)",
)
large_ssv2_finetune = replace(  # no script is published: inferred, as SSv2 B
    base_ssv2_finetune,
    encoder=replace(LARGE, drop_path=0.1),
    expects="SSv2 top-1 74.3, top-5 94.6 (2 × 3 views)",
)
base_ucf101_finetune = replace(
    base_k400_finetune,
    encoder=replace(BASE, drop_path=0.2),
    clips=replace(base_k400_finetune.clips, dataset="ucf101"),
    optim=replace(base_k400_finetune.optim, min_lr=1e-5, layer_decay=0.7),
    schedule=CosineConfig(epochs=100, warmup_epochs=5),
    batch=256,  # 8 GPUs × 16 = 128 videos, of 2 clips
    dropout=0.5,
    expects="UCF101 top-1 91.3, top-5 98.5 (5 × 3 views)",
)
