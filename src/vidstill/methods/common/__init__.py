"""What pre-training methods share: the masked autoencoder, masks, targets, losses, teachers."""
