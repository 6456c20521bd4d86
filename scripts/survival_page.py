"""Write the table of docs/survival.md: one row per fault, world and outcome that a test shows; takes no arguments.

The tests are read, not run: a row is a decorator `@pytest.mark.survival(fault, world, outcome)` of a test.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "survival.md"
START, END = "<!-- by scripts/survival_page.py -->\n", "<!-- end -->\n"

# A fault begins with one of these words, whatever follows ("SIGKILL while a state is written").
FAULTS = (
    *("SIGKILL", "SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP", "SIGQUIT"),
    *("full disk", "torn file", "flipped bit", "worker SEGV", "hung decoder", "out of memory", "stalled storage"),
    *("lost rank", "lost disk of a node", "NaN", "clock jump", "second process", "moved directory", "upgrade"),
)
# Devices or processes when the fault comes → when the run is resumed.
WORLDS = ("1→1", "1→2", "2→1", "2→2")
OUTCOMES = ("same bits", "same samples, loss within 1e-5", "refused with a sentence")


@dataclass(frozen=True)
class Survival:
    """What a test shows: after this fault, in this world, a run ends like this."""

    fault: str
    world: str
    outcome: str
    path: str  # of the test's file, below the project
    test: str

    @property
    def kind(self) -> str:
        """The one of FAULTS that the fault begins with; empty if there is none."""
        return next((kind for kind in FAULTS if self.fault.startswith(kind)), "")


def read_survivals() -> list[Survival]:
    """Return what the tests' decorators state, in the order of FAULTS, then of WORLDS."""
    rows = [row for path in sorted((PROJECT / "tests").rglob("test_*.py")) for row in _read_decorators(path)]
    order = {name: place for place, name in enumerate((*FAULTS, "", *WORLDS))}
    return sorted(rows, key=lambda row: (order[row.kind], row.fault, order.get(row.world, 0), row.path, row.test))


def _read_decorators(path: Path) -> Iterator[Survival]:
    for node in ast.walk(ast.parse(path.read_text())):
        for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.survival":
                fault, world, outcome = (ast.literal_eval(value) for value in mark.args)
                yield Survival(fault, world, outcome, path.relative_to(PROJECT).as_posix(), node.name)


def format_table() -> str:
    """Return the page's table."""
    lines = ["| fault | devices | outcome | test |", "| --- | --- | --- | --- |"]
    for row in read_survivals():
        test = f"[{row.test.removeprefix('test_').replace('_', ' ')}](../{row.path})"
        lines.append(f"| {row.fault} | {row.world} | {row.outcome} | {test} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + format_table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
