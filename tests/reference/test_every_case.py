"""No reference case is left out: each one is given to some test, or its whole folder is for later, and says so."""

import importlib
from pathlib import Path

import pytest
from reference_cases import SELECTED, load_cases

pytestmark = pytest.mark.reference

LATER: dict[str, str] = {}

for path in sorted(Path(__file__).parent.glob("test_*.py")):
    if path != Path(__file__):
        importlib.import_module(path.stem)  # so that it asks for its cases, whichever tests are run


@pytest.mark.parametrize("key", sorted(load_cases()))
def test_a_case_is_held_by_some_test(key: str) -> None:
    folder = load_cases()[key].method
    if folder in LATER:
        pytest.skip(f"{folder}: {LATER[folder]}")
    assert key in SELECTED, f"no test asks for {key}, of the kind {load_cases()[key].json['kind']!r}"
