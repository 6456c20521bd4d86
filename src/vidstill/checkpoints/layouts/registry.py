"""All layouts that are known, in the order in which a file is held against them."""

from vidstill.checkpoints.layouts import amd, detector, dmae, mae, maskagain, mmaction, mvd, slowfast, stmae, videomae
from vidstill.checkpoints.layouts.layout import Layout
from vidstill.checkpoints.layouts.transformers import TransformersLayout

LAYOUTS: tuple[Layout, ...] = (
    TransformersLayout(),
    amd.AMDPretrainingLayout(),
    maskagain.MaskAgainPretrainingLayout(),
    videomae.VideoMAEPretrainingLayout(),
    mvd.MVDPretrainingLayout(),
    slowfast.SlowFastPretrainingLayout(),
    stmae.STMAEPretrainingLayout(),
    stmae.STMAEClassifierLayout(),
    stmae.STMAEEncoderLayout(),
    dmae.DMAEPretrainingLayout(),
    mae.MAEPretrainingLayout(),
    mae.MAEClassifierLayout(),
    mae.MAELinearProbeLayout(),
    mae.MAEEncoderLayout(),
    detector.VideoMAEDetectorLayout(),
    videomae.VideoMAEClassifierLayout(),
    mmaction.MMActionRecognizerLayout(),
    videomae.VideoMAEEncoderLayout(),
)
