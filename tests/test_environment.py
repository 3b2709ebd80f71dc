"""The environment that is recorded with every figure: versions, hardware, threads."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from impon_hpo.environment import PACKAGES, cpu_name, environment, versions


def test_versions_are_those_installed() -> None:
    found = versions()
    assert list(found) == ["python", *PACKAGES]
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["impon-hpo"] == version("impon-hpo")


def test_package_that_is_missing_is_said_to_be() -> None:
    found = versions(["no-such-package", "numpy"])
    assert found["no-such-package"] == "not installed"
    assert found["numpy"] == version("numpy")


def test_processor_is_read_from_linux(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "processor\t: 0\nmodel name\t: Acme 9000: the fast one\nflags\t: a b\n\n"
        "processor\t: 1\nmodel name\t: Other\n"
    )
    assert cpu_name(listing) == "Acme 9000: the fast one"


def test_processor_has_a_name_without_linux(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()  # as in some containers
    for listing in (tmp_path / "none", tmp_path / "empty"):
        assert cpu_name(listing) in {platform.processor(), platform.machine()} - {""}


def test_environment_is_plain_json_and_says_threads_and_device() -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu"
    assert found["threads"] == 1
    assert found["cpu"] == f"{cpu_name()} ({os.cpu_count()} logical cores)"
    assert found["versions"] == versions()
    assert "gpu" not in found


def test_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched, since a machine without a GPU has no other way to show it.
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Acme GPU at {device}")
    found = environment("cuda:1")
    assert found["gpu"] == "Acme GPU at cuda:1"
    assert found["cuda"] == torch.version.cuda


FAULTS = """
import resource, torch
from impon_hpo.environment import keep_freed_memory
{call}
def step():
    activations = [torch.empty(10 * 2**20).fill_(1) for _ in range(3)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):
    step()
before = faults()
step()
print(faults() - before)
"""


def _faults(call: str) -> int:
    code = FAULTS.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    # Of 30,720 pages of 4 KiB, or fewer where the kernel hands out larger ones.
    assert _faults("assert keep_freed_memory()") < 30


def test_without_it_each_tensor_pays_for_its_pages_again() -> None:
    assert _faults("") > 30
