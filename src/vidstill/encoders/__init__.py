"""Trained encoders, ready to be asked: of clips, of videos, of windows over them."""
