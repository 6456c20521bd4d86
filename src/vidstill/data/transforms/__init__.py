"""Frame sampling and augmentations of clips."""
