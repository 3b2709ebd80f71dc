"""The environment of a process: versions and hardware, recorded with results; cache and memory."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
_MMAP_MAX = -4

PACKAGES = ("impon-hpo", "torch", "torchvision", "optuna", "optuna-dashboard", "numpy")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions of Python and of `packages`, by default those that results
    depend on."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def cpu_name(listing: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as Linux lists it, or else as the platform names its kind."""
    try:
        with listing.open() as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def environment(device: str) -> dict[str, Any]:
    """Return versions, processor, GPU (where `device` is one) and threads, as plain JSON values.

    Args:
        device: The device that is computed on, as torch writes it: "cpu", "cuda:0" …
    """
    import torch

    facts: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(terse=True),
        "cpu": f"{cpu_name()} ({os.cpu_count()} logical cores)",
        "device": device,
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def cache_folder() -> Path:
    """Return the folder of what can be rebuilt: impon-hpo in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "impon-hpo"


@cache
def keep_freed_memory() -> bool:
    """Make glibc reuse freed memory in this process from now on; return whether it does.

    By default glibc asks Linux for new pages for every tensor above 32 MiB, and gives them back
    when the tensor is freed. In a wide network that costs each training step on a CPU an eighth of
    its time. With this, a process needs no more memory at its peak, but keeps it until it ends.
    Results do not change. Call it where a process starts, not in a library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
