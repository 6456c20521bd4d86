"""The HTTP session of fsspec with two limits: no redirect leaves TLS, and an answer has a largest size."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from vidstill.utils.types import InputError

if TYPE_CHECKING:
    import aiohttp

MAX_RESPONSE_BYTES = 2**26
"""The most that one answer may hold: a block of a file, or a page that lists a directory."""


def check_redirect(url: str, location: str) -> None:
    """Raise an InputError for a redirect from https to http: from there on anybody on the way could change the file."""
    target = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        raise InputError(f"{url} redirects to {target}, which is not encrypted; give that address if you trust it")


async def open_http_session(**options: Any) -> "aiohttp.ClientSession":
    """Open a session for fsspec, as its `get_client` does."""
    import aiohttp  # a part of fsspec's support for HTTP, and loaded by it

    class LimitedResponse(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                chunks, size = list[bytes](), 0
                async for chunk in self.content.iter_chunked(2**16):
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > MAX_RESPONSE_BYTES:
                        self.close()
                        raise InputError(
                            f"{self.url} answers one request with more than {MAX_RESPONSE_BYTES:,} bytes, the most "
                            "that is read; copy the data to a disk"
                        )
                self._body = b"".join(chunks)
            return self._body

    async def check(session: Any, context: Any, parameters: aiohttp.TraceRequestRedirectParams) -> None:
        answer = parameters.response
        check_redirect(str(answer.url), answer.headers.get("Location", ""))

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    return aiohttp.ClientSession(response_class=LimitedResponse, trace_configs=[trace], **options)
