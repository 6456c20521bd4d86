"""scripts/gpu_report.py at toy size: every row is measured, kept, and read instead of being measured again."""

import importlib
import json

import pytest
from paths import SCRIPTS

from vidstill.bench import measure, step
from vidstill.bench.side import SideProcess


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module("gpu_report")


class InThisProcess(SideProcess):
    """A side in this process: a process each would take half a minute for the rows."""

    def __init__(self, build):
        self.build, self.side = build, None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def call(self, name, *args):
        self.side = self.side or self.build()
        return 10**9 if name == "read_memory" else getattr(self.side, name)(*args)


@pytest.mark.parametrize("rows", ["GPU_ROWS", "CPU_ROWS"])
def test_every_row_is_measured_once_and_the_table_has_it(rows, script, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "SideProcess", InThisProcess)
    monkeypatch.setattr(measure, "measure_matmul_limit", lambda device, dtype: 1e12)
    monkeypatch.setattr(step, "explain_missing_transformers", lambda config, size: "not in this test")
    monkeypatch.setattr(script, "CPU_ROWS", getattr(script, rows))  # there may be no GPU here
    monkeypatch.setattr(script, "GPU_ROWS", getattr(script, rows))
    names = list(script.CPU_ROWS)
    first = names[0].replace(" ", "-")
    table = script.run(tmp_path, toy=True)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert [line[0] for line in lines[2:]] == names
    for line in lines[2:]:
        assert line[1] == "2"
        assert float(line[2]) > 0
        assert float(line[5]) > 0  # the yardstick's rate
        assert line[7] == "1.00"
        assert line[8:] == ["–", "–"]
    assert len(list(tmp_path.glob("*.json"))) == len(names)

    report = json.loads((tmp_path / f"{first}.json").read_text())
    report["results"][0]["clips_per_second"] = 12345.0
    (tmp_path / f"{first}.json").write_text(json.dumps(report))
    (tmp_path / f"{names[-1].replace(' ', '-')}.json").unlink()
    monkeypatch.setattr(script, "measure_row", lambda name, row, **settings: report)
    again = script.run(tmp_path, toy=True)
    assert again.count("1.23e+04") == 2  # the first row is read, the last one measured


def test_the_rows_are_the_recipes_at_their_own_size_unless_it_is_a_toy(script):
    assert script.list_changes(script.GPU_ROWS["MVD-B←L"], toy=False) == {}
    changes = script.list_changes(script.CPU_ROWS["AMD-S←B"], toy=False)
    assert changes == {
        "method.teacher.model.dim": 768,
        "method.teacher.model.depth": 12,
        "method.teacher.model.heads": 12,
        "method.layer_pairs": ((6, 6), (12, 12)),
    }
