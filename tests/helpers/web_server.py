"""A web server on this machine for tests: plain files, files of a Hub's model, and every way to be a bad server."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Site:
    files: dict[str, bytes] = field(default_factory=dict)  # by path
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)  # of the Hub: the files of each `org/name`
    gated: set[str] = field(default_factory=set)  # models whose files nobody gets
    cut: int | None = None  # bytes of a file after which the connection ends
    headers: dict[str, str | None] = field(default_factory=dict)  # replace those of files; None leaves one out
    moved: dict[str, str] = field(default_factory=dict)  # paths that lead elsewhere
    failing: dict[str, int] = field(default_factory=dict)  # paths that answer with an error
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path and range
    address: str = ""


Answer = tuple[int, bytes, dict[str, str | None]]
"""Status, body and headers."""


def answer_model(site: Site, name: str, rest: list[str]) -> Answer:
    """Answer as the Hub does for what it knows of a model."""
    if name not in site.models:
        return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
    if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
        return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
    metadata = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": each} for each in site.models[name]]}
    return 200, json.dumps(metadata).encode(), {"Content-Type": "application/json"}


def answer_model_file(site: Site, name: str, revision: str, file: str) -> Answer:
    if name in site.gated:
        return 403, b"", {"X-Error-Code": "GatedRepo"}
    if revision not in ("main", COMMIT):
        return 404, b"", {"X-Error-Code": "RevisionNotFound"}
    if file not in site.models.get(name, {}):
        return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
    content = site.models[name][file]
    return 200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}


def answer_file(site: Site, content: bytes, start: int) -> Answer:
    if start >= len(content) > 0:
        return 416, b"", {}
    headers: dict[str, str | None] = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', **site.headers}
    if not start or not headers["ETag"]:
        return 200, content, headers
    return 206, content[start:], {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}


class QuietHandler(BaseHTTPRequestHandler):
    """Prints nothing, and answers HEAD by the headers of GET."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()


@contextmanager
def served(site: Site) -> Iterator[Site]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            site.requests.append((self.command, path, self.headers.get("Range", "")))
            status, body, headers = self.answer(path, path.strip("/").split("/"))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: site.cut])

        def answer(self, path: str, parts: list[str]) -> Answer:
            if path in site.failing:
                return site.failing[path], b"", {}
            if path in site.moved:
                return 302, b"", {"Location": site.moved[path]}
            if parts[:2] == ["api", "models"]:
                return answer_model(site, "/".join(parts[2:4]), parts[4:])
            if len(parts) > 4 and parts[2] == "resolve":
                return answer_model_file(site, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            if path in site.files:
                return answer_file(site, site.files[path], int(self.headers.get("Range", "bytes=0-")[6:-1]))
            return 404, b"not here", {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
