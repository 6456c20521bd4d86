"""Files of tiny encoders that were never trained, and videos for them, for tests of what encoders are asked."""

from dataclasses import replace
from pathlib import Path

from tiny_models import CLASSES, ENCODER, built

from vidstill.checkpoints.io import MODEL_FILE, write_checkpoint
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.transforms.frame_sampling import SegmentSampling
from vidstill.models.vit import ViT, ViTConfig
from vidstill.synthetic.dataset import SyntheticClipsConfig, make_dataset
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils.config_io import to_dict

SAMPLING = SegmentSampling(num_frames=4)
VIEWS = ViewsConfig(sampling=SAMPLING, temporal_clips=2, spatial_crops=3, short_side=16, size=(16, 16))
NAMES = tuple(f"class {number}" for number in range(CLASSES))
WITH_CLASS_TOKEN = replace(ENCODER, class_token=True)
FRAMES, RATE = 8, 8  # of the made videos, which last a second


def write_encoder(run: Path, config: ViTConfig = ENCODER, *, seed: int = 0) -> ViT:
    """The folder of a pre-training on clips of 4 frames of 16 × 16 from the whole video; gives what is in it."""
    model = built(config, seed=seed).eval()
    recipe = {"clips": to_dict(ClipsConfig(dataset="made", sampling=SAMPLING, size=(16, 16)))}
    tensors = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    run.mkdir(parents=True, exist_ok=True)
    about = {"kind": "pretraining", "encoder": to_dict(config), "recipe": recipe}
    write_checkpoint(run / MODEL_FILE, tensors, about)
    return model


def write_classifier(run: Path, config: ClassifierConfig) -> Classifier:
    """The folder of a fine-tuning; gives what is in it."""
    model = built(config).eval()
    about = {"kind": "classifier", "classifier": to_dict(config), "classes": NAMES, "views": to_dict(VIEWS)}
    run.mkdir(parents=True, exist_ok=True)
    write_checkpoint(run / MODEL_FILE, model.state_dict(), about)
    return model


def make_videos(folder: Path, *, train: int = 4, val: int = 2, frames: int = FRAMES) -> Path:
    """Labelled ones in `folder/train` and `folder/val`, with their lists."""
    config = SyntheticClipsConfig(train=train, val=val, unlabelled=0, frames=frames, fps=RATE, size=(16, 24))
    return make_dataset(folder, replace(config, classes=("left", "right")), workers=1)
