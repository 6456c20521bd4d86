"""Counting calls in this process and in the workers that it forks: each call is a line of a file."""

from pathlib import Path

import pytest


def record_calls(owner: object, name: str, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the name of a function or method to a file at each call."""
    original = getattr(owner, name)

    def call(*args, **options):
        with log.open("a") as file:
            file.write(f"{name}\n")
        return original(*args, **options)

    monkeypatch.setattr(owner, name, call)
