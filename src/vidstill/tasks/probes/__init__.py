"""Probes: small classifiers on frozen features."""
