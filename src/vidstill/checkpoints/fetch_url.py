"""Download one URL with the client of huggingface_hub: bounded, resumed, on TLS to its end; and its errors."""

import io
from pathlib import Path
from typing import Any

from vidstill.data.storage.http import check_redirect
from vidstill.utils.files import PARTIAL_SUFFIX
from vidstill.utils.types import InputError

MAX_DOWNLOAD_BYTES = 2**35
"""The most that one URL may send, whatever its server states of its size: the largest checkpoints have a tenth."""

_HTML_STARTS = (b"<!doctype html", b"<html")


def download_url(url: str, path: Path) -> None:
    """Download a file; a connection that breaks is resumed a few times.

    Raises:
        InputError: It cannot be fetched, is a web page, or has more than `MAX_DOWNLOAD_BYTES`.
    """
    from huggingface_hub.file_download import http_get

    refuse_redirects_out_of_tls()
    try:
        with _LimitedWriter(io.FileIO(path, "wb")) as file:
            http_get(url, file, displayed_filename=path.name.removesuffix(PARTIAL_SUFFIX))
    except InputError:
        raise
    except _TooLarge:
        raise InputError(
            f"{url} sends more than {MAX_DOWNLOAD_BYTES:,} bytes, the most that is fetched; download it in another "
            "way, and give its path"
        ) from None
    except Exception as error:  # also those of the library that it downloads with
        if isinstance(error, OSError) and error.errno:
            raise  # the disk is full
        raise build_fetch_error(url, error) from None
    with path.open("rb") as file:
        if file.read(512).lstrip().lower().startswith(_HTML_STARTS):
            raise InputError(
                f"{url} gives a web page and no file; open it in a browser, download the file, and give its path"
            )


class _TooLarge(Exception):
    pass


class _LimitedWriter(io.BufferedWriter):
    """A file of at most `MAX_DOWNLOAD_BYTES`: a server may state no size, or send compressed what grows without end."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MAX_DOWNLOAD_BYTES:
            raise _TooLarge
        return super().write(data)


def refuse_redirects_out_of_tls() -> None:
    """Have the client of huggingface_hub, which fetches from URLs and the Hub, check each redirect."""
    from huggingface_hub.utils import get_session

    hooks = get_session().event_hooks
    if _check_response not in hooks["response"]:
        get_session().event_hooks = {**hooks, "response": [*hooks["response"], _check_response]}


def _check_response(response: Any) -> None:
    if response.is_redirect:
        check_redirect(str(response.request.url), response.headers.get("Location", ""))


def build_fetch_error(url: str, error: Exception, repo: str = "", revision: str | None = None) -> InputError:
    """Return the message for an exception of huggingface_hub, or of the library that it downloads with.

    Args:
        url: What was to be fetched.
        error: The exception.
        repo: The model of the Hub; "": none.
        revision: Of the model.
    """
    from huggingface_hub import errors

    hub_messages: dict[type[Exception], str] = {
        errors.GatedRepoError: f"{url} is only for those who accepted its terms; accept them at huggingface.co/{repo}, "
        "then run hf auth login",
        errors.RevisionNotFoundError: f"{url} is not there: {repo} has no revision {revision}; see its page",
        errors.RepositoryNotFoundError: f"the Hugging Face Hub has no model {repo}, or does not show it to you; check "
        "the name, or run hf auth login if it is yours",
        errors.HFValidationError: f"{repo!r} is no name of a model of the Hub; write hf://org/name",
    }
    if isinstance(error, errors.OfflineModeIsEnabled):
        return InputError(f"{url} was not fetched before, and HF_HUB_OFFLINE is set; unset it, or give a local file")
    if repo and (message := next((text for kind, text in hub_messages.items() if isinstance(error, kind)), None)):
        return InputError(message)
    match getattr(getattr(error, "response", None), "status_code", None):
        case None:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            mend = f"cannot be fetched ({reason}); connect to the network and try again, or give a local file"
        case (401 | 403) as status:
            mend = f"is not public ({status}); download it as its owner says, and give the file's path"
        case (404 | 410) as status:
            mend = f"is not there ({status}); see where its authors have it now"
        case status:
            mend = f"answers with an error ({status}); try again later, or give a local file"
    return InputError(f"{url} {mend}")
