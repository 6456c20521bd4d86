"""Features of many videos, in files: asked for, computed and kept video by video, written in the end."""
