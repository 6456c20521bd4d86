"""Detection of actions: persons' boxes found, detectors trained, tested and asked about videos."""
