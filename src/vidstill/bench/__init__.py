"""Benchmarks of reading, augmenting and loading videos."""
