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

from vidstill.utils.files import HALF, version_of
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth")
CONFIG = "config.json"  # beside transformers' weights
PROCESSOR = "preprocessor_config.json"  # beside these, if any: which sizes and colours enter the model

_WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_PIECE = 2**20
_DIGITS = {"sha256": 64, "md5": 32}
_LARGEST_INDEX = 2**26


def local_path(source: str | Path, check: Callable[[Path, str], object]) -> Path:
    """The file, or the folder, here of what was given; fetched where it is not.

    Args:
        check: raises an InputError for a file that holds no weights; it is told the file and what to call it. What
            does not pass stays out of the cache.

    Raises:
        InputError: there is nothing there, or it cannot be fetched.
    """
    text = str(source)
    if re.match(r"https?://", text, re.IGNORECASE):
        return _fetched(text, check)
    if text.startswith("hf://"):
        return fetched_from_hub(hub_model(text), chosen, shard_names)
    path = Path(source)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source} is neither a file nor a folder")
    if "://" in text:
        raise InputError(f"{source} is an address of a kind that is not fetched; give https://… or hf://org/name")
    missing = f"there is no file or run {source}; give a run's folder, a .safetensors or a .pth file"
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) or text.endswith(SUFFIXES) or path.parent.exists():
        raise InputError(f"{missing}, an address (https://…), or a model of the Hugging Face Hub (hf://org/name)")
    try:
        return fetched_from_hub(hub_model(f"hf://{text}"), chosen, shard_names)
    except InputError as error:
        raise InputError(f"there is no file or run {source} here, and {error}") from None


def chosen(names: Collection[str], source: str) -> str:
    """Which of a folder's files holds its weights, or lists the files that do.

    Raises:
        InputError: none does, or several.
    """
    for name in _WHOLE:
        if name in names:
            return name
    others = sorted(name for name in names if name.endswith(SUFFIXES) and "/" not in name)
    if len(others) == 1:
        return others[0]
    if others:
        raise InputError(
            f"{source} holds no {_WHOLE[0]}, but several files of weights ({', '.join(others[:5])}); name one of them"
        )
    raise InputError(
        f"{source} holds no {_WHOLE[0]} or {_WHOLE[2]}: its run has not ended yet, or it is neither a run's folder nor "
        "a model's"
    )


def shard_names(index: Path) -> dict[str, str]:
    """In which of the files beside it an index says that each tensor is.

    Raises:
        InputError: it is no index, or names files elsewhere.
    """
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise InputError(f"{index} is no list of files of weights; fetch or write it again")
    for name in found.values():
        if not re.fullmatch(r"\w[\w.-]*", name) or not name.endswith(SUFFIXES):
            raise InputError(f"{index} names {name!r}, which is no file of weights beside it; fetch or write it again")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: it is no JSON object, or too large to be one that stands beside weights.
    """
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise ValueError
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError, RecursionError):
        pass
    raise InputError(f"{path} is no readable JSON object; fetch or write it again")


def _fetched(address: str, check: Callable[[Path, str], object]) -> Path:
    """The cache's file of an address; complete, or absent.

    It stands there by a hash of the address, and a name whose letters are harmless. A download that breaks off is gone
    on with, where the server says by a tag that the file is the same.
    """
    check_address(address)
    plain, fragment = urldefrag(address)
    wanted = _digest(plain, fragment)
    last = unquote(urlsplit(plain).path).rpartition("/")[2]
    harmless = re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip(".")[-80:] or "weights"
    path = _cache() / f"{hashlib.sha256(plain.encode()).hexdigest()[:16]}-{harmless}"
    try:
        with _alone(path) as first:
            if not first:
                _check_digest(path, wanted, plain, f"; it was fetched earlier: delete {path} to fetch it again")
                return path
            part = _download(plain, path)
            try:
                _check_digest(part, wanted, plain, "; nothing of it was kept")
                check(part, plain)
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


def _cache() -> Path:
    set_ = os.environ.get("VIDSTILL_CACHE")
    return Path(set_).expanduser() if set_ else Path.home() / ".cache" / "vidstill" / "weights"


def _digest(address: str, fragment: str) -> tuple[str, str] | None:
    if not fragment:
        return None
    kind, _, digits = fragment.partition("=")
    if kind not in _DIGITS or not re.fullmatch(rf"[0-9a-fA-F]{{{_DIGITS[kind]}}}", digits):
        raise InputError(f"{address}#{fragment}: what follows # is sha256= and 64 hexadecimal digits, or md5= and 32")
    return kind, digits.lower()


def _check_digest(path: Path, wanted: tuple[str, str] | None, address: str, then: str) -> None:
    if wanted is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, wanted[0]).hexdigest()
    if found != wanted[1]:
        raise InputError(f"{address} has the {wanted[0]} {found} and not {wanted[1]}{then}")


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether this process has to fetch a file, alone: others that need one wait meanwhile, and then find it."""
    if path.is_file():
        yield False
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield not path.is_file()


def _download(address: str, path: Path) -> Path:
    """The whole of what an address gives, in a file whose name says that it is not yet what it should be."""
    left = sorted(path.parent.glob(f"{path.name}.*{HALF}"))
    done = left[0].stat().st_size if left else 0
    answer = ask(address, done)
    if answer.status == 206 and (_part(path, answer) != left[0] or first_byte(answer) != done):  # of another file
        answer.close()
        answer = ask(address)
    with answer:
        done = done if answer.status == 206 else 0
        part = _part(path, answer)
        for old in left if not done else left[1:]:
            old.unlink()
        whole = whole_size(answer)
        free = shutil.disk_usage(path.parent).free
        if whole is not None and whole - done > free:
            raise InputError(
                f"{address} has {whole} bytes, and {path.parent} has room for {free}; make room there, or set "
                "VIDSTILL_CACHE to another folder"
            )
        try:
            done, broken = _written(answer, part, done, whole, path.name)
        except OSError:  # the disk is full
            part.unlink(missing_ok=True)
            raise
    if broken:
        goes_on = part.name != path.name + HALF
        if not goes_on:
            part.unlink(missing_ok=True)
        raise InputError(
            f"{address} broke off after {done} of {whole or 'unknown'} bytes ({broken}); type the same command again, "
            f"{'it goes on from there' if goes_on else 'it begins anew'}"
        )
    return part


def _written(answer: HTTPResponse, part: Path, done: int, whole: int | None, name: str) -> tuple[int, str]:
    """How many bytes there are then, and why there are no more, if there should be."""
    with part.open("ab" if done else "wb") as file, progress_bar(f"{name} (MB)") as told:
        while True:
            try:
                piece = answer.read(_PIECE)
            except (HTTPException, OSError) as error:
                return done, " ".join(str(error).split()) or type(error).__name__
            if not piece:
                return done, "" if whole in (None, done) else "it ended early"
            file.write(piece)
            done += len(piece)
            told(done / 1e6, (whole or done) / 1e6)


def _part(path: Path, answer: HTTPResponse) -> Path:
    """Is named by the tag that tells a file from a later one at its address; without one, it is not gone on with."""
    tag = answer.headers.get("ETag") or ""
    tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
    mark = hashlib.sha256(f"{tag} {whole_size(answer)}".encode()).hexdigest()[:12]
    return path.with_name(f"{path.name}.{mark}{HALF}" if tag else path.name + HALF)


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


_SETTINGS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")


_CARD = "README.md"  # which states the licence


_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class HubModel:
    """
    Args:
        name: `org/name`.
        revision: a branch, tag or commit; None: the usual one.
        file: of its files; "": the one that holds its weights.
    """

    name: str
    revision: str | None
    file: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.name}{revision}{'/' if self.file else ''}{self.file}"


def hub_model(address: str) -> HubModel:
    """What `hf://org/name[@revision][/file]` stands for.

    Raises:
        InputError: it is written otherwise.
    """
    found = re.fullmatch(r"hf://(\w[\w.-]*/\w[\w.-]*?)(?:@(\w[\w.-]*))?(?:/(.*))?", address)
    if not found or ".." in (found[3] or "").split("/") or re.search(r"[\\\x00-\x1f]|//|^/", found[3] or ""):
        raise InputError(f"{address!r} is no model of the Hub; write hf://org/name, hf://org/name@revision/file")
    return HubModel(found[1], found[2], found[3] or "")


def fetched_from_hub(
    model: HubModel,
    chosen: Callable[[Collection[str], str], str],
    shard_names: Callable[[Path], Mapping[str, str]],
) -> Path:
    """The file of a model's weights, or the list of its files, in the Hub's cache; beside it what says how it is used.

    Where the Hub cannot be reached, or HF_HUB_OFFLINE says so, what was fetched before is used.

    Args:
        chosen: which of several files.
        shard_names: what a list of files names.

    Raises:
        InputError: there is no such model or file, it is not given to everyone, or cannot be reached and is not here.
    """
    names = _names(model)
    wanted = model.file or chosen(names, str(model))
    if names and wanted not in names:
        raise InputError(f"{model} is not there; {model.name} has {', '.join(sorted(names)[:8])}")
    beside = PurePosixPath(wanted).parent
    for name in (str(beside / each) for each in (*_SETTINGS, _CARD)):
        if name in names:
            _file(model, name)
    path = _file(model, wanted)
    if wanted.endswith(".index.json"):
        for name in sorted(set(shard_names(path).values())):
            if _file(model, str(beside / name)).parent != path.parent:
                raise InputError(f"{model} was changed while it was fetched; type the same command again")
    return path


def _settings() -> dict[str, Any]:
    """As the environment has them now; the Hub's library looks once, when it is imported."""
    found = {"endpoint": os.environ.get("HF_ENDPOINT"), "cache_dir": os.environ.get("HF_HUB_CACHE")}
    return {word: value.rstrip("/") for word, value in found.items() if value}


def _offline() -> bool:
    return any(os.environ.get(word, "").upper() in ("1", "TRUE", "YES", "ON") for word in _OFFLINE)


def _names(model: HubModel) -> list[str]:
    """The model's files: the Hub's; where it cannot be asked, those that are here, if any are."""
    from huggingface_hub import HfApi

    failure: Exception | None = None
    if not _offline():
        try:
            info = HfApi(endpoint=_settings().get("endpoint")).model_info(
                model.name, revision=model.revision, timeout=30
            )
            return [each.rfilename for each in info.siblings or ()]
        except Exception as error:  # the Hub's own, and those of whichever library it talks through
            failure = error
    return _names_here(model, failure)


def _names_here(model: HubModel, failure: Exception | None) -> list[str]:
    from huggingface_hub import snapshot_download

    settings = {word: value for word, value in _settings().items() if word == "cache_dir"}
    try:
        folder = Path(
            snapshot_download(
                model.name, revision=model.revision, local_files_only=True, allow_patterns=[_SETTINGS[0]], **settings
            )
        )
    except Exception as error:
        raise _refusal_of_hub(model, failure or error, offline=failure is None) from None
    return [str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]


def _file(model: HubModel, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    offline = _offline()
    try:
        return Path(hf_hub_download(model.name, name, revision=model.revision, local_files_only=offline, **_settings()))
    except Exception as error:
        raise _refusal_of_hub(model, error, offline=offline) from None


def _refusal_of_hub(model: HubModel, error: Exception, *, offline: bool) -> InputError:
    from huggingface_hub import errors

    if offline:
        return InputError(
            f"{model} was not fetched before, and HF_HUB_OFFLINE says that the Hub is not to be asked; unset it, or "
            "give a file that is here"
        )
    if isinstance(error, errors.GatedRepoError):
        return InputError(
            f"{model} is given to those who accepted its terms; accept them at huggingface.co/{model.name}, then run "
            "hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{model} is not there: {model.name} has no revision {model.revision}; see its page")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"the Hugging Face Hub has no model {model.name}, or does not show it to you; mind the name, or run hf "
            "auth login if it is yours"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return InputError(f"{model} is not there: {model.name} has no such file; see its page")
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{model.name!r} is no name of a model of the Hub; write hf://org/name")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{model} cannot be fetched ({reason}); connect to the network and try again, or give a file that is here"
    )
