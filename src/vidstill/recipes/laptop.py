"""Recipes for a few hundred real videos on two CPU cores: clips of 64 × 64 pixels; docs/log.md has results.

They are no paper's: sizes and epochs fit within an hour, all else is VideoMAE's and AMD's unless a comment says
otherwise.
"""

from dataclasses import replace

from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.frame_sampling import DenseSampling, SpanSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.amd import AMDConfig
from vidstill.methods.common.masking import NestedTubeMask, TubeMask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.recipes.recipe import DetectionRecipe, FinetuneRecipe, PretrainRecipe

# 16 frames of 64 × 64 pixels are 256 tokens, of which a mask ratio of 0.9 leaves 28 visible
_TEACHER = ViTConfig(dim=192, depth=6, heads=3, tubelet=(4, 8, 8), positions="sincos3d")
_STUDENT = replace(_TEACHER, dim=96, depth=4)

teacher = PretrainRecipe(
    method=VideoMAEConfig(
        encoder=_TEACHER,
        decoder=DecoderConfig(dim=64, depth=2, heads=2, positions="sincos3d"),
        mask=TubeMask(ratio=0.90),
    ),
    clips=ClipsConfig(
        dataset="weizmann4, cctv_fight, ucf101_makeup",
        sampling=SpanSampling(num_frames=16, stride=2),
        size=(64, 64),
        flip_probability=0.5,  # few videos: both directions count
        repeats=4,  # as in AMD: decoded once, cropped and masked four times
    ),
    optim=AdamWConfig(base_lr=4e-3, betas=(0.9, 0.95), max_grad_norm=1.0, lr_scaling="clips"),  # 5e-4 for 32 clips
    schedule=CosineConfig(epochs=50, warmup_epochs=4),
    batch=32,  # 8 videos × 4 copies
)
videomae = replace(  # the student, on pixels only
    teacher, method=replace(teacher.method, encoder=_STUDENT), schedule=CosineConfig(epochs=25, warmup_epochs=2)
)
amd = replace(  # the student, on pixels and the teacher's features
    videomae,
    method=AMDConfig(
        encoder=_STUDENT,
        decoder=videomae.method.decoder,
        teacher=TeacherConfig(model=_TEACHER),
        mask=NestedTubeMask(student_ratio=0.90, teacher_ratio=0.75),
        layer_pairs=((2, 3), (4, 6)),
        generator_depth=1,
    ),
)

finetune = FinetuneRecipe(
    encoder=_STUDENT,
    clips=ClipsConfig(
        dataset="weizmann4",
        sampling=DenseSampling(num_frames=16, stride=2),
        size=(64, 64),
        crop=RandomResizedCrop(scale=(0.5, 1.0)),
        flip_probability=0.5,
    ),
    views=ViewsConfig(
        sampling=DenseSampling(num_frames=16, stride=2), temporal_clips=2, spatial_crops=1, short_side=64, size=(64, 64)
    ),
    optim=AdamWConfig(base_lr=1.6e-2, max_grad_norm=1.0),  # 1e-3 for 16 clips; the same for all layers
    schedule=CosineConfig(epochs=100, warmup_epochs=5),
    batch=16,
    label_smoothing=0.1,
    weight_init="xavier",
)
finetune_teacher = replace(finetune, encoder=_TEACHER)

# ---- Actions of persons in boxes, on the clips of `vidstill data make --boxes` --------------------------------------

# 8 frames of 64 × 96 pixels, a second of them, are 384 tokens
_DETECTOR_STUDENT = replace(finetune.encoder, tubelet=(2, 8, 8))
_ONE_SECOND = KeyframeSampling(num_frames=8, stride=1, frame_rate=8.0, rule="slowfast")

detect_student = replace(  # what the detector starts from: VideoMAE on clips without boxes
    videomae,
    method=replace(videomae.method, encoder=_DETECTOR_STUDENT),
    clips=replace(
        videomae.clips,
        dataset="made boxes",
        sampling=SpanSampling(num_frames=8, stride=1),
        size=(64, 96),
        flip_probability=0.0,  # left and right are other actions
    ),
)
detect = DetectionRecipe(
    encoder=replace(_DETECTOR_STUDENT, learned_grid=(4, 8, 12)),
    clips=BoxClipsConfig(
        dataset="made boxes",
        sampling=_ONE_SECOND,
        short_side=(64, 72),
        size=(64, 96),
        flip_probability=0.0,
        rule="slowfast",
    ),
    views=BoxViewsConfig(sampling=_ONE_SECOND, short_side=64, min_person_score=0.5, rule="slowfast"),
    optim=AdamWConfig(base_lr=1.6e-2, max_grad_norm=1.0),  # 1e-3 for 16 clips; the same for all layers
    schedule=CosineConfig(epochs=30, warmup_epochs=1),
    batch=16,
    aligned=True,  # boxes are small beside a token
    head_scale=1.0,
    loss_per="box",
)
