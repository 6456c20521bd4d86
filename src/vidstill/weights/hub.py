"""Models of the Hugging Face Hub: weights and their settings alone, in the Hub's own cache; never code."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vidstill.types import InputError

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
        raise _refusal(model, failure or error, offline=failure is None) from None
    return [str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]


def _file(model: HubModel, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    offline = _offline()
    try:
        return Path(hf_hub_download(model.name, name, revision=model.revision, local_files_only=offline, **_settings()))
    except Exception as error:
        raise _refusal(model, error, offline=offline) from None


def _refusal(model: HubModel, error: Exception, *, offline: bool) -> InputError:
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
