"""Accuracy, calibration and AVA's frame mAP."""
