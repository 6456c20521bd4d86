"""Pre-training, fine-tuning and the training of detectors."""
