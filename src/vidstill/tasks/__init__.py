"""What an encoder is pre-trained for: classification, and how it is scored."""
