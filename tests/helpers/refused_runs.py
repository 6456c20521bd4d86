"""Commands that must be refused: exit code 2, one sentence, and no file changed."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_runs import typed

from vidstill.cli.main import main


@dataclass(frozen=True)
class Runs:
    """A directory with `data` and finished runs."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def refuses(self, command: str, message: str, **options: object) -> None:
        out = {} if command.startswith("evaluate") else {"out": self.folder / "out"}
        before = contents(self.folder)
        refuses(self.capsys, typed(command, **{**out, **options}), message)
        assert contents(self.folder) == before


def refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err, printed.err
    assert printed.err.startswith("vidstill: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
