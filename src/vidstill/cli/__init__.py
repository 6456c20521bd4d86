"""Command line → function calls."""
