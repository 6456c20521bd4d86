"""What a user does with a data set before training: inspect, scan, pack."""
