"""Read frames of video and image files by number."""
