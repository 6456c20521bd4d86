"""One request for a file to a web server: redirects are followed, and every refusal is one sentence."""

import re
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from vidstill.folder import version_of
from vidstill.types import InputError

_SECONDS = 30  # without a byte


def ask(address: str, start: int = 0) -> HTTPResponse:
    """The answer to a request for a file, from one of its bytes on if the server can do that (status 206).

    Raises:
        InputError: there is no answer, or another one than a file.
    """
    wanted = request.Request(address, headers={"User-Agent": f"vidstill/{version_of('vidstill')}"})
    if start:
        wanted.add_header("Range", f"bytes={start}-")
    opener = request.OpenerDirector()  # without those for ftp:// and file://
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        _Redirect,
    ):
        opener.add_handler(handler())
    try:
        answer: HTTPResponse = opener.open(wanted, timeout=_SECONDS)
    except InputError:
        raise
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # what is here is as long as the file, or longer
            return ask(address)
        raise InputError(_refusal(address, error.code)) from None
    except (HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise InputError(
            f"{address} cannot be reached ({_one_line(reason)}) and was not fetched before; connect to the network, or "
            "give a file that is here"
        ) from None
    if "html" in answer.headers.get("Content-Type", ""):
        answer.close()
        raise InputError(
            f"{address} gives a web page and no file; open it in a browser, download the file, and give its path"
        )
    return answer


def whole_size(answer: HTTPResponse) -> int | None:
    """How many bytes the file has, also where only its end is sent; None: that is not said."""
    if answer.status == 206:
        found = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,18}", length) else None


def first_byte(answer: HTTPResponse) -> int:
    """Where in its file a part begins."""
    found = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else 0


def check_address(address: str) -> None:
    """Raises an InputError where it cannot be asked for, or holds a password, which is not repeated then."""
    try:
        host = urlsplit(address).netloc
    except ValueError:
        host = ""
    if "@" in host:
        raise InputError("an address with a password in it is not fetched; download the file, and give its path")
    if not host or re.search(r"[\s\x00-\x1f]", address):
        raise InputError(f"{address!r} is no address; give https://host/file.pth")


class _Redirect(request.HTTPRedirectHandler):
    def redirect_request(self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.lower().startswith("https://"):
            raise InputError(
                f"{req.full_url} leads to {newurl}, which is not safe from changes on the way; give a file"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refusal(address: str, code: int) -> str:
    if code in (401, 403):
        return f"{address} is not given to everyone ({code}); download it as its owner says, and give the file's path"
    if code in (404, 410):
        return f"{address} is not there ({code}); see where its authors have it now"
    return f"{address} answers with an error ({code}); try again later, or give a file that is here"


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
