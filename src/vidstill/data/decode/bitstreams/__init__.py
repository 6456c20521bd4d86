"""What coded packets tell before they are decoded."""
