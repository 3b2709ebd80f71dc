"""The device of a run, and which number formats suit it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import nn

from impon_hpo.errors import ConfigError, as_typed
from impon_hpo.training.config import TrainingConfig


def find_device(name: str) -> torch.device:
    """Return the device for "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" …

    Raises:
        ConfigError: The name is not a device, or this machine does not have it.
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
            f"This machine does not have device '{name}': torch {torch.__version__} can use "
            f"{n_gpus} CUDA GPU(s). Use --set device=cpu, or see "
            f"`{as_typed('impon-hpo doctor')}`."
        )
    return device


def autocast_pays(config: TrainingConfig, device: torch.device) -> bool:
    """Decide `autocast`: as set; "auto" is on for a GPU with bfloat16, and for a CPU with bfloat16
    arithmetic if the network is at least 32 wide (casts cost a narrower one what it gains)."""
    if config.autocast != "auto":
        return config.autocast
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    has_bfloat16 = "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()
    return has_bfloat16 and (config.model != "resnet18" or config.width >= 32)


def memory_format(
    config: TrainingConfig, model: nn.Module, device: torch.device
) -> torch.memory_format:
    """Decide `channels_last`: as set; "auto" is on wherever it is safe.

    Raises:
        ConfigError: It is set to true where it is not safe.
    """
    if config.channels_last is False:
        return torch.contiguous_format
    if takes_channels_last(model, device):
        return torch.channels_last
    if config.channels_last is True:
        raise ConfigError(
            f"channels_last = true is not safe for model '{config.model}' on a CPU: it has a 1 × 1 "
            f"convolution with a stride and fewer than {_CHANNEL_BLOCK} input channels, whose "
            "gradient oneDNN writes outside its memory (oneDNN issue 6035). Use "
            "channels_last = 'auto', or put nn.AvgPool2d(1, stride) before a convolution without "
            "stride, which computes the same."
        )
    return torch.contiguous_format


_CHANNEL_BLOCK = 16
"""Channels that oneDNN processes at a time with the widest vectors (AVX-512)."""


def takes_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Return whether gradients of `model` are right in channels_last on `device`.

    On a CPU, oneDNN's weight gradient of a strided 1 × 1 convolution with fewer input channels than
    its block writes past its workspace (oneDNN issue 6035): heap corruption, or wrong gradients.
    Seen with torch 2.15 on a CPU with AVX2 for 2 to 7 channels.
    """
    return device.type != "cpu" or not any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels < _CHANNEL_BLOCK
        for module in model.modules()
    )


def _cpu_flags() -> set[str]:
    # Not all versions of torch since 2.9 have a public function for this; Linux lists the flags.
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("flags"):
                return set(line.split())
    return set()
