"""Probes of frozen features: linear, k nearest neighbours, attentive."""
