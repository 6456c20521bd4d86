"""The papers' fine-tunings, one file per paper; `videomae.base_k400_finetune` is in this package's `videomae`."""
