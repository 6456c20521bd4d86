"""Data behind http: what a server states is a limit, what it does not state has one, and https stays https."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from threading import Thread

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from web_server import QuietHandler

from vidstill.data.storage import fetch, http
from vidstill.data.storage.fetch import BrokenVideo, ShardMember, fetch_source, resolve_filesystem
from vidstill.utils.types import InputError

DATA = bytes(range(250)) * 4


class Handler(QuietHandler):
    """Answers `/NAME` as this says, and notes how many bytes of the body were sent."""

    def do_GET(self) -> None:
        getattr(self, self.path.strip("/").partition(".")[0])()

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.server.num_sent += len(body)  # before the client can have them
            self.wfile.write(body)

    def honest(self) -> None:
        first, _, last = self.headers.get("Range", f"bytes=0-{len(DATA)}")[6:].partition("-")
        body = DATA[int(first) : int(last) + 1]
        self.send(body, 206 if "Range" in self.headers else 200, Content_Length=str(len(body)))

    def whole(self) -> None:
        self.send(DATA, Content_Length=str(len(DATA)))

    def unsized(self) -> None:
        self.send(DATA)

    def huge(self) -> None:
        self.send(b"", Content_Length=str(2**40))

    def endless(self) -> None:
        self.send(
            b"", 200 if self.command == "HEAD" else 206, **{"Content-Length": "5"} if self.command == "HEAD" else {}
        )
        with suppress(OSError):
            while self.command == "GET":
                self.wfile.write(bytes(10_000))
                self.server.num_sent += 10_000

    def moved(self) -> None:
        self.send(b"", 302, Location=self.server.location)


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "_BACKOFF_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(fetch, "RETRY_TIMEOUT_SECONDS", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.num_sent, server.location = 0, ""
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_behind_http_is_read_in_blocks_and_of_a_shard_only_the_video(server, monkeypatch):
    monkeypatch.setattr(fetch, "BLOCK_BYTES", 300)
    assert fetch_source(f"{server.address}/honest.mp4") == DATA
    server.num_sent = 0
    assert fetch_source(ShardMember(f"{server.address}/honest.tar", 100, 50, "a.mp4")) == DATA[100:150]
    assert server.num_sent == 50


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whole", r"comes from a server that sends more than was requested"),
        ("unsized", r"comes from a server that does not state its size"),
        ("huge", r"has 1,099,511,627,776 bytes, of which at most 4,294,967,296 are fetched"),
    ],
)
def test_a_file_that_its_server_misstates_is_a_broken_video(server, monkeypatch, name, message):
    monkeypatch.setattr(fetch, "BLOCK_BYTES", 300)
    with pytest.raises(BrokenVideo, match=f"{server.address}/{name}.mp4 {message}"):
        fetch_source(f"{server.address}/{name}.mp4")
    assert server.num_sent <= 2 * len(DATA)


def test_an_answer_without_an_end_is_read_to_a_stated_number_of_bytes(server, monkeypatch):
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 200_000)
    with pytest.raises(
        InputError, match=r"endless\.mp4 answers one request with more than 200,000 bytes, the most that"
    ):
        fetch_source(f"{server.address}/endless.mp4")


def test_redirects_are_followed(server):
    server.location = f"{server.address}/honest.mp4"
    assert fetch_source(f"{server.address}/moved.mp4") == DATA


@pytest.fixture
def secure_server(server, tmp_path) -> Iterator[ThreadingHTTPServer]:
    """The same behind TLS, with a certificate that it has signed itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "both.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    secure = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    secure.num_sent = 0
    secure.address = f"https://127.0.0.1:{secure.server_port}"
    Thread(target=secure.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield secure
    secure.shutdown()
    secure.server_close()


def test_no_redirect_leads_from_https_to_http(server, secure_server, monkeypatch):
    async def open_without_verification(**options):
        return await http.open_http_session(connector=aiohttp.TCPConnector(ssl=False), **options)

    monkeypatch.setattr(fetch, "open_http_session", open_without_verification)
    secure_server.location = f"{secure_server.address}/honest.mp4"
    assert fetch_source(f"{secure_server.address}/moved.mp4") == DATA
    secure_server.location = f"{server.address}/honest.mp4"
    message = rf"{secure_server.address}/moved\.mp4 redirects to {server.address}/honest\.mp4, which is not encrypted"
    for source in (address := f"{secure_server.address}/moved.mp4", ShardMember(address, 0, 5, "a.mp4")):
        with pytest.raises(InputError, match=message):
            fetch_source(source)
    assert server.num_sent == 0


def test_every_http_address_is_read_through_this_session():
    for scheme in ("http", "https"):
        assert resolve_filesystem(f"{scheme}://host/a.mp4")[0].get_client is http.open_http_session
