"""Reading checkpoints is safe: no code runs, no memory is taken for what a file only claims, no damage is read."""

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


def save_torch(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def read_error(path: Path, content: bytes | None = None) -> str:
    """Return the one line with which a file, or this content of it, is refused."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.isprintable()
    assert path.name in message
    return message


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "a.pth"


def read_tensors(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    path.write_bytes(content)
    return read_checkpoint(path).tensors


def with_pickle(instructions: bytes, **records: bytes) -> bytes:
    """A file of torch whose pickle holds these instructions, as torch's own writer writes it."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, content in {"data.pkl": b"\x80\x02" + instructions + b".", "byteorder": b"little", **records}.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return buffer.getvalue()


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content.encode()


def as_args(instructions: bytes) -> bytes:
    """A file with a dictionary whose `args` are made by these instructions."""
    return with_pickle(b"}" + text("args") + instructions + b"s")


@contextmanager
def limit_memory(kilobytes: int = 200_000) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < kilobytes


FORMATS = {
    "zip": save_torch({"model": TENSORS, "epoch": 3}),
    "legacy": save_torch({"model": TENSORS, "epoch": 3}, legacy=True),
    "safetensors": save(TENSORS),
}


# ---- What is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth", ".weights", ""])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_content_of_a_file_decides_its_format(tmp_path, kind, suffix):
    tensors = read_tensors(tmp_path / f"a{suffix}", FORMATS[kind])
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


@contextmanager
def define_class(monkeypatch: pytest.MonkeyPatch, full_name: str, base: type) -> Iterator[type]:
    """A class of a package that is not installed, which exists while a file is written."""
    module, _, name = full_name.rpartition(".")
    kind = type(name, (base,), {"__module__": module})
    parts = module.split(".")
    with monkeypatch.context() as context:
        for count in range(1, len(parts) + 1):
            context.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType("fake"))
        context.setattr(sys.modules[module], name, kind, raising=False)
        yield kind


@pytest.mark.parametrize("legacy", [False, True])
def test_what_trainers_save_beside_the_tensors_is_skipped(path, monkeypatch, legacy):
    rate = np.linspace(0, 1, 5)[3]
    directory, device = pathlib.Path("/out/here"), torch.device("cpu")
    arguments = argparse.Namespace(lr=rate, patch=(16, 16), kind=None, out=directory, device=device, n=np.int64(7))
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
        define_class(monkeypatch, "fvcore.common.config.CfgNode", dict) as node,
        define_class(monkeypatch, "mmengine.logging.history_buffer.HistoryBuffer", object) as history,
    ):
        content["cfg"] = node(MASK=node(RATIO=0.9), NAMES=["a", "b"])
        content["cfg"].__dict__["__immutable__"] = True
        content["message_hub"] = history()
        content["message_hub"].__dict__.update(log=np.zeros((3, 2)), methods={"mean": np.float32(0.5)})
        path.write_bytes(save_torch(content, legacy=legacy))
    assert "fvcore" not in sys.modules
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors.keys() == TENSORS.keys()
    assert checkpoint.foreign_metadata["notes"] == [
        "the tensors are under 'model'",
        "'model_ema', the EMA of the weights, is there too and was left out",
        "left out beside the tensors: optimizer, epoch, args, scaler, cfg, message_hub",
    ]


@pytest.mark.parametrize("key", ["model", "module", "model_state", "state_dict", None])
def test_the_tensors_are_read_under_the_key_of_each_trainer(path, key):
    content = {"epoch": 1, "optimizer": {"a": torch.ones(1)}, key: TENSORS} if key else TENSORS
    assert read_tensors(path, save_torch(content)).keys() == TENSORS.keys()


def test_parameters_views_and_tied_tensors_are_read(path):
    whole = torch.arange(24.0).reshape(4, 6)
    content = {"a": torch.nn.Parameter(whole), "b": whole[1:3, ::2].T, "c": whole, "d": torch.tensor(3)}
    content["e"] = torch.ones(0, 4)
    tensors = read_tensors(path, save_torch(content))
    assert all(torch.equal(tensors[name], tensor) for name, tensor in content.items())
    assert not any(tensor.requires_grad for tensor in tensors.values())


# ---- What would be executed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instructions",
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
def test_only_the_allowed_names_are_imported(path, monkeypatch, instructions):
    monkeypatch.chdir(path.parent)
    assert "no code in it was run" in read_error(path, as_args(instructions))
    assert not path.with_name("ran").exists()


class Bomb:
    """An object that makes a file where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["model", "args", "epoch", "optimizer"])
def test_no_code_of_a_pickle_runs(path, legacy, key):
    mark = path.with_name("ran")
    content = {"model": TENSORS} | {key: Bomb(mark)}
    for data in (save_torch(content, legacy=legacy), pickle.dumps(content)):
        assert "no code in it was run" in read_error(path, data)
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_programs_and_whole_models_are_refused(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    read_error(path)
    assert "torch.nn.modules.linear.Linear" in read_error(path, save_torch(torch.nn.Linear(2, 2)))


# ---- What would be allocated ----------------------------------------------------------------------------------------

ENCODE = b"c_codecs\nencode\n"
GROWING = ENCODE * 40 + text("x") + (text("latin1") + b"\x86R") + (text("hex") + b"\x86R") * 39


@pytest.mark.parametrize(
    "instructions",
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
def test_a_pickle_does_not_get_the_memory_that_it_requests(path, instructions):
    with limit_memory():
        read_error(path, as_args(instructions))


def test_keys_that_take_too_long_to_hash_are_refused(path):
    nested = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    assert "keys" in read_error(path, with_pickle(b"}" + nested + b"Ns"))


def build_tensor(numel: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """The instructions for a tensor of the storage "0"."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(number, each)) + b"t" for each in (shape, stride))
    first, last = b"ctorch._utils\n_rebuild_tensor_v2\n(", b"\x89ccollections\nOrderedDict\n)RtR"
    return first + storage + number(offset) + sizes + last


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
def test_a_tensor_that_claims_other_numbers_than_the_file_has_is_refused(path, numel, offset, shape, stride):
    def build_file(tensor: bytes) -> bytes:
        return with_pickle(b"}" + text("w") + tensor + b"s", **{"data/0": bytes(32)})

    assert read_tensors(path, build_file(build_tensor(8, 1, (2, 3), (3, 1))))["w"].shape == (2, 3)
    assert "claim" in read_error(path, build_file(build_tensor(numel, offset, shape, stride)))


def test_a_million_names_for_one_tensor_claim_too_much(path):
    names = b"".join(text(f"n{n}") + b"h\x00" for n in range(2000))
    instructions = b"}(" + text("w") + build_tensor(250_000, 0, (250_000,), (1,)) + b"q\x00" + names + b"u"
    assert "claim more numbers" in read_error(path, with_pickle(instructions, **{"data/0": bytes(10**6)}))


def test_a_legacy_file_that_claims_too_much_is_refused(path):
    content = FORMATS["legacy"].replace(b"M,\x01N", b"J\xff\xff\xff\x7fN")
    assert content != FORMATS["legacy"]
    assert "claim" in read_error(path, content)


# ---- Archives -------------------------------------------------------------------------------------------------------


def rezip(change: Any, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FORMATS["zip"])) as source, zipfile.ZipFile(buffer, "w", **kwargs) as target:
        for name, content in change({name: source.read(name) for name in source.namelist()}):
            target.writestr(name, content)
    return buffer.getvalue()


def rezip_with(name: str) -> bytes:
    return rezip(lambda records: [*records.items(), (name, b"1")])


def test_an_archive_that_another_program_wrote_plainly_is_read(path):
    assert torch.equal(read_tensors(path, rezip(dict.items))["a.weight"], TENSORS["a.weight"])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "content",
    [
        rezip(dict.items, compression=zipfile.ZIP_DEFLATED),
        *map(rezip_with, ("archive/../../../x", "/etc/x", "archive/data.pkl")),
        rezip(lambda records: [(name, each) for name, each in records.items() if name != "archive/data/0"]),
        rezip(lambda records: [(name, each + b"x" * name.endswith("data/0")) for name, each in records.items()]),
        rezip(lambda records: [("archive/inner.zip", FORMATS["zip"])]),
        rezip(lambda records: []),
        FORMATS["zip"] + b"x",
        FORMATS["zip"] + FORMATS["zip"],
        FORMATS["zip"][:-2] + b"\x01\x00x",
    ],
)
def test_an_archive_that_torch_does_not_write_is_refused(path, content):
    assert "no code in it was run" in read_error(path, content)


@pytest.mark.parametrize("change", [1, -1, 2**20, 2**31])
@pytest.mark.parametrize("field", [20, 24, 42])  # sizes, and where a record begins, in the list of records
def test_wrong_sizes_of_records_are_refused(path, field, change):
    content = bytearray(FORMATS["zip"])
    for start in [n for n in range(len(content) - 4) if content[n : n + 4] == b"PK\x01\x02"]:
        (old,) = struct.unpack_from("<I", content, start + field)
        struct.pack_into("<I", content, start + field, (old + change) % 2**32)
    read_error(path, bytes(content))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, kind):
    whole = FORMATS[kind]
    for length in (*(len(whole) * tenth // 10 for tenth in range(10)), len(whole) - 1):
        for name in ("a.pth", "a.safetensors"):
            read_error(tmp_path / name, whole[:length])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_with_changed_bytes_is_refused_or_of_the_same_size(path, kind):
    rng, messages = random.Random(0), []
    for _ in range(120):
        content = bytearray(FORMATS[kind])
        for _ in range(rng.choice((1, 1, 3))):
            content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        path.write_bytes(bytes(content))
        try:
            tensors = read_checkpoint(path).tensors.values()
        except InputError as error:
            messages.append(str(error))
            continue
        assert sum(each.numel() * each.element_size() for each in tensors) <= 5 * len(content) + 2**21
        for each in tensors:
            each.double().sum()
    assert all(map(str.isprintable, messages))


# ---- safetensors ----------------------------------------------------------------------------------------------------


def header(entries: Any, body: int = 8, length: int | None = None) -> bytes:
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + bytes(body)


def entry(start: int, stop: int, shape: list[Any], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def header_with(metadata: Any) -> bytes:
    return header({"w": entry(0, 8, [2]), "__metadata__": {"vidstill": metadata}})


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
        *map(header_with, (3, "{half", "[1]", "[" * 100_000, "9" * 5000)),
        header(b"{" + b"[" * 100_000, body=0),
        header(b"[]"),
        header(b"{", body=0),
    ],
)
def test_a_safetensors_header_that_cannot_be_true_is_refused(tmp_path, content):
    with limit_memory():
        for name in ("a.safetensors", "a.pth"):
            read_error(tmp_path / name, content)


# ---- Memory ---------------------------------------------------------------------------------------------------------

STATUS = Path("/proc/self/status")


def measure_memory() -> int:
    """Bytes that are no pages of files."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux distinguishes the memory of mapped files")
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_large_file_is_mapped_and_not_copied(path, kind):
    large = {f"w{n}": torch.ones(2, 2**20) for n in range(8)}  # 64 MB
    path.write_bytes(save_torch({"model": large}) if kind == "pth" else save(large))
    before = measure_memory()
    tensors = read_checkpoint(path).tensors
    assert all(float(tensor.sum()) == 2**21 for tensor in tensors.values())
    assert measure_memory() - before < 20 * 2**20


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_not_read(tmp_path, name):
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    assert "neither a file nor a directory" in read_error(path)
