"""Where weights come from: a file or a folder here, an address that is fetched once, or the Hugging Face Hub."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urldefrag, urlsplit

from vidstill.utils.files import PARTIAL_SUFFIX, get_package_version
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth")
HF_CONFIG_FILE = "config.json"  # beside transformers' weights
HF_PROCESSOR_FILE = "preprocessor_config.json"  # beside these, if any: which sizes and colours enter the model

_DEFAULT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_CHUNK_BYTES = 2**20
_DIGEST_LENGTHS = {"sha256": 64, "md5": 32}
_MAX_JSON_BYTES = 2**26


def fetch_checkpoint(source: str | Path, check_file: Callable[[Path, str], object]) -> Path:
    """The file, or the folder, here of what was given; fetched where it is not.

    Args:
        check_file: raises an InputError for a file that holds no weights; it is told the file and what to call it. What
            does not pass stays out of the cache.

    Raises:
        InputError: there is nothing there, or it cannot be fetched.
    """
    text = str(source)
    if re.match(r"https?://", text, re.IGNORECASE):
        return _fetch_url(text, check_file)
    if text.startswith("hf://"):
        return fetch_from_hub(parse_hub_model(text), choose_checkpoint_file, read_shard_index)
    path = Path(source)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source} is neither a file nor a folder")
    if "://" in text:
        raise InputError(f"{source} is an address of a kind that is not fetched; give https://… or hf://org/name")
    missing = f"there is no file or run {source}; give a run's folder, a .safetensors or a .pth file"
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) or text.endswith(CHECKPOINT_SUFFIXES) or path.parent.exists():
        raise InputError(f"{missing}, an address (https://…), or a model of the Hugging Face Hub (hf://org/name)")
    try:
        return fetch_from_hub(parse_hub_model(f"hf://{text}"), choose_checkpoint_file, read_shard_index)
    except InputError as error:
        raise InputError(f"there is no file or run {source} here, and {error}") from None


def choose_checkpoint_file(names: Collection[str], source: str) -> str:
    """Which of a folder's files holds its weights, or lists the files that do.

    Raises:
        InputError: none does, or several.
    """
    for name in _DEFAULT_FILES:
        if name in names:
            return name
    others = sorted(name for name in names if name.endswith(CHECKPOINT_SUFFIXES) and "/" not in name)
    if len(others) == 1:
        return others[0]
    if others:
        raise InputError(
            f"{source} holds no {_DEFAULT_FILES[0]}, but several files of weights ({', '.join(others[:5])}); name one of them"
        )
    raise InputError(
        f"{source} holds no {_DEFAULT_FILES[0]} or {_DEFAULT_FILES[2]}: its run has not ended yet, or it is neither a run's folder nor "
        "a model's"
    )


def read_shard_index(index: Path) -> dict[str, str]:
    """In which of the files beside it an index says that each tensor is.

    Raises:
        InputError: it is no index, or names files elsewhere.
    """
    found = read_json_object(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise InputError(f"{index} is no list of files of weights; fetch or write it again")
    for name in found.values():
        if not re.fullmatch(r"\w[\w.-]*", name) or not name.endswith(CHECKPOINT_SUFFIXES):
            raise InputError(f"{index} names {name!r}, which is no file of weights beside it; fetch or write it again")
    return found


def read_json_object(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: it is no JSON object, or too large to be one that stands beside weights.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError, RecursionError):
        pass
    raise InputError(f"{path} is no readable JSON object; fetch or write it again")


def _fetch_url(url: str, check_file: Callable[[Path, str], object]) -> Path:
    """The cache's file of an address; complete, or absent.

    It stands there by a hash of the address, and a name whose letters are harmless. A download that breaks off is gone
    on with, where the server says by a tag that the file is the same.
    """
    check_url(url)
    plain, fragment = urldefrag(url)
    wanted = _parse_digest(plain, fragment)
    last = unquote(urlsplit(plain).path).rpartition("/")[2]
    harmless = re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip(".")[-80:] or "weights"
    path = _get_cache_dir() / f"{hashlib.sha256(plain.encode()).hexdigest()[:16]}-{harmless}"
    try:
        with _lock_download(path) as first:
            if not first:
                _check_digest(path, wanted, plain, f"; it was fetched earlier: delete {path} to fetch it again")
                return path
            part = _download(plain, path)
            try:
                _check_digest(part, wanted, plain, "; nothing of it was kept")
                check_file(part, plain)
            except InputError:
                part.unlink()
                raise
            os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written ({error.strerror or error}); make room there, or set VIDSTILL_CACHE to "
            "another folder"
        ) from None
    return path


def _get_cache_dir() -> Path:
    set_ = os.environ.get("VIDSTILL_CACHE")
    return Path(set_).expanduser() if set_ else Path.home() / ".cache" / "vidstill" / "weights"


def _parse_digest(url: str, fragment: str) -> tuple[str, str] | None:
    if not fragment:
        return None
    kind, _, digits = fragment.partition("=")
    if kind not in _DIGEST_LENGTHS or not re.fullmatch(rf"[0-9a-fA-F]{{{_DIGEST_LENGTHS[kind]}}}", digits):
        raise InputError(f"{url}#{fragment}: what follows # is sha256= and 64 hexadecimal digits, or md5= and 32")
    return kind, digits.lower()


def _check_digest(path: Path, expected_digest: tuple[str, str] | None, url: str, advice: str) -> None:
    if expected_digest is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, expected_digest[0]).hexdigest()
    if found != expected_digest[1]:
        raise InputError(f"{url} has the {expected_digest[0]} {found} and not {expected_digest[1]}{advice}")


@contextmanager
def _lock_download(path: Path) -> Iterator[bool]:
    """Whether this process has to fetch a file, alone: others that need one wait meanwhile, and then find it."""
    if path.is_file():
        yield False
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield not path.is_file()


def _download(url: str, path: Path) -> Path:
    """The whole of what an address gives, in a file whose name says that it is not yet what it should be."""
    left = sorted(path.parent.glob(f"{path.name}.*{PARTIAL_SUFFIX}"))
    done = left[0].stat().st_size if left else 0
    answer = request_file(url, done)
    if answer.status == 206 and (
        _get_partial_path(path, answer) != left[0] or parse_start_byte(answer) != done
    ):  # of another file
        answer.close()
        answer = request_file(url)
    with answer:
        done = done if answer.status == 206 else 0
        part = _get_partial_path(path, answer)
        for old in left if not done else left[1:]:
            old.unlink()
        whole = parse_total_size(answer)
        free = shutil.disk_usage(path.parent).free
        if whole is not None and whole - done > free:
            raise InputError(
                f"{url} has {whole} bytes, and {path.parent} has room for {free}; make room there, or set "
                "VIDSTILL_CACHE to another folder"
            )
        try:
            done, broken = _write_response(answer, part, done, whole, path.name)
        except OSError:  # the disk is full
            part.unlink(missing_ok=True)
            raise
    if broken:
        goes_on = part.name != path.name + PARTIAL_SUFFIX
        if not goes_on:
            part.unlink(missing_ok=True)
        raise InputError(
            f"{url} broke off after {done} of {whole or 'unknown'} bytes ({broken}); type the same command again, "
            f"{'it goes on from there' if goes_on else 'it begins anew'}"
        )
    return part


def _write_response(
    response: HTTPResponse, partial_path: Path, num_bytes: int, total_bytes: int | None, name: str
) -> tuple[int, str]:
    """How many bytes there are then, and why there are no more, if there should be."""
    with partial_path.open("ab" if num_bytes else "wb") as file, show_progress_bar(f"{name} (MB)") as told:
        while True:
            try:
                piece = response.read(_CHUNK_BYTES)
            except (HTTPException, OSError) as error:
                return num_bytes, " ".join(str(error).split()) or type(error).__name__
            if not piece:
                return num_bytes, "" if total_bytes in (None, num_bytes) else "it ended early"
            file.write(piece)
            num_bytes += len(piece)
            told(num_bytes / 1e6, (total_bytes or num_bytes) / 1e6)


def _get_partial_path(path: Path, response: HTTPResponse) -> Path:
    """Is named by the tag that tells a file from a later one at its address; without one, it is not gone on with."""
    tag = response.headers.get("ETag") or ""
    tag = response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
    mark = hashlib.sha256(f"{tag} {parse_total_size(response)}".encode()).hexdigest()[:12]
    return path.with_name(f"{path.name}.{mark}{PARTIAL_SUFFIX}" if tag else path.name + PARTIAL_SUFFIX)


_TIMEOUT_SECONDS = 30  # without a byte


def request_file(url: str, start_byte: int = 0) -> HTTPResponse:
    """The answer to a request for a file, from one of its bytes on if the server can do that (status 206).

    Raises:
        InputError: there is no answer, or another one than a file.
    """
    wanted = request.Request(url, headers={"User-Agent": f"vidstill/{get_package_version('vidstill')}"})
    if start_byte:
        wanted.add_header("Range", f"bytes={start_byte}-")
    opener = request.OpenerDirector()  # without those for ftp:// and file://
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        _SecureRedirectHandler,
    ):
        opener.add_handler(handler())
    try:
        answer: HTTPResponse = opener.open(wanted, timeout=_TIMEOUT_SECONDS)
    except InputError:
        raise
    except HTTPError as error:
        error.close()
        if start_byte and error.code == 416:  # what is here is as long as the file, or longer
            return request_file(url)
        raise InputError(_format_http_error(url, error.code)) from None
    except (HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise InputError(
            f"{url} cannot be reached ({_format_reason(reason)}) and was not fetched before; connect to the network, or "
            "give a file that is here"
        ) from None
    if "html" in answer.headers.get("Content-Type", ""):
        answer.close()
        raise InputError(
            f"{url} gives a web page and no file; open it in a browser, download the file, and give its path"
        )
    return answer


def parse_total_size(response: HTTPResponse) -> int | None:
    """How many bytes the file has, also where only its end is sent; None: that is not said."""
    if response.status == 206:
        found = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,18}", length) else None


def parse_start_byte(response: HTTPResponse) -> int:
    """Where in its file a part begins."""
    found = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else 0


def check_url(url: str) -> None:
    """Raises an InputError where it cannot be asked for, or holds a password, which is not repeated then."""
    try:
        host = urlsplit(url).netloc
    except ValueError:
        host = ""
    if "@" in host:
        raise InputError("an address with a password in it is not fetched; download the file, and give its path")
    if not host or re.search(r"[\s\x00-\x1f]", url):
        raise InputError(f"{url!r} is no address; give https://host/file.pth")


class _SecureRedirectHandler(request.HTTPRedirectHandler):
    def redirect_request(self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.lower().startswith("https://"):
            raise InputError(
                f"{req.full_url} leads to {newurl}, which is not safe from changes on the way; give a file"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _format_http_error(url: str, status: int) -> str:
    if status in (401, 403):
        return f"{url} is not given to everyone ({status}); download it as its owner says, and give the file's path"
    if status in (404, 410):
        return f"{url} is not there ({status}); see where its authors have it now"
    return f"{url} answers with an error ({status}); try again later, or give a file that is here"


def _format_reason(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__


_HUB_CONFIG_FILES = (
    "config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)


_MODEL_CARD = "README.md"  # which states the licence


_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class HubModel:
    """
    Args:
        repo_id: `org/name`.
        revision: a branch, tag or commit; None: the usual one.
        filename: of its files; "": the one that holds its weights.
    """

    repo_id: str
    revision: str | None
    filename: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo_id}{revision}{'/' if self.filename else ''}{self.filename}"


def parse_hub_model(url: str) -> HubModel:
    """What `hf://org/name[@revision][/file]` stands for.

    Raises:
        InputError: it is written otherwise.
    """
    found = re.fullmatch(r"hf://(\w[\w.-]*/\w[\w.-]*?)(?:@(\w[\w.-]*))?(?:/(.*))?", url)
    if not found or ".." in (found[3] or "").split("/") or re.search(r"[\\\x00-\x1f]|//|^/", found[3] or ""):
        raise InputError(f"{url!r} is no model of the Hub; write hf://org/name, hf://org/name@revision/file")
    return HubModel(found[1], found[2], found[3] or "")


def fetch_from_hub(
    model: HubModel,
    choose_file: Callable[[Collection[str], str], str],
    read_index: Callable[[Path], Mapping[str, str]],
) -> Path:
    """The file of a model's weights, or the list of its files, in the Hub's cache; beside it what says how it is used.

    Where the Hub cannot be reached, or HF_HUB_OFFLINE says so, what was fetched before is used.

    Args:
        choose_file: which of several files.
        read_index: what a list of files names.

    Raises:
        InputError: there is no such model or file, it is not given to everyone, or cannot be reached and is not here.
    """
    names = _list_hub_files(model)
    wanted = model.filename or choose_file(names, str(model))
    if names and wanted not in names:
        raise InputError(f"{model} is not there; {model.repo_id} has {', '.join(sorted(names)[:8])}")
    beside = PurePosixPath(wanted).parent
    for name in (str(beside / each) for each in (*_HUB_CONFIG_FILES, _MODEL_CARD)):
        if name in names:
            _fetch_hub_file(model, name)
    path = _fetch_hub_file(model, wanted)
    if wanted.endswith(".index.json"):
        for name in sorted(set(read_index(path).values())):
            if _fetch_hub_file(model, str(beside / name)).parent != path.parent:
                raise InputError(f"{model} was changed while it was fetched; type the same command again")
    return path


def _read_hub_settings() -> dict[str, Any]:
    """As the environment has them now; the Hub's library looks once, when it is imported."""
    found = {"endpoint": os.environ.get("HF_ENDPOINT"), "cache_dir": os.environ.get("HF_HUB_CACHE")}
    return {word: value.rstrip("/") for word, value in found.items() if value}


def _is_offline() -> bool:
    return any(os.environ.get(word, "").upper() in ("1", "TRUE", "YES", "ON") for word in _OFFLINE_VARIABLES)


def _list_hub_files(model: HubModel) -> list[str]:
    """The model's files: the Hub's; where it cannot be asked, those that are here, if any are."""
    from huggingface_hub import HfApi

    failure: Exception | None = None
    if not _is_offline():
        try:
            info = HfApi(endpoint=_read_hub_settings().get("endpoint")).model_info(
                model.repo_id, revision=model.revision, timeout=30
            )
            return [each.rfilename for each in info.siblings or ()]
        except Exception as error:  # the Hub's own, and those of whichever library it talks through
            failure = error
    return _list_cached_hub_files(model, failure)


def _list_cached_hub_files(model: HubModel, failure: Exception | None) -> list[str]:
    from huggingface_hub import snapshot_download

    settings = {word: value for word, value in _read_hub_settings().items() if word == "cache_dir"}
    try:
        folder = Path(
            snapshot_download(
                model.repo_id,
                revision=model.revision,
                local_files_only=True,
                allow_patterns=[_HUB_CONFIG_FILES[0]],
                **settings,
            )
        )
    except Exception as error:
        raise _build_hub_error(model, failure or error, offline=failure is None) from None
    return [str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]


def _fetch_hub_file(model: HubModel, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    offline = _is_offline()
    try:
        return Path(
            hf_hub_download(
                model.repo_id, name, revision=model.revision, local_files_only=offline, **_read_hub_settings()
            )
        )
    except Exception as error:
        raise _build_hub_error(model, error, offline=offline) from None


def _build_hub_error(model: HubModel, error: Exception, *, offline: bool) -> InputError:
    from huggingface_hub import errors

    if offline:
        return InputError(
            f"{model} was not fetched before, and HF_HUB_OFFLINE says that the Hub is not to be asked; unset it, or "
            "give a file that is here"
        )
    if isinstance(error, errors.GatedRepoError):
        return InputError(
            f"{model} is given to those who accepted its terms; accept them at huggingface.co/{model.repo_id}, then run "
            "hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{model} is not there: {model.repo_id} has no revision {model.revision}; see its page")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"the Hugging Face Hub has no model {model.repo_id}, or does not show it to you; mind the name, or run hf "
            "auth login if it is yours"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return InputError(f"{model} is not there: {model.repo_id} has no such file; see its page")
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{model.repo_id!r} is no name of a model of the Hub; write hf://org/name")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{model} cannot be fetched ({reason}); connect to the network and try again, or give a file that is here"
    )
