"""Clip → tokens → features; knows no method and no dataset."""
