"""What a benchmark ran on: processor, versions, and the commit of this package."""

import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import av

from vidstill.engine.distributed import cores
from vidstill.utils.files import version_of

_PACKAGES = ("vidstill", "av", "decord", "torchcodec", "torch", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where numbers come from.

    Args:
        cores: that this process may use.
        commit: of the checkout that the package runs from, with "and changes" where files differ from it; None if it
            runs from none.
    """

    cpu: str
    cores: int
    system: str
    versions: dict[str, str]
    commit: str | None


def this_machine() -> Machine:
    python = f"Python {platform.python_version()}"
    versions = {name: version for name in _PACKAGES if (version := version_of(name)) != "unknown"}
    return Machine(
        cpu=_cpu(),
        cores=cores(),
        system=f"{platform.system()} {platform.machine()}, {python}",
        versions=versions | {"FFmpeg of av": av.ffmpeg_version_info} | _ffmpeg_of_torchcodec(),
        commit=_commit(),
    )


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _ffmpeg_of_torchcodec() -> dict[str, str]:
    """It takes the system's."""
    try:
        from torchcodec._core import get_ffmpeg_library_versions

        return {"FFmpeg of torchcodec": str(get_ffmpeg_library_versions()["ffmpeg_version"])}
    except (ImportError, OSError, RuntimeError, KeyError):
        return {}


def _commit() -> str | None:
    here = Path(__file__)
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:  # another project's checkout, or none
        return None
    commit = _git(here, "rev-parse", "--short=10", "HEAD")
    return f"{commit} and changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else commit


def _git(file: Path, *words: str) -> str | None:
    """What git says in the file's folder; None if it refuses, or is not there."""
    try:
        return subprocess.run(
            ["git", *words], cwd=file.parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
