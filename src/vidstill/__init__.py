"""Pre-train video transformers by masking, distil large ones into small ones that people can afford to run."""
