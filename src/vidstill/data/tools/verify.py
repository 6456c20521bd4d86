"""Verify a dataset: packs by their list of checksums, scanned videos by the list of the scan."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vidstill.data.manifest.made import check_has_files
from vidstill.data.manifest.open import open_split_manifests
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, VideoSource, fetch_source, format_error, source_name
from vidstill.data.tools.probe import hash_source
from vidstill.data.tools.scan import MANIFEST_SUFFIX, get_manifest_path, make_key, read_scan_checksums
from vidstill.utils.checksums import CHECKSUMS_FILE, VerificationReport, read_checksums, verify_directory
from vidstill.utils.types import InputError


def verify_dataset(
    data: PathOrUrl, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> VerificationReport:
    """Compare the files of packs, and all files of a scanned dataset, with their SHA-256; nothing is changed.

    Args:
        data: Packs, a dataset with the list of a scan beside it, or such a list.
        progress: Called with the number of files that are verified, and of all files.

    Raises:
        InputError: It has no checksums.
        StorageUnreachable: A URL does not answer.
    """
    check_has_files(data)
    directory = data if isinstance(data, Path) and (data / CHECKSUMS_FILE).is_file() else None
    scan = _find_scan(data)
    if not (directory or scan):
        raise InputError(f"{data} has no checksums; make them: vidstill data scan {data}")
    sources = _list_scanned_sources(scan) if scan else []
    listed = {directory / name for name in read_checksums(directory)} if directory else set()
    num_files = num_bytes = 0
    problems = []
    for size, problem in _iter_results(directory, sources):
        num_files, num_bytes = num_files + 1, num_bytes + size
        problems += [problem] if problem else []
        progress(num_files, len(listed) + len(sources))
    others = (path for path in directory.rglob("[!.]*") if path.is_file()) if directory and not sources else ()
    unverified = sorted(str(path) for path in others if path not in listed and path.name != CHECKSUMS_FILE)
    return VerificationReport(
        num_files=num_files, num_bytes=num_bytes, problems=tuple(problems), unverified=tuple(unverified)
    )


def _find_scan(data: PathOrUrl) -> Path | None:
    if isinstance(data, str):
        return None
    path = data if data.name.endswith(MANIFEST_SUFFIX) else get_manifest_path(data)
    return path if path.is_file() else None


def _list_scanned_sources(scan: Path) -> list[tuple[VideoSource, str]]:
    """Return the source and the SHA-256 of each file that a scan could read."""
    digests, sources = read_scan_checksums(scan), dict[object, tuple[VideoSource, str]]()
    for manifest in open_split_manifests(scan).values():
        for row in manifest.rows:
            key = make_key(row.source, Path(os.path.abspath(scan)).parent)
            if key in digests:
                sources[key] = row.source, digests[key]
    return list(sources.values())


def _iter_results(directory: Path | None, sources: list[tuple[VideoSource, str]]) -> Iterator[tuple[int, str]]:
    """Yield the size of each file, and what is wrong with it."""
    for path, problem in verify_directory(directory) if directory else ():
        yield path.stat().st_size if path.is_file() else 0, problem
    for source, expected in sources:
        name = source_name(source)
        try:
            actual, size = hash_source(fetch_source(source))
        except BrokenVideo as error:
            yield 0, str(error)
        except OSError as error:
            yield 0, f"{name} cannot be read: {format_error(error)}"
        else:
            yield size, "" if actual == expected else f"{name} has changed since the scan: its SHA-256 is another one"
