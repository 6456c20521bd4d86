"""A data set behind an address is found as one of this machine is."""

import json

import fsspec
import pytest

from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import ShardMember, StorageUnreachable
from vidstill.utils.types import InputError

pytestmark = pytest.mark.usefixtures("memory_addresses")

ROOT = "memory://bucket/set"


@pytest.fixture
def behind():
    """Files behind an address; what they hold is their name, or what is given."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]

    def make(*names: str, **texts: str) -> str:
        for name, text in [*((name, name) for name in names), *((n.replace("_", "."), t) for n, t in texts.items())]:
            files.pipe_file(f"/bucket/set/{name}", text.encode())
        return ROOT

    yield make
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def list_rows(manifest) -> list[tuple[str, int | None]]:
    assert [row.source for row in manifest.rows] == [f"{manifest.rows.root}/{row.name}" for row in manifest.rows]
    return [(row.name, row.label) for row in manifest.rows]


def test_a_list_behind_a_url_has_its_rows_there(behind):
    root = behind("a/1.mp4", "a/2.mp4", "b/3.mp4", list_csv="a/1.mp4 1\na/2.mp4 0\nb/3 1\n")
    manifest = open_manifest(f"{root}/list.csv")
    assert list_rows(manifest) == [("a/1.mp4", 1), ("a/2.mp4", 0), ("b/3.mp4", 1)]
    assert manifest.source == f"{root}/list.csv"


def test_a_local_list_may_name_urls_or_have_one_as_its_root(behind, tmp_path):
    root = behind("a/1.mp4")
    (tmp_path / "list.txt").write_text(f"{root}/a/1.mp4 0\n")
    assert [row.source for row in open_manifest(tmp_path / "list.txt").rows] == [f"{root}/a/1.mp4"]
    (tmp_path / "list.txt").write_text("a/1.mp4 0\n")
    assert [row.source for row in open_manifest(tmp_path / "list.txt", root=root).rows] == [f"{root}/a/1.mp4"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_packed_dataset_behind_a_url_is_read_through_its_index(behind, slash):
    member = {"shard": "train-0.tar", "offset": 512, "bytes": 10}
    root = behind(index_jsonl=json.dumps({"path": "a.mp4", "label": 0, "frames": 3, "split": "train", **member}))
    manifest = open_manifest(root + slash, split="train")
    assert list(manifest.rows) == [VideoRow(ShardMember(f"{root}/train-0.tar", 512, 10, "a.mp4"), 0, 3, None, "a.mp4")]
    assert list_splits(root + slash) == ("train",)


def test_lists_of_each_split_behind_a_url_share_their_classes(behind):
    root = behind("a.mp4", "b.mp4", train_csv="path,class\na.mp4,run\n", val_csv="path,class\nb.mp4,jump\n")
    assert list_splits(root) == ("train", "val")
    assert list_rows(open_manifest(root, split="val")) == [("b.mp4", 0)]
    assert open_manifest(root).classes == ("jump", "run")


def test_folders_and_official_files_behind_a_url_are_read_like_local_ones(behind):
    manifest = open_manifest(behind("train/run/a.mp4", "train/jump/x/b.webm", "val/run/c.mp4", "train/run/notes.txt"))
    assert list_rows(manifest) == [("jump/x/b.webm", 0), ("run/a.mp4", 1)]
    assert manifest.description == "the train split of a directory with a directory for each class"
    assert list_rows(open_manifest(f"{ROOT}/train/run")) == [("a.mp4", None)]
    assert list_rows(open_manifest(f"{ROOT}/train/run/a.mp4")) == [("a.mp4", None)]
    text = "label,youtube_id,time_start,time_end,split\nrun,abc,0,10,train\nrun,gone,0,10,train\n"
    manifest = open_manifest(behind("train/abc_000000_000010.mp4", train_csv=text))
    assert (list_rows(manifest), manifest.num_missing) == ([("train/abc_000000_000010.mp4", 0)], 1)


def test_the_fingerprint_follows_the_files_behind_a_url(behind):
    root = behind("a.mp4", list_csv="a.mp4 0\n")
    names_seen = open_manifest(f"{root}/list.csv").fingerprint
    behind(a_mp4="longer than it was")
    assert open_manifest(f"{root}/list.csv").fingerprint != names_seen


def test_a_missing_url_is_reported(behind):
    root = behind("a.mp4", list_csv="a.mp4 0\nx/b.mp4 0\n")
    with pytest.raises(InputError, match=rf"1 of its 2 videos are missing, first {root}/x/b.mp4 \(line 2\)"):
        open_manifest(f"{root}/list.csv")
    with pytest.raises(InputError, match=f"{root}/nowhere does not exist"):
        open_manifest(f"{root}/nowhere")
    with pytest.raises(InputError, match=r"'nosuch://bucket' has the scheme 'nosuch', which is not read"):
        open_manifest("nosuch://bucket")


def test_a_directory_that_cannot_be_listed_is_not_empty(behind, monkeypatch):
    root = behind("a.mp4", list_csv="a.mp4 0\n")

    def broken(*args, **options):
        raise OSError("connection reset")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", broken)
    with pytest.raises(StorageUnreachable, match=f"{root} cannot be listed: connection reset"):
        open_manifest(f"{root}/list.csv")
