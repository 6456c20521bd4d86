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
    """
    Attributes:
        files: what is given at each path.
        models: of the Hub: the files of each `org/name`.
        gated: models whose files are given to nobody.
        cut: so many bytes of a file are sent, and then the connection ends.
        headers: that replace those of the answers to files; None leaves one out.
        moved: paths that lead elsewhere.
        failing: paths that answer with an error.
        asked: each request: what, where, from which byte.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""


@contextmanager
def served(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = urlsplit(self.path).path
            site.requests.append((self.command, path, self.headers.get("Range", "")))
            parts = path.strip("/").split("/")
            if path in site.failing:
                self._send(site.failing[path], b"", {}, with_body)
            elif path in site.moved:
                self._send(302, b"", {"Location": site.moved[path]}, with_body)
            elif parts[:2] == ["api", "models"]:
                self._model("/".join(parts[2:4]), parts[4:], with_body)
            elif len(parts) > 4 and parts[2] == "resolve":
                self._of_model("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)
            elif path in site.files:
                self._file(site.files[path], with_body)
            else:
                self._send(404, b"not here", {}, with_body)

        def _model(self, name: str, rest: list[str], with_body: bool) -> None:
            if name not in site.models:
                self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
            elif rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)
            else:
                metadata = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": each} for each in site.models[name]]}
                self._send(200, json.dumps(metadata).encode(), {"Content-Type": "application/json"}, with_body)

        def _of_model(self, name: str, revision: str, file: str, with_body: bool) -> None:
            if name in site.gated:
                self._send(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
            elif revision not in ("main", COMMIT):
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
            elif file not in site.models.get(name, {}):
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
            else:
                content = site.models[name][file]
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": tag}, with_body)

        def _file(self, content: bytes, with_body: bool) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            if start >= len(content) > 0:
                self._send(416, b"", {}, with_body)
                return
            headers: dict[str, str | None] = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', **site.headers}
            if start and headers["ETag"]:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._send(206, content[start:], headers, with_body)
            else:
                self._send(200, content, headers, with_body)

        def _send(self, status: int, body: bytes, headers: dict[str, str | None], with_body: bool) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body[: site.cut])

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
