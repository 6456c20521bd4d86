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
    """The conditions of a measurement."""

    cpu: str
    num_cores: int  # that this process may use
    system: str
    versions: dict[str, str]
    commit: (
        str | None
    )  # of the checkout that the package runs from, with "and changes" if files differ; None: no checkout


def describe_machine() -> BenchmarkMachine:
    versions = {name: version for name in _PACKAGES if (version := get_package_version(name)) != "unknown"}
    return BenchmarkMachine(
        cpu=_read_cpu_name(),
        num_cores=count_cores(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
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
    tracked = ["ls-files", "--error-unmatch", file.name]  # fails in another project's checkout
    commit = ["describe", "--always", "--exclude=*", "--abbrev=10", "--dirty= and changes"]
    output = None
    for command in (tracked, commit):
        try:
            result = subprocess.run(["git", *command], cwd=file.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # no checkout, or git is not installed
            return None
        output = result.stdout.strip()
    return output
