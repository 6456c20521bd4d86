"""What coded pictures tell before they are decoded."""
