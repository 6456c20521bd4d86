"""Where weights come from: addresses, the Hub's models, folders of several files; and what is left of a bad fetch."""

import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from web_server import COMMIT, Site, served

from vidstill.checkpoints.io import Checkpoint, list_checkpoint_files, read_checkpoint
from vidstill.pipelines.probe.feature_cache import hash_checkpoint
from vidstill.utils.types import InputError

TENSORS = {"a.weight": torch.arange(5000.0), "b.bias": torch.ones(3, dtype=torch.float16)}
CONFIG = {"model_type": "videomae", "hidden_size": 24, "layer_norm_eps": 1e-12}


def pth(content: object = None) -> bytes:
    held = io.BytesIO()
    torch.save({"model": TENSORS} if content is None else content, held)
    return held.getvalue()


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


def refusal(source: str | Path) -> str:
    with pytest.raises(InputError) as error:
        read_checkpoint(source)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def assert_read(metadata: Checkpoint, tensors: dict[str, torch.Tensor] = TENSORS) -> None:
    assert metadata.tensors.keys() == tensors.keys()
    assert all(torch.equal(metadata.tensors[name], tensor) for name, tensor in tensors.items())


# addresses


@pytest.mark.parametrize("content", [pth(), save(TENSORS)])
def test_an_address_is_fetched_once(tmp_path, site, content):
    site.files["/some/file.pth"] = content
    for _ in range(2):
        metadata = read_checkpoint(f"{site.address}/some/file.pth")
        assert_read(metadata)
        assert metadata.foreign_metadata["address"] == f"{site.address}/some/file.pth"
    assert len(site.requests) == 1
    assert [each.read_bytes() for each in cached(tmp_path)] == [content]
    assert Path(metadata.source) == cached(tmp_path)[0]


def test_what_was_fetched_is_there_without_the_network_and_the_rest_is_met_with_one_sentence(tmp_path, site):
    site.files["/a.pth"] = pth()
    read_checkpoint(f"{site.address}/a.pth")
    with served(Site(files={"/b.pth": pth()})) as gone:
        pass
    site.files.clear()
    assert_read(read_checkpoint(f"{site.address}/a.pth"))
    assert "connect to the network and try again" in refusal(f"{gone.address}/b.pth")
    assert len(cached(tmp_path)) == 1


def test_a_download_that_breaks_off_goes_on_where_it_ended(tmp_path, site, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    content = pth()
    site.files["/a.pth"], site.cut = content, 9000
    assert_read(read_checkpoint(f"{site.address}/a.pth"))
    assert [start for _, _, start in site.requests] == ["", "bytes=9000-", "bytes=18000-"]
    assert [each.read_bytes() for each in cached(tmp_path)] == [content]


def test_a_download_that_breaks_off_again_and_again_leaves_nothing(tmp_path, site):
    site.files["/a.pth"], site.cut = pth(), 0
    assert "connect to the network and try again" in refusal(f"{site.address}/a.pth")
    assert not cached(tmp_path)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_digest_behind_the_address_is_checked(tmp_path, site, kind):
    site.files["/a.pth"] = pth()
    digits = hashlib.new(kind, pth()).hexdigest()
    wrong = digits[::-1]
    sentence = refusal(f"{site.address}/a.pth#{kind}={wrong}")
    assert digits in sentence
    assert "it was deleted" in sentence
    assert not cached(tmp_path)
    assert_read(read_checkpoint(f"{site.address}/a.pth#{kind}={digits.upper()}"))
    assert "delete" in refusal(f"{site.address}/a.pth#{kind}={wrong}")  # of the cached file, too
    assert len(cached(tmp_path)) == 1


@pytest.mark.parametrize("fragment", ["sha256=12", "crc=12345678", "top", f"md5={'g' * 32}"])
def test_a_digest_that_is_none_is_met_before_anything_is_fetched(site, fragment):
    assert "64 hexadecimal digits" in refusal(f"{site.address}/a.pth#{fragment}")
    assert not site.requests


def test_redirects_are_followed(tmp_path, site):
    site.moved = {"/old": "/older", "/older": f"{site.address}/a.pth?x=1", "/loop": "/loop"}
    site.files["/a.pth"] = pth()
    assert_read(read_checkpoint(f"{site.address}/old"))
    assert "maximum allowed redirects" in refusal(f"{site.address}/loop")


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/a.pth", "data:text/plain,abc"])
def test_redirects_to_other_places_than_the_web_are_not(tmp_path, site, where):
    site.moved = {"/a.pth": where}
    refusal(f"{site.address}/a.pth")
    assert not cached(tmp_path)


@pytest.mark.parametrize(
    ("content", "headers", "sentence"),
    [
        (b"<html>choose a name", {"Content-Type": "text/html; charset=utf-8"}, "gives a web page and no file"),
        (b"<html>choose a name", {}, "gives a web page and no file"),
        (b"", {}, "no file of plain tensors"),
        (pth()[:9000], {}, "no file of plain tensors"),
        (pth(), {"Content-Length": str(10**16)}, "cannot be fetched"),
    ],
)
def test_what_holds_no_weights_stays_out_of_the_cache(tmp_path, site, content, headers, sentence):
    site.files["/a.pth"], site.headers = content, headers
    metadata = refusal(f"{site.address}/a.pth")
    assert sentence in metadata
    assert f"{site.address}/a.pth" in metadata
    assert not cached(tmp_path)


def test_an_address_that_answers_with_an_error_is_met_with_it(tmp_path, site):
    site.failing = {"/a.pth": 401, "/b.pth": 503}
    assert "is not public (401)" in refusal(f"{site.address}/a.pth")
    assert "answers with an error (503)" in refusal(f"{site.address}/b.pth")
    assert "is not there (404)" in refusal(f"{site.address}/missing.pth")
    assert not cached(tmp_path)


@pytest.mark.parametrize(
    "name", ["..%2f..%2f..%2fescaped.pth", "....//.hidden", "%00a.pth", "x" * 3000, "a\\b.pth", ""]
)
def test_no_name_of_an_address_leads_out_of_the_cache(tmp_path, site, name):
    site.files[f"/{name}"] = pth()
    assert_read(read_checkpoint(f"{site.address}/{name}"))
    (metadata,) = cached(tmp_path)
    assert metadata.parent == tmp_path / "cache"
    assert not metadata.name.startswith(".")


def test_two_addresses_with_one_name_are_two_files(site):
    other = {"c": torch.zeros(2)}
    site.files = {"/a/x.pth": pth(), "/b/x.pth": pth(other)}
    assert_read(read_checkpoint(f"{site.address}/a/x.pth"))
    assert_read(read_checkpoint(f"{site.address}/b/x.pth"), other)


def test_of_several_that_ask_at_once_one_fetches(tmp_path, site):
    site.files["/a.pth"] = pth()
    with ThreadPoolExecutor(4) as pool:
        for metadata in pool.map(lambda _: read_checkpoint(f"{site.address}/a.pth"), range(4)):
            assert_read(metadata)
    assert len(site.requests) == 1


def test_a_full_disk_leaves_nothing(tmp_path, site, monkeypatch):
    site.files["/a.pth"] = pth()

    def fill(url, file, **_):
        file.write(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fill)
    assert "(No space left on device); free disk space there" in refusal(f"{site.address}/a.pth")
    assert not cached(tmp_path)


def test_a_cache_that_cannot_be_written_is_met_with_how_to_choose_another(tmp_path, site, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIDSTILL_CACHE", str(tmp_path / "file" / "cache"))
    site.files["/a.pth"] = pth()
    assert "set VIDSTILL_CACHE to another directory" in refusal(f"{site.address}/a.pth")


def test_a_password_in_an_address_is_not_repeated(site):
    assert "secret" not in refusal("https://me:secret@example.org/a.pth")


@pytest.mark.parametrize(
    "source", ["https://", "https://[::1/a.pth", "http://a b/c.pth", "ftp://host/a.pth", "s3://b/a.pth"]
)
def test_what_is_no_address_is_met_with_one_sentence(site, source):
    assert "give https://" in refusal(source)


# folders


def sharded(folder: Path, kind: str) -> Path:
    """A folder as transformers writes a large model: one file for each tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[kind]
    names = {key: f"{stem}-0000{n}-of-00002.{suffix}" for n, key in enumerate(TENSORS, 1)}
    for key, name in names.items():
        one = {key: TENSORS[key]}
        (folder / name).write_bytes(save(one) if kind == "safetensors" else pth(one))
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20006}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_of_transformers_is_read_in_one_file_or_several(tmp_path, kind):
    index = sharded(tmp_path / "several", kind)
    one = tmp_path / "one"
    one.mkdir()
    (one / "config.json").write_text(json.dumps(CONFIG))
    file = one / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    file.write_bytes(save(TENSORS) if kind == "safetensors" else pth(TENSORS))
    for source in (tmp_path / "several", index, one, file):
        metadata = read_checkpoint(source)
        assert_read(metadata)
        assert metadata.foreign_metadata == CONFIG
        assert not metadata.metadata
        assert Path(metadata.source).is_file()


def test_the_hash_of_a_model_in_several_files_follows_from_each_of_them(tmp_path):
    index = sharded(tmp_path, "safetensors")
    assert [path.name for path in list_checkpoint_files(tmp_path)][:1] == [index.name]
    before = hash_checkpoint(str(tmp_path))
    shard = list_checkpoint_files(tmp_path)[2]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    os.utime(shard, ns=(1, 1))
    assert hash_checkpoint(str(tmp_path)) != before
    assert hash_checkpoint(str(shard)) == hashlib.sha256(shard.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda metadata: metadata["weight_map"].update({"c": "../model-00001-of-00002.safetensors"}),
            "no checkpoint beside it",
        ),
        (lambda metadata: metadata["weight_map"].update({"c": "/etc/passwd"}), "no checkpoint beside it"),
        (lambda metadata: metadata["weight_map"].update({"c": "run.py"}), "no checkpoint beside it"),
        (lambda metadata: metadata["weight_map"].update({"c": "model-00009-of-00002.safetensors"}), "not beside it"),
        (
            lambda metadata: metadata["weight_map"].update({"c": "model-00001-of-00002.safetensors"}),
            "holds other tensors",
        ),
        (
            lambda metadata: metadata["weight_map"].update({"a.weight": "model-00002-of-00002.safetensors"}),
            "holds other tensors",
        ),
        (lambda metadata: metadata.pop("weight_map"), "no index of checkpoint files"),
        (lambda metadata: metadata.update(weight_map=[1]), "no index of checkpoint files"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path, change, sentence):
    index = sharded(tmp_path, "safetensors")
    metadata = json.loads(index.read_text())
    change(metadata)
    index.write_text(json.dumps(metadata))
    assert sentence in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"[1]", b"{", b'{"a": ' + b"9" * 5000 + b"}", b"\xff"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_settings_that_are_no_json_object_are_refused(tmp_path, name, content):
    sharded(tmp_path, "safetensors")
    (tmp_path / name).write_bytes(content)
    assert "no readable JSON object" in refusal(tmp_path)


def test_a_folder_with_one_file_of_weights_is_read_and_with_several_one_is_to_be_named(tmp_path):
    (tmp_path / "checkpoint-799.pth").write_bytes(pth())
    assert_read(read_checkpoint(tmp_path))
    (tmp_path / "checkpoint-399.pth").write_bytes(pth())
    assert "checkpoint-399.pth, checkpoint-799.pth" in refusal(tmp_path)


# the Hub

MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": save(TENSORS),
    "pytorch_model.bin": b"not to be fetched",
    "modeling.py": b"raise SystemExit",
    "old/checkpoint.pth": pth(),
}


@pytest.mark.parametrize(
    "source",
    ["hf://org/name", "org/name", "hf://org/name@main", f"hf://org/name@{COMMIT}", "hf://org/name/old/checkpoint.pth"],
)
def test_a_model_of_the_hub_is_fetched_and_nothing_of_it_but_weights_and_settings(tmp_path, site, source):
    site.models["org/name"] = MODEL
    metadata = read_checkpoint(source)
    assert_read(metadata)
    assert metadata.foreign_metadata["address"] == source
    assert ("hidden_size" in metadata.foreign_metadata) == ("old" not in source)
    fetched = {path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    assert not fetched & {"modeling.py", "pytorch_model.bin"}
    assert not any("modeling" in path for _, path, _ in site.requests)


def test_a_model_of_the_hub_in_several_files_is_fetched(tmp_path, site):
    sharded(tmp_path / "made", "safetensors")
    site.models["org/large"] = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    metadata = read_checkpoint("hf://org/large")
    assert_read(metadata)
    assert metadata.foreign_metadata["hidden_size"] == 24
    assert len(list_checkpoint_files("hf://org/large")) == 3


def test_a_model_with_one_file_of_the_authors_is_fetched(site):
    site.models["org/theirs"] = {"vit_b_k400.pth": pth(), "README.md": b"hello"}
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
    metadata = read_checkpoint("hf://org/name")
    assert_read(metadata)
    assert metadata.foreign_metadata["hidden_size"] == 24
    assert not site.requests


def test_offline_a_model_that_was_not_fetched_is_met_with_one_sentence(site, monkeypatch):
    site.models["org/name"] = MODEL
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal("hf://org/name")
    assert not site.requests


@pytest.mark.parametrize(
    ("source", "sentence"),
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
def test_what_the_hub_does_not_give_is_met_with_one_sentence(site, source, sentence):
    site.models = {
        "org/name": MODEL,
        "org/gated": MODEL,
        "org/empty": {"README.md": b"", "run.py": b""},
        "org/two": {"a.pth": pth(), "b.pth": pth()},
        "org/code": {"pytorch_model.bin": b"import os"},
    }
    site.gated = {"org/gated"}
    assert sentence in refusal(source)


def test_without_the_network_the_hub_is_met_with_one_sentence(site, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "connect to the network" in refusal("hf://org/name")


@pytest.mark.parametrize(
    "source", ["hf://name", "hf://org/name/../../x", "hf://org/name//x", "hf://", "hf://org/name@"]
)
def test_what_is_no_name_of_a_model_is_met_with_how_to_write_it(site, source):
    assert "write hf://org/name" in refusal(source)
    assert not site.requests


@pytest.mark.parametrize("source", ["runs/none", "none", "a/b/c", "runs/none.pth"])
def test_a_path_that_is_mistyped_is_not_asked_for_on_the_hub(tmp_path, site, monkeypatch, source):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert f"there is no file or run {source}; give a run directory, a .safetensors or a .pth file" in refusal(source)
    assert not site.requests
