"""Official datasets, recognized by their annotation files."""
