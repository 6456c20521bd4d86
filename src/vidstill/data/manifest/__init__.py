"""What a data set holds: its videos, labels and splits."""
