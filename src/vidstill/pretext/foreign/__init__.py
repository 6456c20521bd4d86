"""Other libraries' models as teachers: whatever turns a clip, or a frame, into a grid of features."""
