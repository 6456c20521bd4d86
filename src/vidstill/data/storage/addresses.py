"""The policy of reach: which addresses are read, and what the rows of a dataset may name. Nothing else decides it."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

SCHEMES = frozenset({"http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf"})
"""Schemes that are read. Others that fsspec knows reach local files, run commands, or chain one address to another."""

_MEND = "give a local path, or an address such as https://…, s3://…, gs://…, az://… or hf://…"


def parse_address(text: str) -> str:
    """Return a text that is an address which may be read: `scheme://`, a host or a bucket, and perhaps a path.

    Raises:
        InputError: It is none, it is chained to another address (`::`), or it has a scheme that is not in `SCHEMES`.
    """
    scheme, separator, rest = text.partition("://")
    if "::" in text:
        reason = "is chained to another address by `::`, which is not read"
    elif separator and scheme in ("file", "local"):
        reason = "names a file of this machine as an address, which is not read"
    elif not separator or scheme not in SCHEMES:
        reason = f"has the scheme {shorten(scheme)}, which is not read" if separator else "is no address"
    elif not rest.strip("/"):
        reason = "names no host or bucket"
    elif re.search(r"[\x00-\x1f\x7f]", rest):
        reason = "has control characters"
    else:
        return text
    raise InputError(f"{shorten(text)} {reason}; {_MEND}")


def check_listed_path(path: str, where: str, *, is_confined: bool) -> None:
    """Check what a row names before anything is looked up.

    A user's own local list may name absolute paths and addresses. A pack's index, and a list that lies behind an
    address, were written by others: they name what is below their own root.

    Args:
        path: A path or an address, as the row states it.
        where: The row, for the message: "line 3 of list.csv".
        is_confined: Whether the list has to stay inside its root.

    Raises:
        InputError: It may not be named.
    """
    if not is_confined:
        if "://" in path:
            try:
                parse_address(path)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        return
    if "://" in path or "::" in path:
        reason = "an address"
    elif path.startswith("/"):
        reason = "an absolute path"
    elif (".." in path or "%" in path) and ".." in re.split(r"[/\\]", unquote(path)):
        reason = "a path with `..`"
    else:
        return
    raise InputError(
        f"{where} names {shorten(path)}, {reason}; a pack's index.jsonl, and a list behind an address, name only what "
        "is below their own directory (a local list of another name may name any file)"
    )


def leads_outside(path: str | Path, root: str | Path) -> bool:
    """Return whether a local path, with all links followed, is not below a directory."""
    real_path, real_root = os.path.realpath(path), os.path.realpath(root)
    return os.path.commonpath((real_path, real_root)) != real_root


def check_inside(path: str | Path, root: str | Path) -> None:
    """Raise an InputError if a file, or a file of a directory of frames, is a link that leads out of `root`."""
    files = sorted(entry.path for entry in os.scandir(path) if entry.is_symlink()) if os.path.isdir(path) else []
    for each in (path, *files):
        if leads_outside(each, root):
            raise InputError(
                f"{each} leads out of {root} by a link, and packs stay inside their own directory; copy the pack with "
                "`cp -rL`, which replaces links by their files"
            )
