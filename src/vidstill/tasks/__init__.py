"""What an encoder is pre-trained for: classification, detection and probes, and their metrics."""
