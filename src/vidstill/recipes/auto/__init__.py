"""A recipe made for given videos, with its reasons: `vidstill finetune auto`."""
