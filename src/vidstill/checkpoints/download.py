"""Find the file of a checkpoint: a local path, a URL that is fetched once, or a model of the Hugging Face Hub."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from vidstill.checkpoints.fetch_url import build_fetch_error, download_url, refuse_redirects_out_of_tls
from vidstill.checkpoints.shipped import SHIPPED_SCHEME, find_shipped_weights
from vidstill.utils.checksums import DamagedFile, hash_file
from vidstill.utils.files import PARTIAL_SUFFIX, rename_durably
from vidstill.utils.types import InputError

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pyth")
HF_CONFIG_FILE = "config.json"  # beside transformers' weights
HF_PROCESSOR_FILE = "preprocessor_config.json"  # beside these, if any: size and colour normalization
INDEX_SUFFIX = ".index.json"

_HUB_SIDE_FILES = (HF_CONFIG_FILE, HF_PROCESSOR_FILE, "README.md")  # the model card states the licence
_WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # or an index of several files, with this name in front
_MAX_JSON_BYTES = 2**26


def fetch_checkpoint(source: str | Path, check_file: Callable[[Path, str], object]) -> Path:
    """Return the local file or directory of a source, which is fetched if it is not there.

    Args:
        source: As for `read_checkpoint`.
        check_file: Raises an InputError for a file without weights, given its path and what to call it; such a file
            does not enter the cache.

    Raises:
        InputError: There is nothing, or it cannot be fetched.
    """
    text = str(source)
    if re.match(r"https?://", text, re.IGNORECASE):
        return _fetch_url(text, check_file)
    if text.startswith("hf://"):
        return _fetch_from_hub(text)
    if text.startswith(SHIPPED_SCHEME):
        return find_shipped_weights(text)
    path = Path(source)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source} is neither a file nor a directory")
    if "://" in text:
        raise InputError(f"{source} has a scheme that is not supported; give https://… or hf://org/name")
    missing = f"there is no file or run {source}; give a run directory, a .safetensors or a .pth file"
    is_hub_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text)
    if not is_hub_name or text.endswith(CHECKPOINT_SUFFIXES) or path.parent.exists():
        raise InputError(f"{missing}, a URL (https://…), or a model of the Hugging Face Hub (hf://org/name)")
    try:
        return _fetch_from_hub(f"hf://{text}")
    except InputError as error:
        raise InputError(f"there is no file or run {source} here, and {error}") from None


def choose_checkpoint_file(names: Collection[str], source: str) -> str:
    """Return which file of a directory holds its weights, or is their index.

    Raises:
        InputError: None does, or several do.
    """
    for name in (f"{file}{suffix}" for file in _WEIGHTS_FILES for suffix in ("", INDEX_SUFFIX)):
        if name in names:
            return name
    others = sorted(name for name in names if name.endswith(CHECKPOINT_SUFFIXES) and "/" not in name)
    if len(others) == 1:
        return others[0]
    if others:
        raise InputError(
            f"{source} holds no {_WEIGHTS_FILES[0]}, but several checkpoints ({', '.join(others[:5])}); name one"
        )
    raise InputError(
        f"{source} holds no {_WEIGHTS_FILES[0]} or {_WEIGHTS_FILES[1]}: its run has not ended yet, or it is neither a "
        "run directory nor a model's"
    )


def read_shard_index(index: Path) -> dict[str, str]:
    """Return the file beside an index that holds each tensor.

    Raises:
        InputError: It is no index, or names other files.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} is no index of checkpoint files; fetch or write it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name) or not name.endswith(CHECKPOINT_SUFFIXES):
            raise InputError(f"{index} names {name!r}, which is no checkpoint beside it; fetch or write it again")
    return weight_map


def read_json_object(path: Path) -> dict[str, Any]:
    """
    Raises:
        InputError: It is no JSON object, or too large for one beside weights.
    """
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no readable JSON object; fetch or write it again")
    return content


def _fetch_url(url: str, check_file: Callable[[Path, str], object]) -> Path:
    """Return the cached file of a URL. It is complete or absent; processes that need it at once wait for the first."""
    from huggingface_hub.utils import WeakFileLock

    _check_url(url)
    plain, _ = urldefrag(url)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(urlsplit(plain).path).rpartition("/")[2]).lstrip(".")[-80:]
    cache = Path(os.environ.get("VIDSTILL_CACHE") or Path.home() / ".cache" / "vidstill" / "weights").expanduser()
    path = cache / f"{hashlib.sha256(plain.encode()).hexdigest()[:16]}-{name or 'weights'}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(cache / f".{path.name}.lock"):
            if path.is_file():
                _check_digest(path, url, f"; it was fetched earlier: delete {path} to fetch it again")
                return path
            partial_path = path.with_name(path.name + PARTIAL_SUFFIX)
            try:
                download_url(plain, partial_path)
                _check_digest(partial_path, url, "; it was deleted")
                check_file(partial_path, plain)
                rename_durably(partial_path, path)
            finally:
                partial_path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{cache} cannot be written ({error.strerror or error}); free disk space there, or set VIDSTILL_CACHE to "
            "another directory"
        ) from None
    return path


def _check_url(url: str) -> None:
    """Raises an InputError for a malformed URL or digest, and for a URL with a password, which is not repeated."""
    try:
        host = urlsplit(url).netloc
    except ValueError:
        host = ""
    plain, fragment = urldefrag(url) if host else (url, "")
    if "@" in host:
        raise InputError("a URL with a password in it is not fetched; download the file, and give its path")
    if not host or re.search(r"[\s\x00-\x1f]", url):
        raise InputError(f"{url!r} is no URL; give https://host/file.pth")
    if fragment and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}|md5=[0-9a-fA-F]{32}", fragment):
        raise InputError(f"{plain}#{fragment}: after # comes sha256= and 64 hexadecimal digits, or md5= and 32")


def _check_digest(path: Path, url: str, advice: str) -> None:
    """Raises an InputError where a file is not the one of the digest behind its URL."""
    plain, fragment = urldefrag(url)
    if fragment:
        kind, _, digits = fragment.partition("=")
        actual = hash_file(path, kind)
        if actual != digits.lower():
            raise DamagedFile(f"{plain} has the {kind} {actual} and not {digits.lower()}{advice}")


def _fetch_from_hub(url: str) -> Path:
    """Return the file of a model's weights, or their index, in the Hub's cache; config files and card are beside it.

    If the Hub cannot be reached, or HF_HUB_OFFLINE is set, what was fetched before is used.

    Args:
        url: `hf://org/name[@revision][/file]`; without a file, the one that holds the model's weights.

    Raises:
        InputError: There is no such model or file, it is not public, or it cannot be reached and was not fetched.
    """
    from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

    match = re.fullmatch(r"hf://(\w[\w.-]*/\w[\w.-]*?)(?:@(\w[\w.-]*))?(?:/(.*))?", url)
    filename = match[3] or "" if match else ""
    if not match or ".." in filename.split("/") or re.search(r"[\\\x00-\x1f]|//|^/", filename):
        raise InputError(f"{url!r} is no model of the Hub; write hf://org/name, hf://org/name@revision/file")
    repo, revision = match[1], match[2]
    endpoint, is_online = os.environ.get("HF_ENDPOINT"), True
    refuse_redirects_out_of_tls()
    try:
        try:
            info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, timeout=30)
            names = [each.rfilename for each in info.siblings or ()]
        except errors.HfHubHTTPError:
            raise
        except Exception as error:  # offline, or no network
            is_online = False
            try:
                directory = Path(snapshot_download(repo, revision=revision, local_files_only=True))
            except Exception:
                raise error from None
            names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
        main = filename or choose_checkpoint_file(names, url)
        if main not in names:
            raise InputError(f"{url} is not there; {repo} has {', '.join(sorted(names)[:8])}")
        download = partial(hf_hub_download, repo, revision=revision, endpoint=endpoint, local_files_only=not is_online)
        parent = PurePosixPath(main).parent
        for name in {str(parent / side_file) for side_file in _HUB_SIDE_FILES} & set(names):
            download(name)
        path = Path(download(main))
        for shard in set(read_shard_index(path).values()) if main.endswith(INDEX_SUFFIX) else ():
            if Path(download(str(parent / shard))).parent != path.parent:
                raise InputError(f"{url} was changed while it was fetched; run the same command again")
    except InputError:
        raise
    except Exception as error:  # the Hub's, and those of the library that it downloads with
        raise build_fetch_error(url, error, repo, revision) from None
    return path
