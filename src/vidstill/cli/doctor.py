"""`vidstill doctor`: devices, precision, decoders, disk space and versions of this machine, and its problems."""

import json as jsons
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, Literal

import av
import torch
from packaging.requirements import Requirement

from vidstill.cli.options import Json
from vidstill.engine.cpu import count_cores, describe_overload, find_bf16_flags
from vidstill.engine.distributed import Runtime
from vidstill.engine.memory import count_total_memory
from vidstill.utils.terminal import echo, flatten_dict, format_key_values

_PACKAGES = ("vidstill", "torch", "torchvision", "accelerate", "av", "numpy")
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")  # of the field's data sets
_ENCODER = "libx264"  # of `vidstill data make`
_GIB = 2**30


def collect_system_info() -> dict[str, Any]:
    """Return what a run would find on this machine."""
    runtime = Runtime("auto")
    encoders = {_ENCODER: _has_codec(_ENCODER, "w")}
    decoders = {name: _has_codec(name, "r") for name in _DECODERS}
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    problems = [
        f"PyAV's FFmpeg has no {name}; install PyAV's own wheel: pip install av"
        for name, is_available in (encoders | decoders).items()
        if not is_available
    ]
    if free < 1:
        problems.append(f"only {free:.1f} GiB are free in {Path.cwd()}; free disk space, or choose another --out")
    if overload := describe_overload():
        problems.append(overload)
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": count_cores(),
        "load_average": round(os.getloadavg()[0], 1),  # processes that ran or waited for a core in the last minute
        "memory_gib": round(count_total_memory() / _GIB, 1),
        "free_disk_gib": round(free, 1),  # of the working directory
        "devices": list(_list_devices()),
        "default_device": str(runtime.device),
        "default_precision": runtime.precision,
        "versions": {name: _get_version(name) for name in _PACKAGES},
        "ffmpeg": av.ffmpeg_version_info,
        "decoders": decoders,
        "encoders": encoders,
        "extras": _check_extras(),
        "problems": problems,
    }


def _list_devices() -> Iterator[dict[str, Any]]:
    """Yield the CPU, whose memory is the machine's, and the GPUs."""
    flags = find_bf16_flags()
    name = f"cpu, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    yield {"name": name, "bf16": f"native ({', '.join(flags)})" if flags else "emulated, slow", "memory_gib": None}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "native" if (properties.major, properties.minor) >= (8, 0) else "emulated, slow"
        memory = round(properties.total_memory / _GIB, 1)
        yield {"name": f"cuda:{i}, {properties.name}", "bf16": bf16, "memory_gib": memory}


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.Codec(name, mode)
    except ValueError:  # PyAV's UnknownCodecError is one
        return False
    return True


def _get_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _check_extras() -> dict[str, bool]:
    """Return by extra whether all of its packages are installed."""
    try:
        names = metadata("vidstill").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return {}
    packages = [Requirement(line) for line in requires("vidstill") or []]
    missing = [each for each in packages if each.marker and _get_version(each.name) == "not installed"]
    return {name: not any(each.marker and each.marker.evaluate({"extra": name}) for each in missing) for name in names}


def doctor_command(*, json: Json = False) -> None:
    """Print what this machine can do: devices, precision, decoders, disk space, versions."""
    info = collect_system_info()
    echo(jsons.dumps(info, indent=1) if json else format_key_values(flatten_dict(info)))
