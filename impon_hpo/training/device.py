"""The device of a run, and what pays on it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig


def find_device(name: str) -> torch.device:
    """Return the device for "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" …

    Raises:
        ConfigError: The name is no device, or the device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', but got '{name}'."
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be a CPU or a CUDA GPU, but got '{name}'.")
    n_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise ConfigError(
            f"device '{name}' is not there: this machine has {n_gpus} CUDA GPU(s) that torch "
            f"{torch.__version__} can use. Use --set device=cpu, or see `impon-hpo doctor`."
        )
    return device


def autocast_pays(config: TrainingConfig, device: torch.device) -> bool:
    """Decide `autocast`: as told; else on a GPU with bfloat16, and on a CPU that has bfloat16
    arithmetic for networks at least 32 wide (narrower ones lose as much to casts as they gain)."""
    if config.autocast != "auto":
        return config.autocast
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    has_bfloat16 = "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()
    return has_bfloat16 and (config.model != "resnet18" or config.width >= 32)


def _cpu_flags() -> set[str]:
    # torch has no public question for this in all versions from 2.9 on; Linux lists the flags.
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("flags"):
                return set(line.split())
    return set()
