"""The environment of a result: versions, hardware and threads, to be recorded with every figure."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("impon-hpo", "torch", "torchvision", "optuna", "optuna-dashboard", "numpy")


def versions() -> dict[str, str]:
    """Return the installed versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def cpu_name() -> str:
    """Return the processor's name as Linux gives it."""
    try:
        with Path("/proc/cpuinfo").open() as file:
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

    found: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(terse=True),
        "cpu": f"{cpu_name()} ({os.cpu_count()} logical cores)",
        "device": device,
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def cache_folder() -> Path:
    """Return the folder of what can be made again: impon-hpo in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "impon-hpo"
