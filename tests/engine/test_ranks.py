"""An error on one of two processes reaches the other at once, as a sentence."""

import json
import os
import sys
from pathlib import Path

import pytest
from fresh_programs import run_ranks

from vidstill.cli.main import main
from vidstill.engine.distributed import Runtime
from vidstill.engine.interruption import RunStopped
from vidstill.utils.types import InputError


class Unsendable(Exception):
    """An error that cannot be pickled."""

    def __init__(self, first: str, second: str):
        super().__init__(first + second)


ERRORS = (KeyError("x"), OSError(28, "No space left"), Unsendable("a", "b"), InputError("mend it"), RunStopped("stop"))


def raise_error(error: Exception) -> None:
    raise error


def collect(folder: Path) -> None:
    """Fail on rank 0 in every way; then rank 0 ends while rank 1 waits for it in a command."""
    runtime = Runtime("fp32")
    raised = []
    for error in ERRORS:
        try:
            runtime.run_on_main(lambda error=error: raise_error(error))
        except Exception as caught:
            raised.append([type(caught).__name__, str(caught)])
    result = runtime.run_on_main(lambda: runtime.rank + 7)
    (folder / f"{runtime.rank}.json").write_text(json.dumps([raised, result]))
    if runtime.rank == 0:
        os._exit(3)
    import vidstill.cli.main as command_line

    command_line._parse_command = lambda *_: lambda: runtime.broadcast(None)
    code = main(["pretrain"])
    (folder / "code").write_text(str(code))
    sys.stderr.flush()
    os._exit(code)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    assert run_ranks(collect, folder, printed=folder / "printed.txt") == [3, 1]  # no hang
    return folder, (folder / "printed.txt").read_text()


def test_error_on_rank_0_is_a_sentence_on_the_other_rank(processes):
    (first, one), (second, other) = (json.loads((processes[0] / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == [[type(error).__name__, str(error)] for error in ERRORS]
    said = "rank 0 failed, and its own message says where"
    assert second == [
        ["RunStopped", f"{said} (KeyError: 'x')"],
        ["RunStopped", f"{said} (OSError: [Errno 28] No space left)"],
        ["RunStopped", f"{said} (Unsendable: ab)"],
        ["InputError", "mend it"],
        ["RunStopped", "stop"],
    ]
    assert one == other == 7


def test_rank_whose_peer_has_ended_says_so_without_a_traceback(processes):
    folder, errors = processes
    assert "vidstill (rank 1): another process of this run has ended" in errors
    assert "RuntimeError" not in errors
    assert (folder / "code").read_text() == "1"
