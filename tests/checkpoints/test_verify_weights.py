"""Weights are compared with their checksums: their own, those of torch's archives, and that of an address."""

import hashlib
import json
from pathlib import Path

import torch
from foreign_layout import to_foreign
from tiny_models import ENCODER, VIDEOMAE, built

from vidstill.checkpoints.io import write_checkpoint
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.cli.main import main
from vidstill.utils.config_io import to_dict


def verify(*paths: Path, code: int, capsys) -> list[dict]:
    assert main(["weights", "verify", *map(str, paths), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_native_and_foreign_files_are_compared_with_their_checksums(tmp_path, capsys):
    tensors = built(VIDEOMAE).state_dict()
    own, foreign, old = (tmp_path / name for name in ("a.safetensors", "b.pth", "c.pth"))
    write_checkpoint(own, tensors, {"kind": "pretraining", "encoder": to_dict(ENCODER)})
    torch.save({"model": to_foreign(tensors, build_videomae_rules(ENCODER))}, foreign)
    torch.save(to_foreign(tensors, build_videomae_rules(ENCODER)), old, _use_new_zipfile_serialization=False)
    results = verify(own, foreign, old, code=0, capsys=capsys)
    methods = ["SHA-256 in its header", "CRC-32 of each record", "it has no checksum, its tensors can be read"]
    assert [each["method"] for each in results] == methods
    assert [each["sha256"] for each in results] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (own, foreign, old)
    ]
    for path in (own, foreign):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    results = verify(own, foreign, old, code=1, capsys=capsys)
    assert ["is damaged" in each["problem"] for each in results] == [True, True, False]


def test_what_is_not_there_is_bad_input(tmp_path, capsys):
    assert main(["weights", "verify", str(tmp_path / "none.pth")]) == 2
    assert main(["weights", "verify"]) == 2
    assert "there is no file or run" in capsys.readouterr().err
