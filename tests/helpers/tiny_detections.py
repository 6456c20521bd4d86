"""Command lines of the smallest detectors, by `laptop.detect`: width 24, depth 2, clips of 4 frames of 32 × 32."""

from pathlib import Path
from typing import Any

from tiny_runs import copy_dataset, typed

from vidstill.cli.main import main
from vidstill.synthetic.boxes import SyntheticBoxesConfig

TRAIN = (
    "detect train laptop.detect --workers 0 --precision fp32 --encoder.dim 24 --encoder.depth 2 --encoder.heads 2 "
    "--encoder.tubelet 2 8 8 --encoder.positions sinusoid --encoder.learned-grid 2 4 4 --clips.size 32 32 "
    "--clips.short-side 32 36 --clips.sampling.num-frames 4 --views.short-side 32 "
    "--views.sampling.num-frames 4 --schedule.epochs 4 --schedule.warmup-epochs 1 --batch 4"
)


def make_data(folder: Path) -> Path:
    """Drawn clips of figures that act: 4 to train on, 3 to test on, with two key frames each."""
    config = SyntheticBoxesConfig(train=4, val=3, unlabelled=0, seconds=3, size=(32, 48))
    return copy_dataset(folder, config)


def trained(data: Path, out: Path, **options: Any) -> Path:
    assert main(typed(TRAIN, data=data, out=out, **options)) == 0
    return out
