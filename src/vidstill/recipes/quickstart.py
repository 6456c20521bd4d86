"""Recipes of the quickstart, no paper's: drawn clips; on two cores a teacher in two hours, a student in minutes."""

from dataclasses import replace
from typing import Literal

from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.amd import AMDConfig
from vidstill.methods.common.masking import NestedTubeMask, RandomMask, TubeMask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.methods.maskagain import HiddenConfig, MaskAgainConfig, OutputConfig
from vidstill.methods.mvd import MVDConfig, TeacherBranch
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import MAE_DECODER, DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe

DistillationMethod = Literal["amd", "mvd", "maskagain", "dmae"]

CLIPS = "size=32x32,frames=8,classes=8"
"""What a drawn clip is, for `made:`: the eight classes are pairs of opposite motions."""

NUM_UNLABELLED = 12_000
"""Clips that the students' epochs are for."""

NUM_FEW = 600
"""Labelled clips that the fine-tuning's epochs are for."""

# 8 frames of 32 × 32 pixels are 32 tokens; in so few steps, separable position embeddings learn faster than flat ones
_TEACHER = ViTConfig(dim=192, depth=4, heads=6, tubelet=(4, 8, 8), positions="sincos3d")
_STUDENT = replace(_TEACHER, dim=96, heads=3)
_FRAMES = SegmentSampling(num_frames=8)  # over the whole clip: its class is a motion that spans it
_CLIPS = ClipsConfig(
    dataset="drawn clips",
    sampling=_FRAMES,
    size=(32, 32),
    crop=RandomResizedCrop(scale=(0.8, 1.0), ratio=(1.0, 1.0)),  # mild: the object stays in the frame
)  # no flip: some classes differ only in direction

teacher = PretrainRecipe(
    method=VideoMAEConfig(
        encoder=_TEACHER,
        decoder=DecoderConfig(dim=96, depth=2, heads=3, positions="sincos3d"),
        mask=RandomMask(ratio=0.75),  # of 32 tokens 8 are visible
    ),
    clips=_CLIPS,
    optim=AdamWConfig(base_lr=6e-3, betas=(0.9, 0.95), max_grad_norm=1.0),  # 3e-3 for 128 clips
    schedule=CosineConfig(epochs=60, warmup_epochs=3),  # of 96 000 clips: 5.8 million
    batch=128,
)
videomae = replace(  # the student, on pixels only
    teacher,
    method=VideoMAEConfig(
        encoder=_STUDENT,
        decoder=replace(teacher.method.decoder, dim=64, heads=2),
        mask=RandomMask(ratio=0.35),  # the best of five on one seed; seeds differ as much (docs/log.md)
    ),
    optim=replace(teacher.optim, base_lr=8e-3),  # 1e-3 for 32 clips
    schedule=CosineConfig(epochs=6, warmup_epochs=0.6),  # of 12 000 clips
    batch=32,  # in so little time, more steps teach more than more clips in each
)
amd = replace(  # the student, on pixels and the teacher's features
    videomae,
    method=AMDConfig(
        encoder=_STUDENT,
        decoder=videomae.method.decoder,
        teacher=TeacherConfig(model=_TEACHER),
        mask=NestedTubeMask(student_ratio=0.5, teacher_ratio=0.25),
        layer_pairs=((2, 2), (4, 4)),
        generator_depth=1,
    ),  # the losses weigh 1 each, as in the paper: with 0.003 on the features the student knew less (docs/log.md)
    optim=replace(videomae.optim, base_lr=1.6e-2),  # a teacher's features can be learned at twice the rate
)

dmae = replace(  # the same from one layer, at the tokens visible to both
    amd,
    method=DMAEConfig(
        encoder=_STUDENT,
        decoder=videomae.method.decoder,
        teacher=TeacherConfig(model=_TEACHER),
        mask=teacher.method.mask,
        layer_pairs=((4, 4),),  # the last block's: at three quarters of the depth the student learned a little less
        alignment_weight=200.0,  # features of unit length differ little: with 1 the pixels decide (docs/log.md)
    ),
)
maskagain = replace(  # attention and features at the tokens visible to both, without a decoder
    amd,
    method=MaskAgainConfig(
        encoder=_STUDENT,
        teacher=TeacherConfig(model=_TEACHER),
        mask=TubeMask(ratio=0.5),  # each time step needs as many visible tokens
        hidden=HiddenConfig(global_top_k=4, local_top_k=2),  # of 16 visible tokens, and of 8 in each time step
        output=OutputConfig(salient_tokens=4),
    ),
)
image_teacher = replace(  # MAE on single frames, for MVD
    teacher,
    method=ImageMAEConfig(
        encoder=replace(_TEACHER, tubelet=(1, 8, 8), positions="sincos2d", class_token=True, attention_bias="qkv"),
        decoder=replace(MAE_DECODER, dim=96, depth=2, heads=3),
        mask=RandomMask(ratio=0.5),
        target="input",
    ),
    clips=replace(_CLIPS, sampling=SegmentSampling(num_frames=1)),
    optim=videomae.optim,
    schedule=videomae.schedule,
    batch=videomae.batch,
)
mvd = replace(  # the features of both teachers at the masked tokens, instead of pixels
    videomae,
    method=MVDConfig(
        encoder=_STUDENT,
        decoder=replace(videomae.method.decoder, embed_bias=True),
        image=TeacherBranch(model=image_teacher.method.encoder),
        video=TeacherBranch(model=_TEACHER),
        mask=videomae.method.mask,
        normalize_targets=True,
    ),
)

finetune = FinetuneRecipe(
    encoder=_STUDENT,
    clips=_CLIPS,
    views=ViewsConfig(sampling=_FRAMES, temporal_clips=1, spatial_crops=1, short_side=32, size=(32, 32)),
    optim=AdamWConfig(base_lr=4e-3, betas=(0.9, 0.95), max_grad_norm=1.0),  # 1e-3 for 64 clips
    schedule=CosineConfig(epochs=60, warmup_epochs=12),  # of 600 clips: 540 steps, a fifth of them warm-up
    batch=64,  # with 32 clips, or at twice the rate, some seeds from scratch begin to learn at the end (docs/log.md)
    label_smoothing=0.1,
    weight_init="xavier",  # with the authors' initialization this student stays at 1/8: docs/log.md
    select="last",  # nothing is selected on test clips
)
finetune_teacher = replace(finetune, encoder=_TEACHER)
