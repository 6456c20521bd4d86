"""The matrix products that a machine computes at best: what a step's FLOP/s are compared with (MFU)."""

import time

import torch

_CPU_SIDES = (512, 1024, 2048)  # rows of the square matrices; a core's caches are full from about 1024 on
_GPU_SIDES = (2048, 4096, 8192)
_SECONDS = 0.25  # for all products
_REPEATS = 3


def measure_matmul_limit(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest square matrix product, the machine's limit in practice.

    It takes at most 0.3 s, unless a product of 512 rows takes that long: a size is tried only if the rate so far says
    that it fits. Torch's default generators stay as they are.

    Args:
        device: On a CPU, torch's threads compute it.
        dtype: Of both factors and the product.
    """
    best, end = 0.0, time.perf_counter() + _SECONDS
    for side in _CPU_SIDES if device.type == "cpu" else _GPU_SIDES:
        flops = 2 * side**3
        if best and time.perf_counter() + (1 + _REPEATS) * flops / best > end:
            break
        generator = torch.Generator(device).manual_seed(0)  # a GPU multiplies zeros at a higher clock than numbers
        left, right = torch.rand(2, side, side, device=device, generator=generator).to(dtype)
        product = left @ right.T  # as in a linear layer; the first one chooses a kernel
        for _ in range(_REPEATS):
            synchronize(device)
            start = time.perf_counter()
            torch.mm(left, right.T, out=product)
            synchronize(device)
            best = max(best, flops / (time.perf_counter() - start))
    return best


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
