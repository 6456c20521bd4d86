"""Tests of trained classifiers and detectors."""
