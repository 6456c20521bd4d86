"""Key frames with boxes around persons: AVA's files and one's own → augmented clips, boxes and actions."""
