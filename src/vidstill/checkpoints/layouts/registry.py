"""The known layouts, in the order in which a file is compared with them."""

from collections.abc import Mapping

from vidstill.checkpoints.layouts.amd import AMD
from vidstill.checkpoints.layouts.layout import Layout
from vidstill.checkpoints.layouts.mae import DMAE, MAE
from vidstill.checkpoints.layouts.maskagain import MASKAGAIN
from vidstill.checkpoints.layouts.mmaction import MMACTION
from vidstill.checkpoints.layouts.mvd import MVD
from vidstill.checkpoints.layouts.stmae import SLOWFAST, STMAE
from vidstill.checkpoints.layouts.transformers_export import TRANSFORMERS
from vidstill.checkpoints.layouts.videomae import DETECTOR, VIDEOMAE

_LAYOUTS = (TRANSFORMERS, AMD, MASKAGAIN, MVD, SLOWFAST, STMAE, DMAE, MAE, DETECTOR, MMACTION, VIDEOMAE)
LAYOUTS: Mapping[str, Layout] = {layout.key: layout for layout in _LAYOUTS}
WRITABLE_LAYOUTS = tuple(key for key, layout in LAYOUTS.items() if layout.format or layout.write)
