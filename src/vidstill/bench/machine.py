"""The machine of a benchmark: processor, package versions, and the commit of this package."""

import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import av

from vidstill.engine.distributed import count_cores
from vidstill.utils.files import get_package_version

_PACKAGES = ("vidstill", "av", "decord", "torchcodec", "torch", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class BenchmarkMachine:
    """The conditions of a measurement.

    Args:
        num_cores: Cores that this process may use.
        commit: Commit of the checkout that the package runs from, followed by "and changes" if files differ from it;
            None outside a checkout.
    """

    cpu: str
    num_cores: int
    system: str
    versions: dict[str, str]
    commit: str | None


def describe_machine() -> BenchmarkMachine:
    python = f"Python {platform.python_version()}"
    versions = {name: version for name in _PACKAGES if (version := get_package_version(name)) != "unknown"}
    return BenchmarkMachine(
        cpu=_read_cpu_name(),
        num_cores=count_cores(),
        system=f"{platform.system()} {platform.machine()}, {python}",
        versions=versions | {"FFmpeg of av": av.ffmpeg_version_info} | _get_torchcodec_ffmpeg_version(),
        commit=_read_commit(),
    )


def _read_cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def _get_torchcodec_ffmpeg_version() -> dict[str, str]:
    """Return the version of the system's FFmpeg, which torchcodec loads."""
    try:
        from torchcodec._core import get_ffmpeg_library_versions

        return {"FFmpeg of torchcodec": str(get_ffmpeg_library_versions()["ffmpeg_version"])}
    except (ImportError, OSError, RuntimeError, KeyError):
        return {}


def _read_commit() -> str | None:
    file = Path(__file__)
    if _run_git(file, "ls-files", "--error-unmatch", file.name) is None:  # another project's checkout, or none
        return None
    commit = _run_git(file, "rev-parse", "--short=10", "HEAD")
    return f"{commit} and changes" if _run_git(file, "status", "--porcelain", "--untracked-files=no") else commit


def _run_git(file: Path, *arguments: str) -> str | None:
    """Return git's output in the file's directory; None if git fails or is not installed."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=file.parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
