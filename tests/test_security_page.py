"""docs/security.md promises what tests hold."""

import ast
import re

import pytest
from paths import PROJECT

ROWS = [
    line.strip("| ").split(" | ")
    for line in (PROJECT / "docs" / "security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| promise |", "| --- |"))
]


@pytest.mark.parametrize(("promise", "tests"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_every_promise_names_its_tests(promise, tests):
    names = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
    assert len(names) == tests.count("::") >= 1
    for path, name in names:
        functions = {node.name for node in ast.walk(ast.parse((PROJECT / path).read_text())) if hasattr(node, "name")}
        assert name in functions, f"{path} has no {name}"
