"""Where bytes are, how they are reached, and what is said where they are not."""

import threading
import time
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.storage import fetch as sources
from vidstill.data.storage.fetch import (
    BrokenVideo,
    ShardMember,
    StorageUnreachable,
    call_with_retries,
    fetch_source,
    join_path,
    parse_path,
    source_name,
)
from vidstill.parallel.pool import map_in_workers
from vidstill.utils.types import InputError

pytestmark = pytest.mark.usefixtures("memory_addresses")

DATA = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "train-000000.tar"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module")
def address():
    fsspec.filesystem("memory").pipe_file("/bucket/train-000000.tar", DATA)
    return "memory://bucket/train-000000.tar"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sources, "REQUEST_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(sources, "RETRY_TIMEOUT_SECONDS", 0.6)
    monkeypatch.setattr(sources, "_BACKOFF_SECONDS", (0.05, 0.1))


@given(
    offset=st.integers(0, 2 * len(DATA)),
    size=st.integers(0, len(DATA)) | st.integers(0, 2**50),
    blocks=st.integers(100, len(DATA)),
)
def test_a_shard_member_is_its_bytes_wherever_the_shard_is_and_broken_if_it_is_cut(
    shard, address, offset, size, blocks
):
    num_available = max(0, len(DATA) - offset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK_BYTES", blocks)
        assert fetch_source(address) == DATA
        for location in (shard, address):
            member = ShardMember(location, offset, size, "one.mp4")
            if size <= num_available:
                assert fetch_source(member) == DATA[offset : offset + size]
                continue
            message = rf"one\.mp4 in .*\.tar is cut off: it has {size} bytes from byte {offset} on, .* {num_available}$"
            if location is address and size > sources.MAX_FETCH_BYTES:
                message = r"one\.mp4 in memory://.*\.tar has [\d,]+ bytes, of which at most 4,294,967,296 are fetched"
            with pytest.raises(BrokenVideo, match=message):
                fetch_source(member)


def test_a_missing_file_is_broken_and_named(tmp_path):
    with pytest.raises(BrokenVideo, match=r"memory://bucket/none\.mp4 does not exist"):
        fetch_source("memory://bucket/none.mp4")
    with pytest.raises(BrokenVideo, match=r"one\.mp4 in memory://bucket/none\.tar does not exist"):
        fetch_source(ShardMember("memory://bucket/none.tar", 0, 5, "one.mp4"))
    with pytest.raises(BrokenVideo, match=r"one.mp4 in .*none\.tar cannot be read: No such file"):
        fetch_source(ShardMember(tmp_path / "none.tar", 0, 5, "one.mp4"))


def test_an_unknown_protocol_or_a_missing_package_is_an_input_error(monkeypatch):
    with pytest.raises(InputError, match=r"'carrier-pigeon', which is not read") as caught:
        fetch_source("carrier-pigeon://coop/one.mp4")
    assert not isinstance(caught.value, BrokenVideo | StorageUnreachable)

    def without_s3fs(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", without_s3fs)
    with pytest.raises(InputError, match=r"Install s3fs to access S3; pip install 'vidstill\[s3\]'"):
        fetch_source("s3://bucket/one.mp4")


def test_paths_and_urls_are_distinguished_and_local_files_and_bytes_are_returned_unchanged():
    assert fetch_source(Path("one.mp4")) == Path("one.mp4")
    assert fetch_source(DATA) is DATA
    assert parse_path("s3://bucket/one.mp4") == "s3://bucket/one.mp4"
    assert parse_path("videos/one.mp4") == Path("videos/one.mp4")
    assert join_path(Path("root"), "one.mp4") == Path("root/one.mp4")
    assert join_path(Path("root"), "/other/one.mp4") == Path("/other/one.mp4")
    assert join_path("s3://bucket/root/", "one.mp4") == "s3://bucket/root/one.mp4"
    assert join_path("s3://bucket", "gs://other/one.mp4") == "gs://other/one.mp4"
    assert source_name(ShardMember(Path("a.tar"), 0, 5, "one.mp4")) == "one.mp4 in a.tar"


def test_a_late_answer_is_waited_for_and_a_refusal_is_given_up_with_its_reason(impatient):
    start_time = time.monotonic()

    def ask(seconds: float) -> str:
        if time.monotonic() - start_time < seconds:
            raise ConnectionRefusedError(111, "Connection refused")
        return "here"

    assert call_with_retries("s3://bucket/one.mp4", lambda: ask(0.3)) == "here"
    message = (
        r"s3://bucket/one\.mp4 cannot be reached: Connection refused \(\d+ tries in \d+ s\); once it can, run the same "
        r"command again to continue"
    )
    with pytest.raises(StorageUnreachable, match=message):
        call_with_retries("s3://bucket/one.mp4", lambda: ask(1e9))


def test_a_silent_server_is_given_up_in_time(impatient):
    silent = threading.Event()
    start_time = time.monotonic()
    with pytest.raises(StorageUnreachable, match=r"cannot be reached: no answer within 0\.2 s \(\d tries in"):
        call_with_retries("s3://bucket/one.mp4", silent.wait)
    assert time.monotonic() - start_time < 30
    left = [thread for thread in threading.enumerate() if thread.name == "vidstill request"]
    assert left
    assert all(thread.daemon for thread in left)  # none of them keeps a process from ending
    silent.set()


def test_a_worker_that_waits_for_a_server_is_not_killed(monkeypatch):
    monkeypatch.setattr(sources, "REQUEST_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(sources, "RETRY_TIMEOUT_SECONDS", 4.0)
    silent = threading.Event()
    waiting = map_in_workers(
        lambda name: call_with_retries(name, silent.wait), ["s3://bucket"], workers=1, timeout_seconds=1.5
    )
    with pytest.raises(StorageUnreachable, match=r"s3://bucket cannot be reached"):
        next(waiting)


class NoCredentialsError(Exception):
    """As botocore's is: of no kind that says what it is."""


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Forbidden"), NoCredentialsError("Unable to locate credentials")]
)
def test_a_refusal_is_not_tried_again(impatient, error):
    tries = []

    def refuse():
        tries.append(1)
        raise error

    with pytest.raises(StorageUnreachable, match=r"cannot be read: (Forbidden|Unable to .*); check the credentials"):
        call_with_retries("s3://bucket/one.mp4", refuse)
    assert len(tries) == 1
