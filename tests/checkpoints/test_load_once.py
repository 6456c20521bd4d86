"""A checkpoint is read, translated and hashed once; a native file that lies about its model takes no memory."""

import resource
from collections import Counter
from dataclasses import replace

import pytest
import torch
from foreign_layout import to_foreign
from tiny_models import CLASSES, ENCODER, VIDEOMAE, built
from tiny_runs import AMD, make_data, run

from vidstill.checkpoints import licences, load
from vidstill.checkpoints.io import write_checkpoint
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.checkpoints.load import load_checkpoint
from vidstill.pipelines.trained_models import load_classifier
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

HUGE = replace(ENCODER, depth=10**7)


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
    count(licences, "hash_file")
    options = {"method__teacher__checkpoint": tmp_path / "teacher.pth", "schedule__epochs": 2}
    sizes = {"dim": 24, "depth": 3, "heads": 2, "tubelet": (2, 4, 4), "positions": "sinusoid"}
    options |= {f"method__teacher__model__{name}": size for name, size in sizes.items()}
    run(AMD, data=data / "unlabelled.txt", out=tmp_path / "run", **options)
    assert calls == {"read_checkpoint": 1, "import_checkpoint": 1, "load": 1, "hash_file": 2}  # md5 and sha256


@pytest.mark.parametrize("lie", ["encoder", "classifier", "num_classes"])
def test_metadata_that_lie_about_the_model_are_refused_before_it_is_built(tmp_path, lie):
    config = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)
    claimed = replace(config, encoder=HUGE) if lie == "classifier" else config
    claimed = replace(config, num_classes=10**18) if lie == "num_classes" else claimed
    metadata = {
        "kind": "classifier",
        "encoder": to_dict(HUGE if lie == "encoder" else ENCODER),
        "classifier": to_dict(claimed),
        "classes": ["a"] * CLASSES,
        "views": {},
    }
    write_checkpoint(tmp_path / "model.safetensors", built(config).state_dict(), metadata)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"model.safetensors|damaged"):
        load_classifier(str(tmp_path / "model.safetensors"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_an_encoder_of_other_shapes_than_its_metadata_says_is_refused(tmp_path):
    wide = replace(ENCODER, dim=48)
    write_checkpoint(tmp_path / "a.safetensors", built(VIDEOMAE).state_dict(), {"encoder": to_dict(wide)})
    with pytest.raises(InputError, match=r"has 'patch_embed.weight' of shape .* its tensors \(24, 96\); it is damaged"):
        load_checkpoint(tmp_path / "a.safetensors")
