"""The quickstart's settings: the road in minutes on two CPU cores, on clips of `vidstill data make`; no paper's."""

from dataclasses import replace

from vidstill.data.datasets import ClipsConfig, ViewsConfig
from vidstill.data.made import MadeConfig
from vidstill.data.sampling import SegmentSampling
from vidstill.engine.optim import AdamWConfig
from vidstill.engine.schedule import CosineConfig
from vidstill.methods.amd import AMDConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.pretext.masks import NestedTubeMask, TubeMask
from vidstill.pretext.teachers import TeacherConfig
from vidstill.recipes.recipe import Finetune, Pretrain

made = MadeConfig(size=(32, 32))

# 8 frames of 32 × 32 pixels are 64 tokens; separable codes are learned faster than the flat table where time is short
_TEACHER = ViTConfig(dim=192, depth=6, heads=3, tubelet=(2, 8, 8), positions="sincos3d")
_STUDENT = replace(_TEACHER, dim=96, depth=4)
_FRAMES = SegmentSampling(frames=8)  # from the whole clip: its class is a movement that takes all of it
_CLIPS = ClipsConfig(dataset="made", sampling=_FRAMES, size=(32, 32))  # no flip: some classes differ by it alone

teacher = Pretrain(
    method=VideoMAEConfig(
        encoder=_TEACHER,
        decoder=DecoderConfig(dim=96, depth=2, heads=3, positions="sincos3d"),
        mask=TubeMask(ratio=0.75),
    ),
    clips=_CLIPS,
    optim=AdamWConfig(base_lr=4e-3, betas=(0.9, 0.95)),
    schedule=CosineConfig(epochs=30, warmup_epochs=3),
    batch=64,
)
videomae = replace(  # the student, on pixels alone
    teacher,
    method=replace(teacher.method, encoder=_STUDENT, decoder=replace(teacher.method.decoder, dim=48)),
)
amd = replace(  # the student, from the teacher's features as well
    videomae,
    method=AMDConfig(
        encoder=_STUDENT,
        decoder=videomae.method.decoder,
        teacher=TeacherConfig(model=_TEACHER),
        mask=NestedTubeMask(student_ratio=0.75, teacher_ratio=0.5),
        pairs=((2, 3), (4, 6)),
        generator_depth=1,
    ),
)

finetune = Finetune(
    encoder=_STUDENT,
    clips=_CLIPS,
    views=ViewsConfig(sampling=_FRAMES, views=1, crops=1, short_side=32, size=(32, 32)),
    optim=AdamWConfig(base_lr=4e-3, min_lr=1e-5, layer_decay=0.75),
    schedule=CosineConfig(epochs=30, warmup_epochs=3),
    batch=64,
    smoothing=0.1,
)
finetune_teacher = replace(finetune, encoder=_TEACHER)
