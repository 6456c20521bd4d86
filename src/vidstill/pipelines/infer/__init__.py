"""Trained models on any video: features, predictions, detections."""
