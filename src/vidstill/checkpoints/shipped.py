"""Weights that come with the package, by `shipped:NAME`; their cards are in `assets/README.md`."""

from pathlib import Path

from vidstill.utils.types import InputError

SHIPPED_SCHEME = "shipped:"
TEACHER, STUDENT = "shipped:quickstart-teacher", "shipped:quickstart-student"

SCRATCH = "scratch"
"""What a run that starts from random weights may give instead of an address."""

ASSETS = Path(__file__).parents[1] / "assets"


def list_shipped_starts() -> list[str]:
    """Return the addresses of the encoders that come with the package, the smaller one first."""
    return [each for each in (STUDENT, TEACHER) if _make_path(each).is_file()]


def find_shipped_weights(address: str) -> Path:
    """Return the file of `shipped:NAME`.

    Raises:
        InputError: No such weights come with the package.
    """
    if (path := _make_path(address)) not in (files := sorted(ASSETS.glob("*.safetensors"))):
        known = ", ".join(f"{SHIPPED_SCHEME}{each.stem}" for each in files) or "none"
        raise InputError(f"{address} does not come with vidstill; these weights do: {known}")
    return path


def _make_path(address: str) -> Path:
    return ASSETS / f"{address.removeprefix(SHIPPED_SCHEME)}.safetensors"
