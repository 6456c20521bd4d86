"""Frozen evaluation: features of an encoder, computed once, and what probes of several kinds find in them."""
