"""All layouts that are known, in the order in which a file is held against them."""

from vidstill.checkpoints.layouts import amd, detector, dmae, mae, maskagain, mmaction, mvd, slowfast, stmae, videomae
from vidstill.checkpoints.layouts.layout import Layout
from vidstill.checkpoints.layouts.transformers import Transformers

LAYOUTS: tuple[Layout, ...] = (
    Transformers(),
    amd.Pretraining(),
    maskagain.Pretraining(),
    videomae.Pretraining(),
    mvd.Pretraining(),
    slowfast.Pretraining(),
    stmae.Pretraining(),
    stmae.Classifier(),
    stmae.Encoder(),
    dmae.Pretraining(),
    mae.Pretraining(),
    mae.Classifier(),
    mae.LinearProbe(),
    mae.Encoder(),
    detector.Detector(),
    videomae.Classifier(),
    mmaction.Recogniser(),
    videomae.Encoder(),
)
