"""A checkpoint is read, translated and hashed once; a native file that lies about its model takes no memory."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_layout import to_foreign
from tiny_models import CLASSES, ENCODER, VIDEOMAE, built
from tiny_runs import AMD, make_data, run

from vidstill.checkpoints import fingerprint, load
from vidstill.checkpoints.io import write_checkpoint
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.checkpoints.load import load_checkpoint
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError


def test_a_run_reads_translates_and_hashes_its_foreign_teacher_once(tmp_path, monkeypatch):
    calls: Counter[str] = Counter()

    def count(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: (calls.update([name]), function(*args, **kwargs))[1])

    teacher = replace(ENCODER, depth=3)
    tensors = to_foreign(built(replace(VIDEOMAE, encoder=teacher)).state_dict(), build_videomae_rules(teacher))
    torch.save({"model": tensors}, tmp_path / "teacher.pth")
    data = make_data(tmp_path / "data")
    count(load, "read_checkpoint")
    count(load, "import_checkpoint")
    count(torch, "load")
    count(fingerprint, "hash_file")
    options = {"method__teacher__checkpoint": tmp_path / "teacher.pth", "schedule__epochs": 2}
    sizes = {"dim": 24, "depth": 3, "heads": 2, "tubelet": (2, 4, 4), "positions": "sinusoid"}
    options |= {f"method__teacher__model__{name}": size for name, size in sizes.items()}
    run(AMD, data=data / "unlabelled.txt", out=tmp_path / "run", **options)
    assert calls == {"read_checkpoint": 1, "import_checkpoint": 1, "load": 1, "hash_file": 2}  # md5 and sha256


def write_lies(folder: Path) -> None:
    """Write classifiers whose metadata say other sizes than their tensors have."""
    config = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
    tensors = built(config).state_dict()
    blocks = {f"encoder.blocks.{index}.norm1.weight": torch.zeros(24) for index in range(2, 8000)}
    learned = replace(ENCODER, positions="learned", learned_grid=(64, 32, 32))
    encoders = {name: replace(ENCODER, **{name: value}) for name, value in {"depth": 8000, "dim": 24 * 10**7}.items()}
    encoders |= {
        "heads": replace(ENCODER, heads=3, dim=3 * 2**20),
        "tubelet": replace(ENCODER, tubelet=(2000, 4000, 4000)),
    }
    encoders |= {"blocks": encoders["depth"], "learned_grid": learned}
    lies = {name: (to_dict(encoder), to_dict(replace(config, encoder=encoder))) for name, encoder in encoders.items()}
    lies |= {f"classifier_{name}": (to_dict(ENCODER), classifier) for name, (_, classifier) in lies.items()}
    lies["num_classes"] = (to_dict(ENCODER), to_dict(replace(config, num_classes=10**18)))
    for name, value in {"depth": 10**12, "learned_grid": [10**6] * 3, "dim": 10**400, "mlp_ratio": 1e300}.items():
        lies[f"huge_{name}"] = (to_dict(ENCODER) | {name: value}, to_dict(config))
    for name, (encoder, classifier) in lies.items():
        metadata = {"kind": "classifier", "encoder": encoder, "classifier": classifier}
        metadata |= {"classes": ["a"] * CLASSES, "views": {}}
        write_checkpoint(folder / f"{name}.safetensors", tensors | (blocks if "blocks" in name else {}), metadata)


def test_metadata_that_lie_about_the_model_take_no_memory(tmp_path):
    write_lies(tmp_path)
    script = """
import resource, sys
from pathlib import Path
from vidstill.pipelines.trained_models import load_classifier
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_classifier(path)
    except ValueError as error:
        assert path.name in str(error), error
        print(path.name, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    megabytes = dict(line.split() for line in ended.stdout.splitlines())
    assert megabytes.keys() == {path.name for path in tmp_path.iterdir()}, ended.stderr
    assert max(map(int, megabytes.values())) < 100


def test_an_encoder_of_other_shapes_than_its_metadata_says_is_refused(tmp_path):
    wide = replace(ENCODER, dim=48)
    write_checkpoint(tmp_path / "a.safetensors", built(VIDEOMAE).state_dict(), {"encoder": to_dict(wide)})
    with pytest.raises(InputError, match=r"has 'patch_embed.weight' of shape .* its tensors \(24, 96\); it is damaged"):
        load_checkpoint(tmp_path / "a.safetensors")
