"""docs/survival.md says what the tests show: its table is generated from their `survival` marks."""

import importlib

import pytest
from paths import PROJECT

PAGE = PROJECT / "docs" / "survival.md"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROJECT / "scripts")
        return importlib.import_module("survival_page")


def test_the_table_is_that_of_the_tests(script):
    table = PAGE.read_text().partition(script.START)[2].partition(script.END)[0]
    assert table == script.format_table(), "run `python scripts/survival_page.py` and commit docs/survival.md"


def test_every_row_has_a_known_fault_world_and_outcome(script):
    for row in script.read_survivals():
        assert row.kind, f"{row.test}: a fault begins with one of {script.FAULTS}"
        assert row.world in script.WORLDS, row
        assert row.outcome in script.OUTCOMES, row


def test_every_fault_has_a_row(script):
    assert {row.kind for row in script.read_survivals()} >= set(script.FAULTS)
