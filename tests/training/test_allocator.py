"""Tests of the allocator of a CPU run, in processes of their own: what is set holds for good."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, torch
from impon_hpo.training.allocator import keep_freed_memory
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
