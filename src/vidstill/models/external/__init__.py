"""Encoders of timm and transformers as teachers."""
