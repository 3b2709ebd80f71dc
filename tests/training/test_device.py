"""The device of a run: names, what is not there, and where bfloat16 autocast pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from impon_hpo.errors import ConfigError
from impon_hpo.training import device as device_module
from impon_hpo.training.device import autocast_pays, find_device, memory_format
from tests.settings import training_config

CPU = torch.device("cpu")


def test_cpu_is_the_cpu() -> None:
    assert find_device("cpu") == CPU


def test_auto_is_a_gpu_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cuda:x", "cuda:-1", "auto:1", "cuda:99999999"])
def test_name_of_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_device(name)
    assert f"'{name}'" in str(caught.value)


@pytest.mark.parametrize("name", ["mps", "meta"])
def test_device_that_is_neither_cpu_nor_cuda_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"CPU or a CUDA GPU, but got '{name}'"):
        find_device(name)


@pytest.mark.parametrize(
    ("name", "n_gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 4)]
)
def test_gpu_that_is_not_there_is_refused_with_the_count(
    name: str, n_gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    with pytest.raises(ConfigError, match=rf"'{name}'.* can use {n_gpus} CUDA GPU\(s\)"):
        find_device(name)


def test_gpu_that_is_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize("told", [True, False])
def test_autocast_is_as_told(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_cpu_flags", set)
    assert autocast_pays(training_config({"autocast": told}), CPU) is told
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: {"amx_bf16"})
    assert autocast_pays(training_config({"autocast": told, "width": 4}), CPU) is told


@pytest.mark.parametrize(
    ("flags", "settings", "pays"),
    [
        (set(), {"width": 64}, False),
        ({"avx512f", "avx2"}, {"width": 64}, False),
        ({"avx512_bf16"}, {"width": 64}, True),
        ({"amx_bf16"}, {"width": 32}, True),
        ({"amx_bf16"}, {"width": 31}, False),
        ({"amx_bf16"}, {"width": 4, "model": "resnet18-imagenet"}, True),
    ],
)
def test_autocast_pays_on_a_cpu_with_bfloat16_for_wide_networks(
    flags: set[str], settings: dict[str, Any], pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: flags)
    assert autocast_pays(training_config(settings), CPU) is pays


@pytest.mark.parametrize("supported", [True, False])
def test_autocast_pays_on_a_gpu_with_bfloat16(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert autocast_pays(training_config({"width": 4}), torch.device("cuda")) is supported


def narrow(*, stride: int, kernel: int = 1, channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Conv2d(channels, 8, kernel, stride=stride)))


@pytest.mark.parametrize(
    ("model", "device", "expected"),
    [
        (narrow(stride=2), "cpu", torch.contiguous_format),
        (narrow(stride=2), "cuda", torch.channels_last),
        (narrow(stride=1), "cpu", torch.channels_last),
        (narrow(stride=2, kernel=3), "cpu", torch.channels_last),
        (narrow(stride=2, channels=15), "cpu", torch.contiguous_format),
        (narrow(stride=2, channels=16), "cpu", torch.channels_last),
    ],
)
def test_channels_last_is_left_alone_where_onednn_corrupts_memory(
    model: nn.Module, device: str, expected: torch.memory_format
) -> None:
    assert memory_format(training_config({}), model, torch.device(device)) == expected
    told = training_config({"channels_last": False})
    assert memory_format(told, model, torch.device(device)) == torch.contiguous_format


def test_channels_last_that_corrupts_memory_is_refused() -> None:
    told = training_config({"channels_last": True})
    assert memory_format(told, narrow(stride=1), CPU) == torch.channels_last
    with pytest.raises(ConfigError, match=r"oneDNN issue 6035.*channels_last = 'auto'"):
        memory_format(told, narrow(stride=2), CPU)
