"""Sources of checkpoints: URLs, models of the Hub, directories of several files; a failed fetch leaves nothing."""

import errno
import gzip
import hashlib
import importlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import get_session
from huggingface_hub.utils._http import default_client_factory
from safetensors.torch import save
from web_server import COMMIT, Site, served

from vidstill.checkpoints import fetch_url, shipped
from vidstill.checkpoints.io import Checkpoint, list_checkpoint_files, read_checkpoint, write_checkpoint
from vidstill.pipelines.probe.feature_cache import hash_checkpoint
from vidstill.utils.types import InputError

TENSORS = {"a.weight": torch.arange(5000.0), "b.bias": torch.ones(3, dtype=torch.float16)}
CONFIG = {"model_type": "videomae", "hidden_size": 24, "layer_norm_eps": 1e-12}


def save_pth(content: object = None) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": TENSORS} if content is None else content, buffer)
    return buffer.getvalue()


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[Site]:
    """A server, an empty cache of ours, an empty one of the Hub's."""
    monkeypatch.setenv("VIDSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # before it tries again
    with served(Site()) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        yield site


def cached(tmp_path: Path) -> list[Path]:
    """Return what is in our cache except for the locks."""
    folder = tmp_path / "cache"
    return sorted(each for each in folder.rglob("*") if each.suffix != ".lock") if folder.exists() else []


def read_error(source: str | Path) -> str:
    """Return the one line with which a source is refused."""
    with pytest.raises(InputError) as error:
        read_checkpoint(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_read(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor] = TENSORS) -> None:
    assert checkpoint.tensors.keys() == tensors.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in tensors.items())


# ---- URLs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [save_pth(), save(TENSORS)])
def test_an_address_is_fetched_once(tmp_path, site, content):
    site.files["/some/file.pth"] = content
    for _ in range(2):
        checkpoint = read_checkpoint(f"{site.address}/some/file.pth")
        assert_read(checkpoint)
        assert checkpoint.foreign_metadata["address"] == f"{site.address}/some/file.pth"
    assert len(site.requests) == 1
    assert [each.read_bytes() for each in cached(tmp_path)] == [content]
    assert Path(checkpoint.source) == cached(tmp_path)[0]


def test_what_was_fetched_is_there_without_the_network_and_the_rest_is_met_with_one_sentence(tmp_path, site):
    site.files["/a.pth"] = save_pth()
    read_checkpoint(f"{site.address}/a.pth")
    with served(Site(files={"/b.pth": save_pth()})) as gone:
        pass
    site.files.clear()
    assert_read(read_checkpoint(f"{site.address}/a.pth"))
    assert "connect to the network and try again" in read_error(f"{gone.address}/b.pth")
    assert len(cached(tmp_path)) == 1


def test_a_download_that_breaks_off_goes_on_where_it_ended(tmp_path, site, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    content = save_pth()
    site.files["/a.pth"], site.cut = content, 9000
    assert_read(read_checkpoint(f"{site.address}/a.pth"))
    assert [start for _, _, start in site.requests] == ["", "bytes=9000-", "bytes=18000-"]
    assert [each.read_bytes() for each in cached(tmp_path)] == [content]


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_digest_behind_the_address_is_checked(tmp_path, site, kind):
    site.files["/a.pth"] = save_pth()
    digits = hashlib.new(kind, save_pth()).hexdigest()
    wrong = digits[::-1]
    message = read_error(f"{site.address}/a.pth#{kind}={wrong}")
    assert digits in message
    assert "it was deleted" in message
    assert not cached(tmp_path)
    assert_read(read_checkpoint(f"{site.address}/a.pth#{kind}={digits.upper()}"))
    assert "delete" in read_error(f"{site.address}/a.pth#{kind}={wrong}")  # of the cached file, too
    assert len(cached(tmp_path)) == 1


def test_redirects_are_followed(tmp_path, site):
    site.moved = {"/old": "/older", "/older": f"{site.address}/a.pth?x=1"}
    site.files["/a.pth"] = save_pth()
    assert_read(read_checkpoint(f"{site.address}/old"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"moved": {"/a.pth": "/a.pth"}}, "maximum allowed redirects"),
        *(({"moved": {"/a.pth": url}}, "") for url in ("file:///etc/passwd", "ftp://127.0.0.1/a.pth", "data:,abc")),
        ({"files": {"/a.pth": b"<html>choose a name"}}, "gives a web page and no file"),
        ({"files": {"/a.pth": b""}}, "no file of plain tensors"),
        ({"files": {"/a.pth": save_pth()[:9000]}}, "no file of plain tensors"),
        ({"files": {"/a.pth": save_pth()}, "headers": {"Content-Length": str(10**16)}}, "cannot be fetched"),
        ({"files": {"/a.pth": save_pth()}, "cut": 0}, "connect to the network and try again"),
        ({"failing": {"/a.pth": 401}}, "is not public (401)"),
        ({"failing": {"/a.pth": 503}}, "answers with an error (503)"),
        ({}, "is not there (404)"),
    ],
)
def test_what_cannot_be_fetched_or_holds_no_weights_stays_out_of_the_cache(tmp_path, site, settings, message):
    for name, value in settings.items():
        setattr(site, name, value)
    error = read_error(f"{site.address}/a.pth")
    assert message in error
    assert f"{site.address}/a.pth" in error
    assert not cached(tmp_path)


GROWING = gzip.compress(bytes(10**6))


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (bytes(10**6), {"Content-Length": None}),  # states no size, and never ends as far as we know
        (GROWING, {"Content-Encoding": "gzip"}),  # states 1 kB and becomes 1 MB
        (bytes(10**6), {}),
    ],
)
def test_a_download_ends_at_a_stated_number_of_bytes_whatever_the_server_states(
    tmp_path, site, monkeypatch, content, headers
):
    monkeypatch.setattr(fetch_url, "MAX_DOWNLOAD_BYTES", 200_000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    site.files["/a.pth"], site.headers = content, headers
    written, write = [], fetch_url._LimitedWriter.write
    monkeypatch.setattr(fetch_url._LimitedWriter, "write", lambda *args: written.append(write(*args)) or written[-1])
    assert "a.pth sends more than 200,000 bytes, the most that is fetched" in read_error(f"{site.address}/a.pth")
    assert sum(written) <= 200_000
    assert not cached(tmp_path)


def test_bytes_beyond_the_stated_length_are_not_read(tmp_path, site):
    site.files["/a.pth"], site.headers = save_pth() + bytes(10**6), {"Content-Length": str(len(save_pth()))}
    assert_read(read_checkpoint(f"{site.address}/a.pth"))
    assert cached(tmp_path)[0].stat().st_size == len(save_pth())


@pytest.mark.parametrize("source", ["https://hub.test/a.pth", "hf://org/name"])
def test_no_redirect_of_a_download_leads_from_https_to_http(tmp_path, site, monkeypatch, source):
    httpx = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    urls = []

    def answer(request):
        urls.append(str(request.url))
        location = "http://hub.test/a.pth" if urls[-1].endswith("/b.pth") else "https://hub.test/b.pth"
        return httpx.Response(302, headers={"Location": location})

    monkeypatch.setenv("HF_ENDPOINT", "https://hub.test")
    set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True))
    try:
        message = read_error(source)
    finally:
        set_client_factory(default_client_factory)
    assert "https://hub.test/b.pth redirects to http://hub.test/a.pth, which is not encrypted" in message
    assert urls
    assert all(url.startswith("https://") for url in urls)
    assert not cached(tmp_path)


@pytest.mark.parametrize(
    "name", ["..%2f..%2f..%2fescaped.pth", "....//.hidden", "%00a.pth", "x" * 3000, "a\\b.pth", ""]
)
def test_no_name_of_an_address_leads_out_of_the_cache(tmp_path, site, name):
    site.files[f"/{name}"] = save_pth()
    assert_read(read_checkpoint(f"{site.address}/{name}"))
    (path,) = cached(tmp_path)
    assert path.parent == tmp_path / "cache"
    assert not path.name.startswith(".")


def test_two_addresses_with_one_name_are_two_files(site):
    other = {"c": torch.zeros(2)}
    site.files = {"/a/x.pth": save_pth(), "/b/x.pth": save_pth(other)}
    assert_read(read_checkpoint(f"{site.address}/a/x.pth"))
    assert_read(read_checkpoint(f"{site.address}/b/x.pth"), other)


def test_of_several_that_ask_at_once_one_fetches(tmp_path, site):
    site.files["/a.pth"] = save_pth()
    with ThreadPoolExecutor(4) as pool:
        for checkpoint in pool.map(lambda _: read_checkpoint(f"{site.address}/a.pth"), range(4)):
            assert_read(checkpoint)
    assert len(site.requests) == 1


def test_a_full_disk_leaves_nothing(tmp_path, site, monkeypatch):
    site.files["/a.pth"] = save_pth()

    def fill(url, file, **_):
        file.write(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fill)
    assert "(No space left on device); free disk space there" in read_error(f"{site.address}/a.pth")
    assert not cached(tmp_path)


def test_a_cache_that_cannot_be_written_is_met_with_how_to_choose_another(tmp_path, site, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIDSTILL_CACHE", str(tmp_path / "file" / "cache"))
    site.files["/a.pth"] = save_pth()
    assert "set VIDSTILL_CACHE to another directory" in read_error(f"{site.address}/a.pth")


@pytest.mark.parametrize("fragment", ["sha256=12", "crc=12345678", "top", f"md5={'g' * 32}"])
def test_a_malformed_digest_is_refused_before_anything_is_fetched(site, fragment):
    assert "64 hexadecimal digits" in read_error(f"{site.address}/a.pth#{fragment}")
    assert not site.requests


MALFORMED = {
    "give https://": ("https://", "https://[::1/a.pth", "http://a b/c.pth", "ftp://host/a.pth", "s3://b/a.pth"),
    "write hf://org/name": ("hf://name", "hf://org/name/../../x", "hf://org/name//x", "hf://", "hf://org/name@"),
    "there is no file or run {}; give a run directory, a .safetensors or a .pth file": (
        "runs/none",
        "none",
        "a/b/c",
        "runs/none.pth",
    ),
    "download the file, and give its path": ("https://me:secret@example.org/a.pth",),
}


@pytest.mark.parametrize(
    ("message", "source"), [(message, source) for message, sources in MALFORMED.items() for source in sources]
)
def test_a_malformed_or_mistyped_source_is_refused_without_a_request(tmp_path, site, monkeypatch, message, source):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    error = read_error(source)
    assert message.format(source) in error
    assert "secret" not in error
    assert not site.requests


# ---- Directories ----------------------------------------------------------------------------------------------------


def write_shards(folder: Path, kind: str) -> Path:
    """A folder as transformers writes a large model: one file for each tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[kind]
    names = {key: f"{stem}-0000{n}-of-00002.{suffix}" for n, key in enumerate(TENSORS, 1)}
    for key, name in names.items():
        one = {key: TENSORS[key]}
        (folder / name).write_bytes(save(one) if kind == "safetensors" else save_pth(one))
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20006}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_of_transformers_is_read_in_one_file_or_several(tmp_path, kind):
    index = write_shards(tmp_path / "several", kind)
    one = tmp_path / "one"
    one.mkdir()
    (one / "config.json").write_text(json.dumps(CONFIG))
    file = one / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    file.write_bytes(save(TENSORS) if kind == "safetensors" else save_pth(TENSORS))
    for source in (tmp_path / "several", index, one, file):
        checkpoint = read_checkpoint(source)
        assert_read(checkpoint)
        assert checkpoint.foreign_metadata == CONFIG
        assert not checkpoint.metadata
        assert Path(checkpoint.source).is_file()


def test_the_hash_of_a_model_in_several_files_follows_from_each_of_them(tmp_path):
    index = write_shards(tmp_path, "safetensors")
    assert [path.name for path in list_checkpoint_files(tmp_path)][:1] == [index.name]
    before = hash_checkpoint(str(tmp_path))
    shard = list_checkpoint_files(tmp_path)[2]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    os.utime(shard, ns=(1, 1))
    assert hash_checkpoint(str(tmp_path)) != before
    assert hash_checkpoint(str(shard)) == hashlib.sha256(shard.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": "../model-00001-of-00002.safetensors"}, "no checkpoint beside it"),
        ({"c": "/etc/passwd"}, "no checkpoint beside it"),
        ({"c": "run.py"}, "no checkpoint beside it"),
        ({"c": "model-00009-of-00002.safetensors"}, "not beside it"),
        ({"c": "model-00001-of-00002.safetensors"}, "holds other tensors"),
        ({"a.weight": "model-00002-of-00002.safetensors"}, "holds other tensors"),
        (None, "no index of checkpoint files"),
        ([1], "no index of checkpoint files"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path, changes, message):
    path = write_shards(tmp_path, "safetensors")
    index = json.loads(path.read_text())
    index["weight_map"] = index["weight_map"] | changes if isinstance(changes, dict) else changes
    path.write_text(json.dumps(index))
    assert message in read_error(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"[1]", b"{", b'{"a": ' + b"9" * 5000 + b"}", b"\xff"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_settings_that_are_no_json_object_are_refused(tmp_path, name, content):
    write_shards(tmp_path, "safetensors")
    (tmp_path / name).write_bytes(content)
    assert "no readable JSON object" in read_error(tmp_path)


def test_a_folder_with_one_file_of_weights_is_read_and_with_several_one_is_to_be_named(tmp_path):
    (tmp_path / "checkpoint-799.pth").write_bytes(save_pth())
    assert_read(read_checkpoint(tmp_path))
    (tmp_path / "checkpoint-399.pth").write_bytes(save_pth())
    assert "checkpoint-399.pth, checkpoint-799.pth" in read_error(tmp_path)


# ---- The Hub --------------------------------------------------------------------------------------------------------

MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": save(TENSORS),
    "pytorch_model.bin": b"not to be fetched",
    "modeling.py": b"raise SystemExit",
    "old/checkpoint.pth": save_pth(),
}


@pytest.mark.parametrize(
    "source",
    ["hf://org/name", "org/name", "hf://org/name@main", f"hf://org/name@{COMMIT}", "hf://org/name/old/checkpoint.pth"],
)
def test_a_model_of_the_hub_is_fetched_and_nothing_of_it_but_weights_and_settings(tmp_path, site, source):
    site.models["org/name"] = MODEL
    checkpoint = read_checkpoint(source)
    assert_read(checkpoint)
    assert checkpoint.foreign_metadata["address"] == source
    assert ("hidden_size" in checkpoint.foreign_metadata) == ("old" not in source)
    fetched = {path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    assert not fetched & {"modeling.py", "pytorch_model.bin"}
    assert not any("modeling" in path for _, path, _ in site.requests)


def test_a_model_of_the_hub_in_several_files_is_fetched(tmp_path, site):
    write_shards(tmp_path / "made", "safetensors")
    site.models["org/large"] = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    checkpoint = read_checkpoint("hf://org/large")
    assert_read(checkpoint)
    assert checkpoint.foreign_metadata["hidden_size"] == 24
    assert len(list_checkpoint_files("hf://org/large")) == 3


def test_a_model_with_one_file_of_the_authors_is_fetched(site):
    site.models["org/theirs"] = {"vit_b_k400.pth": save_pth(), "README.md": b"hello"}
    assert_read(read_checkpoint("hf://org/theirs"))


@pytest.mark.parametrize("offline", [True, False])
def test_a_fetched_model_is_there_without_the_network(site, monkeypatch, offline):
    site.models["org/name"] = MODEL
    read_checkpoint("hf://org/name")
    site.requests.clear()
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    checkpoint = read_checkpoint("hf://org/name")
    assert_read(checkpoint)
    assert checkpoint.foreign_metadata["hidden_size"] == 24
    assert not site.requests


def test_offline_a_model_that_was_not_fetched_is_met_with_one_sentence(site, monkeypatch):
    site.models["org/name"] = MODEL
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in read_error("hf://org/name")
    assert not site.requests


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://org/missing", "has no model org/missing"),
        ("org/missing", "there is no file or run org/missing here, and the Hugging Face Hub has no model"),
        ("hf://org/gated", "accept them at huggingface.co/org/gated"),
        ("hf://org/name@never", "has no revision never"),
        ("hf://org/name/never.pth", "is not there; org/name has"),
        ("hf://org/empty", "holds no model.safetensors"),
        ("hf://org/two", "a.pth, b.pth"),
        ("hf://org/code", "no file of plain tensors"),
    ],
)
def test_what_the_hub_does_not_give_is_met_with_one_sentence(site, source, message):
    site.models = {
        "org/name": MODEL,
        "org/gated": MODEL,
        "org/empty": {"README.md": b"", "run.py": b""},
        "org/two": {"a.pth": save_pth(), "b.pth": save_pth()},
        "org/code": {"pytorch_model.bin": b"import os"},
    }
    site.gated = {"org/gated"}
    assert message in read_error(source)


def test_without_the_network_the_hub_is_met_with_one_sentence(site, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "connect to the network" in read_error("hf://org/name")


def test_weights_that_come_with_the_package_are_named_without_a_path(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "small.safetensors", {"encoder.x": torch.ones(2)}, {"kind": "pretraining"})
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    checkpoint = read_checkpoint("shipped:small")
    assert torch.equal(checkpoint.tensors["encoder.x"], torch.ones(2))
    assert checkpoint.foreign_metadata["address"] == "shipped:small"
    with pytest.raises(InputError, match=r"shipped:large does not come with vidstill; these weights do: shipped:small"):
        read_checkpoint("shipped:large")
