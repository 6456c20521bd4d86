"""From the command line to the optimizer's step there are few frames of our own code."""

import sys
from pathlib import Path

import torch
from tiny_runs import AMD, TEACHER, make_data, run

import vidstill

PACKAGE = str(Path(vidstill.__file__).parent)


def test_pretraining_reaches_its_optimizer_step_through_at_most_7_frames(tmp_path, monkeypatch):
    data, stacks = make_data(tmp_path / "data") / "unlabelled.txt", []
    run(TEACHER, data=data, out=tmp_path / "teacher", schedule__epochs=2)
    step = torch.optim.AdamW.step

    def record(self, *args, **kwargs):
        frame, names = sys._getframe(1), []
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(PACKAGE):
                names.append(code.co_qualname if sys.version_info >= (3, 11) else code.co_name)
            frame = frame.f_back
        stacks.append(names[::-1])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    run(AMD, data=data, out=tmp_path / "amd", method__teacher__checkpoint=tmp_path / "teacher", schedule__epochs=2)
    assert stacks
    assert stacks[0][0] == "main"
    assert all(len(names) <= 7 for names in stacks), stacks[0]
