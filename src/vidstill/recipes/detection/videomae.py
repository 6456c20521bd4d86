"""VideoMAE's detectors of AVA's actions (Tong et al., NeurIPS 2022, arXiv:2203.12602): its released detection code.

Rates are for a batch of 256 key frames. They begin with a pre-training, or, `_labels`, with an encoder that was
then fine-tuned on the labels of the same set. Films are stored at a short side of 360 at most.
"""

from dataclasses import replace

from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL, ViTConfig
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.detection import BoxJitter

_FRAMES = KeyframeSampling(frames=16, stride=4, frame_rate=25.0, rule="videomae")


def build_ava_vit_config(size: ViTConfig) -> ViTConfig:
    """A size for clips of any shape: codes are those of 16 × 224 × 224 pixels, resized; not pre-training's colours."""
    return replace(
        size,
        learned_grid=(8, 14, 14),
        drop_path=0.2,
        mean=(122.7717 / 255, 115.9465 / 255, 102.9801 / 255),
        std=(57.375 / 255, 57.375 / 255, 57.375 / 255),
    )


base_ava = DetectionRecipe(
    encoder=build_ava_vit_config(BASE),
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
    optim=AdamWConfig(base_lr=2.5e-4, min_lr=1e-6, betas=(0.9, 0.999), weight_decay=0.05, layer_decay=0.75),
    schedule=CosineConfig(epochs=30, warmup_epochs=5),
    batch=128,  # 32 GPUs × 4 key frames
    aligned=False,
    head_scale=0.001,
    edge="pad",
    norm="fresh",  # a fine-tuned encoder's norm after the mean is left behind
    box_jitter=BoxJitter(max_outward=0.2, max_inward=0.1),
    loss_per="clip",
    use_person_scores=True,
    matching_rule="score_order",  # the code's copy of AVA's evaluation has no limit
    published_result="AVA v2.2 mAP 26.7",  # the released log: 26.70
)
base_ava_labels = replace(
    base_ava,
    optim=replace(base_ava.optim, base_lr=5e-4),
    published_result="AVA v2.2 mAP 31.8",
)
small_ava = replace(
    base_ava,
    encoder=build_ava_vit_config(SMALL),
    optim=replace(base_ava.optim, base_lr=1e-3, layer_decay=0.6),
    published_result="AVA v2.2 mAP 22.5",
)
small_ava_labels = replace(
    small_ava,
    optim=replace(small_ava.optim, base_lr=5e-4),
    published_result="AVA v2.2 mAP 28.4",
)
large_ava = replace(
    base_ava,
    encoder=build_ava_vit_config(LARGE),
    published_result="from K400: AVA v2.2 mAP 34.3; from K700: 36.1",
)
large_ava_labels = replace(
    large_ava,
    optim=replace(base_ava.optim, base_lr=5e-4, layer_decay=0.8),
    schedule=CosineConfig(epochs=20, warmup_epochs=5),
    published_result="with labels of K400: AVA v2.2 mAP 37.0; of K700: 39.3",
)
huge_ava = replace(  # with labels and without; 64 GPUs × 2 key frames
    large_ava_labels,
    encoder=build_ava_vit_config(HUGE),
    published_result="AVA v2.2 mAP 36.5; with labels: 39.5",
)
