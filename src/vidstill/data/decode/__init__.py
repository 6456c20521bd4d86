"""Video and image files → frames, by number."""
