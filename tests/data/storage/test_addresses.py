"""What a list, a pack and an option may reach: no address that runs code, nothing outside a pack's own directory."""

import inspect
import json
import os
import re
import socket
from pathlib import Path

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from tiny_videos import write_video

from vidstill.cli.main import main
from vidstill.data.ava.video_files import read_frame_list
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage import addresses
from vidstill.data.storage.addresses import SCHEMES, parse_address
from vidstill.data.storage.fetch import BrokenVideo, ShardMember, fetch_source, parse_path, resolve_filesystem
from vidstill.data.tools.scan import scan_dataset
from vidstill.pipelines.infer.videos import build_row_manifest
from vidstill.utils.types import InputError

# ---- Addresses -------------------------------------------------------------------------------------------------------

PROTOCOLS = sorted({*fsspec.available_protocols(), *SCHEMES, "S3", "hTTp", ""})
PIECES = st.sampled_from(["::", "://", "/", "..", "%2e", "a", "bucket", "x.json", " ", "\n", "\0", "é", "@", "?"])
SPELLINGS = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PROTOCOLS) | PIECES, max_size=8).map("".join),
    st.builds("{}://{}".format, st.sampled_from(PROTOCOLS), st.lists(PIECES, max_size=6).map("".join)),
)


@given(SPELLINGS)
@example("reference::file:///x.json")
@example("s3://bucket/a::file:///x")
@example("simplecache::s3://bucket")
@example("::s3://bucket")
@example("https://")
@example("s3://bucket/👨‍👩‍👧 1.mp4")
def test_any_text_is_a_plain_address_of_a_known_scheme_or_never_reaches_fsspec(text):
    reached = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsspec, "url_to_fs", lambda url, **_: reached.append(url) or (None, url))
        patch.setattr("vidstill.data.storage.fetch.call_with_retries", lambda name, request: request())
        try:
            parse_address(text)
        except InputError:
            for read in (resolve_filesystem, fetch_source, lambda each: fetch_source(ShardMember(each, 0, 1, "a"))):
                with pytest.raises(InputError, match="; give a local path, or an address such as"):
                    read(text)
            assert not reached
            return
        resolve_filesystem(text)
    assert reached == [text]
    assert "::" not in text
    protocol, path = fsspec.core.split_protocol(text)
    assert protocol in SCHEMES
    assert path.strip("/")
    assert not set(path) & {"\n", "\0", "\x1b"}
    assert parse_path(text) == text


@given(SPELLINGS, st.sampled_from(["path", "shard"]), st.sampled_from(["list.jsonl", "index.jsonl"]))
def test_any_text_in_a_list_is_a_local_path_or_a_plain_address_or_is_refused(tmp_path_factory, text, key, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_text(json.dumps({"path": "a.mp4", "bytes": 5, "offset": 0, key: text}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsspec, "url_to_fs", None)  # nothing is looked up: the row states a size
        try:
            source = open_manifest(path).rows[0].source
        except InputError:
            return
    file = source.shard if isinstance(source, ShardMember) else source
    if isinstance(file, str):
        assert name == "list.jsonl"
        assert parse_address(file) == text
    elif name == "index.jsonl":
        assert Path(os.path.normpath(file)).is_relative_to(path.parent)


def test_one_module_reaches_fsspec_and_in_one_function():
    source = Path(addresses.__file__).parents[2]
    modules = [path for path in source.rglob("*.py") if re.search(r"^\s*(import|from) fsspec", path.read_text(), re.M)]
    assert [path.relative_to(source).as_posix() for path in modules] == ["data/storage/fetch.py"]
    assert re.findall(r"fsspec\.\w+", modules[0].read_text()) == ["fsspec.url_to_fs"]
    assert "fsspec.url_to_fs" in inspect.getsource(resolve_filesystem)


@pytest.mark.parametrize("scheme", sorted({*fsspec.available_protocols()} - SCHEMES))
def test_no_other_scheme_of_fsspec_is_read(scheme):
    for text in (f"{scheme}://bucket/a.mp4", f"{scheme}::s3://bucket/a.mp4", f"s3://bucket/a.mp4::{scheme}://b"):
        with pytest.raises(InputError, match="which is not read"):
            resolve_filesystem(text)


# ---- The exploit -----------------------------------------------------------------------------------------------------


@pytest.fixture
def exploit(tmp_path, monkeypatch):
    """An address from which fsspec 2025.2 to 2026.4 write a file, and this file.

    Later versions parse no templates unless told to, and in a sandbox: both are undone here.
    """
    trace = tmp_path / "executed"
    code = f"{{{{ cycler.__init__.__globals__.os.system('touch {trace}') }}}}"
    reference = {"version": 1, "gen": [{"key": code, "url": "a", "dimensions": {"i": [0]}}], "refs": {}}
    (tmp_path / "x.json").write_text(json.dumps(reference))
    jinja2 = pytest.importorskip("jinja2.sandbox")
    monkeypatch.setattr(jinja2, "SandboxedEnvironment", jinja2.Environment)
    monkeypatch.setitem(fsspec.config.conf, "reference", {"simple_templates": False})
    address = f"reference::file://{tmp_path}/x.json"
    yield address, trace
    assert not trace.exists()
    fsspec.url_to_fs(address, skip_instance_cache=True)
    assert trace.exists(), "the address would have run nothing anyway"


def lists_that_name(address: str) -> dict[str, str]:
    """A file of each form that names an address where a video's path is."""
    packed = {"path": "a.mp4", "shard": address, "offset": 0, "bytes": 5}
    return {
        "paths.txt": f"{address}/a.mp4\n",  # the directory is looked up, which is the address
        "kinetics.txt": f"{address}/a.mp4 0\n",
        "frames.txt": f"{address}/a 42 0\n",
        "plain.csv": f"{address}/a.mp4,0\n",
        "table.csv": f"path,label\n{address}/a.mp4,0\n",
        "list.jsonl": json.dumps({"path": f"{address}/a.mp4"}) + "\n",
        "sized.jsonl": json.dumps({"path": address, "bytes": 5, "frames": 4}) + "\n",
        "shard.jsonl": json.dumps(packed) + "\n",
        "index.jsonl": json.dumps(packed) + "\n",
        "train.csv": f"{address}/a.mp4 0\n",
    }


@pytest.mark.parametrize("name", lists_that_name(""))
def test_a_list_of_videos_executes_no_code(tmp_path, exploit, capsys, name):
    address, _ = exploit
    data = tmp_path / "data"
    data.mkdir()
    (data / name).write_text(lists_that_name(address)[name])
    inside_folder = [data] if name in ("index.jsonl", "train.csv") else []
    for path in (data / name, *inside_folder):
        for command in ("data inspect {}", "data scan {} --out {}/out.jsonl", "data pack {} --out {}/packs"):
            assert main(command.format(path, tmp_path).split()) == 2
            message = capsys.readouterr().err
            assert "reference::file:" in message
            assert message.strip().count("\n") == 0
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "packs").exists()


@pytest.mark.parametrize(
    "command",
    [
        "data inspect {}",
        "data scan {} --out {out}.jsonl",
        "data split {} --out {out}",
        "data pack {} --out {out}",
        "data inspect {data} --root {}",
        "pretrain quickstart.teacher --data {} --out {out}",
        "finetune quickstart.finetune --data {data} --val-share 0.5 --init {} --out {out}",
        "finetune quickstart.finetune --data {data} --test-data {} --out {out}",
        "weights inspect {}",
        "evaluate {} --data {data}",
        "embed {} {data} --out {out}.npz",
    ],
)
def test_no_option_that_takes_an_address_executes_code(tmp_path, exploit, capsys, command):
    address, _ = exploit
    rows = ({"path": f"{n}.mp4", "label": n % 2, "frames": 9, "bytes": 5} for n in range(8))
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = command.format(address, out=tmp_path / "out", data=tmp_path / "list.jsonl")
    assert main(text.split()) == 2
    assert "reference::file:" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


# ---- What a pack and a list reach ------------------------------------------------------------------------------------

MEMBER = {"path": "a.mp4", "shard": "0.tar", "offset": 0, "bytes": 5}


def write_index(folder: Path, **entry: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.jsonl").write_text(json.dumps({**MEMBER, **entry}) + "\n")
    return folder


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret" / "key.mp4"
    path.parent.mkdir()
    path.write_bytes(b"secret")
    return path


@pytest.mark.parametrize("key", ["shard", "path"])
@pytest.mark.parametrize("name", ["{secret}", "../secret/key.mp4", "a/../../secret/key.mp4", "s3://bucket/x", "a::b"])
def test_an_index_of_a_pack_names_only_what_is_below_it(tmp_path, secret, key, name):
    name = name.format(secret=secret)
    pack = write_index(tmp_path / "packs", **{"shard": None, key: name})
    for data in (pack, pack / "index.jsonl"):
        with pytest.raises(
            InputError, match=r"line 1 of .*index\.jsonl names .*only what is below their own directory"
        ):
            open_manifest(data)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.mp4", "%2e%2e/x.mp4", "s3://other/x.mp4", "file:///x", "a::b"])
def test_a_list_behind_an_address_names_only_what_is_below_it(monkeypatch, name):
    files = fsspec.filesystem("memory", skip_instance_cache=True)
    monkeypatch.setattr(fsspec, "url_to_fs", lambda url, **_: (files, url.partition(":/")[2]))
    for suffix, text in {
        "txt": f"{name} 0\n",
        "csv": f"path,label\n{name},0\n",
        "jsonl": json.dumps({"path": name}),
        "packed.jsonl": json.dumps({**MEMBER, "shard": name}),
    }.items():
        files.pipe_file(f"/bucket/{suffix.partition('.')[0]}/list.{suffix}", text.encode())
        address = f"s3://bucket/{suffix.partition('.')[0]}/list.{suffix}"
        with pytest.raises(InputError, match=f"line . of {address} names .*only what is below"):
            open_manifest(address)


def test_a_local_list_names_any_file_and_plain_addresses(tmp_path, secret):
    (tmp_path / "lists").mkdir()
    rows = [{"path": str(secret), "bytes": 6}, {"path": "s3://bucket/a.mp4", "bytes": 5}]
    path = tmp_path / "lists" / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row.source for row in open_manifest(path).rows] == [secret, "s3://bucket/a.mp4"]


def make_link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def test_no_link_leads_out_of_a_pack_neither_when_it_is_opened_nor_when_it_is_read(tmp_path, secret):
    pack = write_index(tmp_path / "packs")
    (pack / "real.tar").write_bytes(b"video")
    make_link(pack / "0.tar", pack / "real.tar")  # a link within the pack is one of its files
    rows = open_manifest(pack).rows
    together = build_row_manifest([*rows, *open_manifest(pack / "index.jsonl").rows]).rows
    assert fetch_source(rows[0].source) == b"video"
    make_link(pack / "0.tar", secret)
    for row in (rows[0], *together):
        with pytest.raises(InputError, match=r"0\.tar leads out of .*packs by a link.*cp -rL"):
            fetch_source(row.source)
    with pytest.raises(InputError, match=r"0\.tar leads out of"):
        open_manifest(pack)


@pytest.mark.parametrize("name", ["index.jsonl", "classes.txt"])
def test_the_index_and_the_classes_of_a_pack_are_no_links_out_of_it(tmp_path, name):
    pack, other = write_index(tmp_path / "packs", label=0), write_index(tmp_path / "other")
    (other / "classes.txt").write_text("jump\n")
    for each in ("0.tar", "classes.txt"):
        (pack / each).write_text("jump\n")
    assert open_manifest(pack).classes == ("jump",)
    make_link(pack / name, other / name)
    with pytest.raises(InputError, match=f"{name} leads out of"):
        open_manifest(pack)


def test_frames_and_files_that_an_index_names_are_no_links_out_of_it(tmp_path, secret):
    pack = write_index(tmp_path / "packs", shard=None, path="frames", bytes=0)
    (pack / "frames").mkdir()
    (pack / "frames" / "0.jpg").touch()
    rows = open_manifest(pack).rows
    assert rows[0].source == pack / "frames"
    make_link(pack / "frames" / "0.jpg", secret)
    for read in (lambda: rows[0], lambda: open_manifest(pack)):
        with pytest.raises(InputError, match=r"0\.jpg leads out of"):
            read()


def test_a_frame_list_names_no_chained_address(tmp_path, exploit):
    (tmp_path / "list.csv").write_text(f"a 0 0 {exploit[0]}/a_000001.jpg ''\n")
    with pytest.raises(InputError, match=r"line 1 of .*list\.csv: 'reference::"):
        read_frame_list(tmp_path / "list.csv")


# ---- Links out of a folder -------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path) -> Path:
    """A folder with a file, a link to another in it, and two links out of it: to a file and to a class."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for path in (elsewhere / "run/a.mp4", elsewhere / "b.mp4", folder / "jump/c.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, 2)
    make_link(folder / "jump/b.mp4", elsewhere / "b.mp4")
    make_link(folder / "jump/d.mp4", folder / "jump/c.mp4")
    make_link(folder / "run", elsewhere / "run")
    return folder


def test_links_out_of_a_folder_are_followed_and_said(linked, capsys):
    manifest = open_manifest(linked)
    assert [row.name for row in manifest.rows] == ["jump/b.mp4", "jump/c.mp4", "jump/d.mp4", "run/a.mp4"]
    note = f"of whose files 2 lie outside {linked} behind links, first jump/b.mp4"
    assert note in manifest.description
    assert main(["data", "inspect", str(linked)]) == 0
    assert note in capsys.readouterr().out
    assert main(["data", "scan", str(linked)]) == 0
    assert "2 videos outside the dataset behind links, first jump/b.mp4" in capsys.readouterr().out


def test_links_of_a_list_are_said_and_its_absolute_paths_are_not(linked):
    path = linked / "list.txt"
    path.write_text(f"jump/c.mp4 0\nrun/a.mp4 0\n{linked.parent}/elsewhere/b.mp4 0\n")
    assert "of whose files 1 lie outside" in open_manifest(path).description


def test_a_root_that_is_a_link_itself_is_no_link_out(linked, tmp_path):
    make_link(tmp_path / "data", linked / "jump")
    (linked / "jump/b.mp4").unlink()
    assert "behind links" not in open_manifest(tmp_path / "data").description


# ---- What is no file -------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_one_row_of_a_scan_and_never_opened(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "videos"
    (folder / "e.mp4").mkdir(parents=True)
    write_video(folder / "a.mp4", 4)
    make_link(folder / "b.mp4", tmp_path / "nothing.mp4")
    os.mkfifo(folder / "c.mp4")
    make_link(folder / "d.mp4", Path("/dev/zero"))
    make_link(folder / "f.mp4", folder / "f.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)
        server.bind("g.mp4")
        assert main(["data", "scan", str(folder), "--workers", "0", "--json", "--min-frames", "1"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == {
        "videos/b.mp4": "is a link whose file cannot be read: No such file or directory",
        "videos/c.mp4": "is a FIFO and no file, and is not opened",
        "videos/d.mp4": "is a device and no file, and is not opened",
        "videos/e.mp4": "is a folder without images; give a video, or a folder of its frames",
        "videos/f.mp4": "is a link whose file cannot be read: Too many levels of symbolic links",
        "videos/g.mp4": "is a socket and no file, and is not opened",
    }
    assert report["num_files"] == 7
    for row in open_manifest(folder).rows[1:]:
        with pytest.raises(BrokenVideo):
            VideoReader(row.source)


def test_a_picture_that_is_no_file_is_not_opened(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.new("RGB", (16, 16)).save(frames / "1.png")
    os.mkfifo(first := frames / "0.png")
    report = scan_dataset(tmp_path / "frames", workers=1)
    assert report.errors == {f"frames/{first.name}": "is a FIFO and no file, and is not opened"}
    (tmp_path / "list.txt").write_text("frames 3 0\n")
    report = scan_dataset(tmp_path / "list.txt", workers=1)
    assert report.errors == {"frames": "is a FIFO and no file, and is not opened"}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_no_dataset_no_list_and_no_shard(tmp_path, make):
    path = tmp_path / "list.txt"
    make(path)
    with pytest.raises(InputError, match="is neither a file nor a directory"):
        open_manifest(path)
    with pytest.raises(BrokenVideo, match="is not opened"):
        fetch_source(ShardMember(path, 0, 5, "a.mp4"))
    for name in ("classes.txt", "train.csv"):
        make(tmp_path / name)
    (tmp_path / "0.mp4").write_bytes(b"video")
    assert [row.name for row in open_manifest(tmp_path).rows] == ["0.mp4"]
