"""Video file → augmented clips and labels; knows no model and no method."""
