"""Clip → tokens → features; knows no method and no data set."""
