"""Actions of persons in boxes on two CPU cores, on the clips of `vidstill data make --boxes`; no paper's."""

from dataclasses import replace

from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.recipes import laptop
from vidstill.recipes.recipe import DetectionRecipe

# 8 frames of 64 × 96 pixels, a second of them, are 384 tokens
_STUDENT = replace(laptop.finetune.encoder, tubelet=(2, 8, 8))
_ONE_SECOND = KeyframeSampling(frames=8, stride=1, frame_rate=8.0, rule="slowfast")

detect_student = replace(  # what the detector starts from: VideoMAE on clips without boxes
    laptop.videomae,
    method=replace(laptop.videomae.method, encoder=_STUDENT),
    clips=replace(
        laptop.videomae.clips,
        dataset="made boxes",
        sampling=SpanSampling(num_frames=8, stride=1),
        size=(64, 96),
        flip_probability=0.0,  # left and right are other actions
    ),
)
detect = DetectionRecipe(
    encoder=replace(_STUDENT, learned_grid=(4, 8, 12)),
    clips=BoxClipsConfig(
        dataset="made boxes",
        sampling=_ONE_SECOND,
        short_side=(64, 72),
        size=(64, 96),
        flip_probability=0.0,
        rule="slowfast",
    ),
    views=BoxViewsConfig(sampling=_ONE_SECOND, short_side=64, min_person_score=0.5, rule="slowfast"),
    optim=AdamWConfig(base_lr=1.6e-2, max_grad_norm=1.0),  # 1e-3 for 16 clips; all layers at one rate
    schedule=CosineConfig(epochs=30, warmup_epochs=1),
    batch=16,
    aligned=True,  # boxes are small beside a token
    head_scale=1.0,
    loss_per="box",
)
