"""Detectors of actions that nobody has trained, in files, for tests of what they are asked."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny_models import ENCODER, built

from vidstill.checkpoints.io import write_checkpoint
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.samples import BoxClipsConfig, BoxViewsConfig
from vidstill.recipes.videomae import base_ava
from vidstill.tasks.detection import Detector
from vidstill.utils.config_io import to_dict

ACTIONS = {1: "stand", 3: "talk to (a person)", 7: "wave"}
VIEWS = BoxViewsConfig(
    sampling=KeyframeSampling(num_frames=4, stride=4, frame_rate=25.0),
    short_side=24,
    box_expansion=(0.1, 0.05),
    min_person_score=0.5,
)


def write_detector(
    path: Path, *, views: BoxViewsConfig = VIEWS, times_person_score: bool = True, factor: float = 40.0
) -> Detector:
    """Gives what is in the file, whose answers differ from box to box."""
    clips = BoxClipsConfig(dataset="made", sampling=views.sampling, short_side=(24, 24), size=(16, 16))
    recipe = replace(base_ava, encoder=ENCODER, clips=clips, views=views, use_person_scores=times_person_score)
    config = recipe.build_detector_config(len(ACTIONS))
    model = built(config).eval()
    with torch.no_grad():
        model.head.weight.mul_(factor)
    about = {
        "kind": "detector",
        "encoder": to_dict(config.encoder),
        "detector": to_dict(config),
        "actions": [[number, name] for number, name in ACTIONS.items()],
        "evaluated": list(ACTIONS),
        "recipe": to_dict(recipe),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, model.state_dict(), about)
    return model
