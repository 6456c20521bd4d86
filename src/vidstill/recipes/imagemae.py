"""MAE's settings (He et al., CVPR 2022, arXiv:2111.06377), as its repository has them.

Rates are for a batch of 256 images. `_800e`: the documented command; without it, the 1600 epochs of the released
weights. Nothing is spared from decay but biases and norms: class and mask token are decayed.
"""

from dataclasses import replace

from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.frame_sampling import SpanSampling
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.common.masking import RandomMask
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.models.decoder import MAE_DECODER
from vidstill.models.vit import IMAGE_BASE, IMAGE_HUGE, IMAGE_LARGE
from vidstill.recipes.recipe import PretrainRecipe

IN1K = ClipsConfig(
    dataset="imagenet",
    sampling=SpanSampling(num_frames=1, stride=1),  # an image is a clip of one frame
    crop=RandomResizedCrop(scale=(0.2, 1.0), interpolation="bicubic"),
    flip_probability=0.5,  # no colour changes
)
IMAGEMAE_ADAMW = AdamWConfig(base_lr=1.5e-4, min_lr=0.0, betas=(0.9, 0.95), weight_decay=0.05, no_weight_decay=())

base_in1k = PretrainRecipe(
    method=ImageMAEConfig(
        encoder=IMAGE_BASE,
        decoder=MAE_DECODER,  # for all sizes
        mask=RandomMask(ratio=0.75),
        target="per_patch",  # --norm_pix_loss
    ),
    clips=IN1K,
    optim=IMAGEMAE_ADAMW,
    schedule=CosineConfig(epochs=1600, warmup_epochs=40, warmup_rule="mae"),
    batch=4096,  # 64 GPUs × 64 images
    published_result="fine-tuned: IN-1K top-1 83.6, released 83.66, top-5 96.53 (1 view); linear probe: 68.0",
)
large_in1k = replace(
    base_in1k,
    method=replace(base_in1k.method, encoder=IMAGE_LARGE),
    published_result="fine-tuned: IN-1K top-1 85.9, released 85.95, top-5 97.57 (1 view); linear probe: 75.8",
)
huge_in1k = replace(
    base_in1k,
    method=replace(base_in1k.method, encoder=IMAGE_HUGE),  # patches of 14 × 14 pixels, 256 of them
    published_result="fine-tuned: IN-1K top-1 86.9, released 86.93, top-5 98.09 (1 view); linear probe: 76.6",
)

_DOCUMENTED = CosineConfig(epochs=800, warmup_epochs=40, warmup_rule="mae")
base_in1k_800e = replace(base_in1k, schedule=_DOCUMENTED, published_result="no result is published for B at 800 epochs")
large_in1k_800e = replace(
    large_in1k, schedule=_DOCUMENTED, published_result="fine-tuned: IN-1K top-1 85.4, repository 85.5 (1 view)"
)
huge_in1k_800e = replace(huge_in1k, schedule=_DOCUMENTED, published_result="no result is published for H at 800 epochs")

# mae_visualize_vit_*: pixels as they enter the encoder; L is the teacher of DMAE's script. Their epochs are not stated
_NO_RESULT = "no result is published: weights for pictures, and for DMAE's teacher"
base_in1k_pixels = replace(base_in1k, method=replace(base_in1k.method, target="input"), published_result=_NO_RESULT)
large_in1k_pixels = replace(large_in1k, method=replace(large_in1k.method, target="input"), published_result=_NO_RESULT)
huge_in1k_pixels = replace(huge_in1k, method=replace(huge_in1k.method, target="input"), published_result=_NO_RESULT)
