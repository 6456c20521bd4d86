"""AVA's score: the mean over actions of the average precision of boxes, at an overlap of one half."""

from typing import Literal

Matching = Literal["score_order_top50", "score_order", "file_order"]
"""In which order a key frame's detections choose their annotated boxes: by score, the 50 best rows alone (the data
set's own script); by score; or as they are stated (PySlowFast's copy of that script)."""
