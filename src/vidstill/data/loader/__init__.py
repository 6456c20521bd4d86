"""Samples → batches on the device, read by worker processes."""
