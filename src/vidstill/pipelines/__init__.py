"""What a user runs: training, evaluation, inference, probing, export, the quickstart."""
