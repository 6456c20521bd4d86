"""Weights that come with the package, by `shipped:NAME`; their cards are in `assets/README.md`."""

from pathlib import Path

from vidstill.utils.types import InputError

SHIPPED_SCHEME = "shipped:"
TEACHER, STUDENT = "shipped:quickstart-teacher", "shipped:quickstart-student"

ASSETS = Path(__file__).parents[1] / "assets"


def find_shipped_weights(address: str) -> Path:
    """Return the file of `shipped:NAME`.

    Raises:
        InputError: No such weights come with the package.
    """
    name = address.removeprefix(SHIPPED_SCHEME)
    files = {path.stem: path for path in sorted(ASSETS.glob("*.safetensors"))}
    if name not in files:
        known = ", ".join(f"{SHIPPED_SCHEME}{each}" for each in files) or "none"
        raise InputError(f"{address} does not come with vidstill; these weights do: {known}")
    return files[name]
