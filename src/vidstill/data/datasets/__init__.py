"""Manifest rows → clips: for training, for views, for sliding windows."""
