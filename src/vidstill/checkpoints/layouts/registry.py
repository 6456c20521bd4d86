"""The known layouts, in the order in which a file is compared with them."""

from collections.abc import Mapping

from vidstill.checkpoints.layouts import (
    amd,
    detector,
    dmae,
    mae,
    maskagain,
    mmaction,
    mvd,
    slowfast,
    stmae,
    transformers_export,
    videomae,
)
from vidstill.checkpoints.layouts.layout import Layout

_MODULES = (transformers_export, amd, maskagain, mvd, slowfast, stmae, dmae, mae, detector, mmaction, videomae)
LAYOUTS: Mapping[str, Layout] = {module.LAYOUT.key: module.LAYOUT for module in _MODULES}
WRITABLE_LAYOUTS = tuple(key for key, layout in LAYOUTS.items() if layout.format or layout.write)
