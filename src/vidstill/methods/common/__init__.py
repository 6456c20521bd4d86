"""What several pre-training methods share: masks, targets, losses, teachers."""
