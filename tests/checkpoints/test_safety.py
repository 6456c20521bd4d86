"""Reading weights is safe: nothing is executed, nothing allocated that a file only claims, nothing damaged is taken."""

import argparse
import io
import json
import os
import pathlib
import pickle
import random
import resource
import struct
import sys
import types
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from vidstill.checkpoints.io import read_checkpoint
from vidstill.utils.types import InputError

TENSORS = {"a.weight": torch.arange(300.0).reshape(10, 30), "b.bias": torch.ones(7, dtype=torch.bfloat16)}


def saved(content: Any, *, legacy: bool = False) -> bytes:
    held = io.BytesIO()
    torch.save(content, held, _use_new_zipfile_serialization=not legacy)
    return held.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.isprintable()
    assert path.name in sentence
    return sentence


def refused(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "a.pth").write_bytes(content)
    return refusal(tmp_path / "a.pth")


def with_pickle(instructions: bytes, **records: bytes) -> bytes:
    """A file of torch whose pickle holds these instructions, as torch's own writer writes it."""
    held = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(held)
    for name, content in {"data.pkl": b"\x80\x02" + instructions + b".", "byteorder": b"little", **records}.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return held.getvalue()


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def wrapped(value: bytes) -> bytes:
    """A dictionary whose `args` are this value."""
    return b"}" + text("args") + value + b"s"


FORMATS = {
    "zip": saved({"model": TENSORS, "epoch": 3}),
    "legacy": saved({"model": TENSORS, "epoch": 3}, legacy=True),
    "safetensors": save(TENSORS),
}


# what is read


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth", ".weights", ""])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_files_content_says_what_it_is_and_not_its_name(tmp_path, kind, suffix):
    (tmp_path / f"a{suffix}").write_bytes(FORMATS[kind])
    found = read_checkpoint(tmp_path / f"a{suffix}")
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())


@contextmanager
def package(monkeypatch: pytest.MonkeyPatch, name: str, base: type) -> Iterator[type]:
    """A class of a package that is not installed, there for as long as a file is written."""
    module, _, word = name.rpartition(".")
    kind = type(word, (base,), {"__module__": module})
    parts = module.split(".")
    with monkeypatch.context() as there:
        for count in range(1, len(parts) + 1):
            there.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType("made"))
        there.setattr(sys.modules[module], word, kind, raising=False)
        yield kind


@pytest.mark.parametrize("legacy", [False, True])
def test_what_trainers_leave_beside_the_tensors_is_read_past(tmp_path, monkeypatch, legacy):
    rate = np.linspace(0, 1, 5)[3]
    arguments = argparse.Namespace(
        lr=rate,
        patch_size=(16, 16),
        kind=None,
        out=pathlib.Path("/out/here"),
        device=torch.device("cpu"),
        n=np.int64(7),
    )
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}},
        "param_groups": [{"lr": rate, "betas": (0.9, 0.95), "foreach": None, "params": [0]}],
    }
    content = {
        "model": OrderedDict(TENSORS),
        "optimizer": optimizer,
        "epoch": 799,
        "args": arguments,
        "scaler": {"scale": 65536.0, "steps": Counter(a=1), "seen": {1, 2}, "size": torch.Size([1, 2]), "raw": b"\xff"},
        "model_ema": TENSORS,
    }
    with (
        package(monkeypatch, "fvcore.common.config.CfgNode", dict) as node,
        package(monkeypatch, "mmengine.logging.history_buffer.HistoryBuffer", object) as history,
    ):
        content["cfg"] = node(MASK=node(RATIO=0.9), NAMES=["a", "b"])
        content["cfg"].__dict__["__immutable__"] = True
        content["message_hub"] = history()
        content["message_hub"].__dict__.update(log=np.zeros((3, 2)), methods={"mean": np.float32(0.5)})
        (tmp_path / "a.pth").write_bytes(saved(content, legacy=legacy))
    assert "fvcore" not in sys.modules
    found = read_checkpoint(tmp_path / "a.pth")
    assert found.tensors.keys() == TENSORS.keys()
    assert found.foreign_metadata["notes"] == [
        "the tensors are under 'model'",
        "'model_ema', the EMA of the weights, is there too and was left out",
        "left out beside the tensors: optimizer, epoch, args, scaler, cfg, message_hub",
    ]


@pytest.mark.parametrize("word", ["model", "module", "model_state", "state_dict"])
def test_the_tensors_are_found_under_each_trainers_word(tmp_path, word):
    (tmp_path / "a.pth").write_bytes(saved({"epoch": 1, "optimizer": {"a": torch.ones(1)}, word: TENSORS}))
    assert read_checkpoint(tmp_path / "a.pth").tensors.keys() == TENSORS.keys()


def test_parameters_views_and_tied_tensors_are_read(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    content = {
        "a": torch.nn.Parameter(whole),
        "b": whole[1:3, ::2].T,
        "c": whole,
        "d": torch.tensor(3),
        "e": torch.ones(0, 4),
    }
    (tmp_path / "a.pth").write_bytes(saved(content))
    found = read_checkpoint(tmp_path / "a.pth").tensors
    assert all(torch.equal(found[name], tensor) and not found[name].requires_grad for name, tensor in content.items())


# what would be executed


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n" + text("touch ran") + b"\x85R",
        b"cbuiltins\neval\n" + text("1") + b"\x85R",
        b"c__builtin__\neval\n" + text("1") + b"\x85R",
        b"cbuiltins\ngetattr\n" + text("1") + b"\x85R",
        b"csubprocess\nPopen\n" + text("ls") + b"\x85R",
        b"ctorch.hub\nload\n" + text("a/b") + b"\x85R",
        b"cargparse\nNamespace.__class__\n)R",
        b"cos\nsystem\n",  # asked for, and not called
        b"c\x1b[31mred\nname\n",
        b"(S'ls'\nios\nsystem\n",
        text("os") + text("system") + b"\x93",
        b"\x82\x01",
        b"cargparse\nNamespace\n)\x81" + b"(cos\nsystem\nd" + b"b",
    ],
)
def test_no_name_but_those_of_the_list_is_asked_for(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    assert "no code in it was run" in refused(tmp_path, with_pickle(wrapped(code)))
    assert not (tmp_path / "ran").exists()


class Bomb:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["model", "args", "epoch", "optimizer"])
def test_code_is_executed_nowhere(tmp_path, legacy, where):
    mark = tmp_path / "ran"
    content = {"model": TENSORS} | {where: Bomb(mark)}
    assert "no code in it was run" in refused(tmp_path, saved(content, legacy=legacy))
    assert "no code in it was run" in refused(tmp_path, pickle.dumps(content))
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_of_torch_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(tmp_path / "a.pth"))
    refusal(tmp_path / "a.pth")


def test_a_whole_model_is_refused_by_the_name_of_its_class(tmp_path):
    assert "torch.nn.modules.linear.Linear" in refused(tmp_path, saved(torch.nn.Linear(2, 2)))


# what would be allocated

ENCODE = b"c_codecs\nencode\n"
GROWING = ENCODE * 40 + text("x") + (text("latin1") + b"\x86R") + (text("hex") + b"\x86R") * 39


@pytest.mark.parametrize(
    "code",
    [
        b"cbuiltins\nbytearray\n\x8a\x05" + (10**11).to_bytes(5, "little") + b"\x85R",
        b"ctorch\nFloatTensor\n\x8a\x05" + (10**11).to_bytes(5, "little") + b"\x85R",
        b"ctorch.storage\nUntypedStorage\n\x8a\x05" + (10**11).to_bytes(5, "little") + b"\x85R",
        b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R",
        GROWING,
        b"X\xff\xff\xff\xffabc",  # a text of 4 GB
        b"r\xff\xff\xff\x7f" + b"N",
        b"N" + b"r\xff\xff\xff\x7f" + b"cbuiltins\nlist\n",
    ],
)
def test_a_pickle_does_not_get_the_memory_that_it_asks_for(tmp_path, code):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, with_pickle(wrapped(code)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_keys_that_take_for_ever_to_hash_are_refused(tmp_path):
    nested = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    assert "keys" in refused(tmp_path, with_pickle(b"}" + nested + b"Ns"))


def tensor(numel: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """The instructions for a tensor of the store "0"."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    store = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    places = b"".join(b"(" + b"".join(map(number, each)) + b"t" for each in (shape, stride))
    last = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + store + number(offset) + places + last + b"tR"


@pytest.mark.parametrize(
    ("numel", "offset", "shape", "stride"),
    [
        (8, 0, (10**12,), (1,)),
        (8, 0, (10**12,), (0,)),  # one number, expanded to 4 TB
        (10**12, 0, (10**12,), (1,)),
        (8, 4, (8,), (1,)),
        (8, -1, (2,), (1,)),
        (8, 0, (-8,), (1,)),
        (8, 0, (2,), (-1,)),
        (8, 0, (2, 4), (4,)),
        (8, 0, (2**62, 2**62), (1, 1)),
        (8, 2**62, (1,), (1,)),
        (-8, 0, (8,), (1,)),
        (4, 0, (4,), (1,)),
        (16, 0, (4,), (1,)),
    ],
)
def test_a_tensor_that_claims_other_numbers_than_there_are_is_refused(tmp_path, numel, offset, shape, stride):
    good = with_pickle(b"}" + text("w") + tensor(8, 1, (2, 3), (3, 1)) + b"s", **{"data/0": bytes(32)})
    (tmp_path / "a.pth").write_bytes(good)
    assert read_checkpoint(tmp_path / "a.pth").tensors["w"].shape == (2, 3)
    bad = b"}" + text("w") + tensor(numel, offset, shape, stride) + b"s"
    assert "claim" in refused(tmp_path, with_pickle(bad, **{"data/0": bytes(32)}))


def test_a_million_names_for_one_tensor_claim_too_much(tmp_path):
    names = b"".join(text(f"n{n}") + b"h\x00" for n in range(2000))
    code = b"}(" + text("w") + tensor(250_000, 0, (250_000,), (1,)) + b"q\x00" + names + b"u"
    assert "claim more numbers" in refused(tmp_path, with_pickle(code, **{"data/0": bytes(10**6)}))


def test_a_legacy_file_that_claims_too_much_is_refused(tmp_path):
    content = FORMATS["legacy"].replace(b"M,\x01N", b"J\xff\xff\xff\x7fN".ljust(0))
    assert content != FORMATS["legacy"]
    assert "claim" in refused(tmp_path, content)


# archives


def rezipped(change: Any, **kwargs: Any) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FORMATS["zip"])) as theirs, zipfile.ZipFile(held, "w", **kwargs) as ours:
        for name, content in change({name: theirs.read(name) for name in theirs.namelist()}):
            ours.writestr(name, content)
    return held.getvalue()


def test_an_archive_that_another_program_wrote_plainly_is_read(tmp_path):
    (tmp_path / "a.pth").write_bytes(rezipped(dict.items))
    assert torch.equal(read_checkpoint(tmp_path / "a.pth").tensors["a.weight"], TENSORS["a.weight"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "content",
    [
        rezipped(dict.items, compression=zipfile.ZIP_DEFLATED),
        rezipped(lambda found: [*found.items(), ("archive/../../../x", b"1")]),
        rezipped(lambda found: [*found.items(), ("/etc/x", b"1")]),
        rezipped(lambda found: [*found.items(), ("archive/data.pkl", b"1")]),
        rezipped(lambda found: [(name, each) for name, each in found.items() if name != "archive/data/0"]),
        rezipped(lambda found: [(name, each + b"x" * name.endswith("data/0")) for name, each in found.items()]),
        rezipped(lambda found: [("archive/inner.zip", FORMATS["zip"])]),
        rezipped(lambda found: []),
        FORMATS["zip"] + b"x",
        FORMATS["zip"] + FORMATS["zip"],
        FORMATS["zip"][:-2] + b"\x01\x00x",
    ],
)
def test_an_archive_that_is_not_as_torch_writes_it_is_refused(tmp_path, content):
    assert "no code in it was run" in refused(tmp_path, content)


@pytest.mark.parametrize("change", [1, -1, 2**20, 2**31])
@pytest.mark.parametrize("place", [20, 24, 42])  # sizes, and where a record begins, in the list of records
def test_sizes_of_records_that_are_not_so_are_refused_or_of_no_effect(tmp_path, place, change):
    content = bytearray(FORMATS["zip"])
    start = content.index(b"PK\x01\x02")
    start = content.index(b"PK\x01\x02", start + 1)
    for at in [n for n in range(len(content) - 4) if content[n : n + 4] == b"PK\x01\x02"]:
        (old,) = struct.unpack_from("<I", content, at + place)
        struct.pack_into("<I", content, at + place, (old + change) % 2**32)
    refused(tmp_path, bytes(content))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_at_any_tenth_is_refused(tmp_path, kind):
    whole = FORMATS[kind]
    for tenth in range(10):
        for name in ("a.pth", "a.safetensors"):
            (tmp_path / name).write_bytes(whole[: len(whole) * tenth // 10])
            refusal(tmp_path / name)
    refused(tmp_path, whole[:-1])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_with_changed_bytes_is_refused_or_still_of_the_same_size(tmp_path, kind):
    path = tmp_path / "a.pth"
    draw = random.Random(0)
    for _ in range(120):
        content = bytearray(FORMATS[kind])
        for _ in range(draw.choice((1, 1, 3))):
            content[draw.randrange(len(content))] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
        path.write_bytes(bytes(content))
        try:
            found = read_checkpoint(path)
        except InputError:
            refusal(path)
        else:
            assert (
                sum(each.numel() * each.element_size() for each in found.tensors.values()) <= 5 * len(content) + 2**21
            )
            for each in found.tensors.values():
                each.double().sum()


# safetensors


def header(entries: Any, body: int = 8, length: int | None = None) -> bytes:
    words = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(words) if length is None else length) + words + bytes(body)


def entry(start: int, stop: int, shape: list[Any], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "content",
    [
        header({"w": entry(0, 8, [2])}, length=10 * 2**30),
        header({"w": entry(0, 8, [2])}, length=2**63),
        header({"w": entry(0, 8, [2])}, length=1000),
        header({"w": entry(0, 10 * 2**30, [10 * 2**28])}),
        header({"w": entry(0, 16, [4])}),
        header({"w": entry(0, 8, [4])}),
        header({"w": entry(0, 8, [2**40, 2**40])}),
        header({"w": entry(-8, 0, [2])}),
        header({"w": entry(8, 0, [2])}),
        header({"w": entry(0, 8, [-2])}),
        header({"w": entry(0, 8, [2.0])}),
        header({"v": entry(0, 8, [2]), "w": entry(4, 12, [2])}, body=12),
        header({"v": entry(0, 8, [2]), "w": entry(0, 8, [2])}),
        header({"w": entry(4, 12, [2])}, body=12),
        header({"w": entry(0, 8, [2])}, body=12),
        header({"w": entry(0, 8, [2], "F31")}),
        header({"w": entry(0, 8, [2], "")}),
        header({"w": [0, 8]}),
        header({"w": entry(0, 8, [2]), "__metadata__": {"vidstill": 3}}),
        header({"w": entry(0, 8, [2]), "__metadata__": {"vidstill": "[" * 100_000}}),
        header({"w": entry(0, 8, [2]), "__metadata__": {"vidstill": "9" * 5000}}),
        header(b"{" + b"[" * 100_000, body=0),
        header(b"[]"),
        header(b"{", body=0),
    ],
)
def test_a_safetensors_header_that_cannot_be_true_is_refused(tmp_path, content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).write_bytes(content)
        refusal(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


# memory

STATUS = Path("/proc/self/status")


def own_memory() -> int:
    """Bytes that are no pages of files."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))


@pytest.mark.skipif(not STATUS.exists(), reason="Linux says what memory is a file's")
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_large_file_is_mapped_and_not_copied(tmp_path, kind):
    large = {f"w{n}": torch.ones(2, 2**20) for n in range(8)}  # 64 MB
    (tmp_path / "a").write_bytes(saved({"model": large}) if kind == "pth" else save(large))
    before = own_memory()
    found = read_checkpoint(tmp_path / "a").tensors
    assert all(float(tensor.sum()) == 2**21 for tensor in found.values())
    assert own_memory() - before < 20 * 2**20


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_not_read(tmp_path, name):
    path = Path(name) if name.startswith("/") else tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    assert "neither a file nor a directory" in refusal(path)
