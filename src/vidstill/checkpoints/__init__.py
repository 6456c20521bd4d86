"""The authors' checkpoints ↔ ours."""
