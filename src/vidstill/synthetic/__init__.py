"""Clips that we draw ourselves: moving shapes, and persons who act in boxes."""
