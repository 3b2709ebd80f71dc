"""The doctor: what this machine and installation have, what is wrong, and how to fix it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from impon_hpo.environment import cpu_name, versions
from impon_hpo.errors import StorageError, as_typed
from impon_hpo.files import expanded


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Args:
        name: The thing.
        state: Its state: version, hardware, content or error.
        ok: Whether it works.
        remedy: How to fix it, where it does not work.
    """

    name: str
    state: str
    ok: bool = True
    remedy: str = ""

    @property
    def text(self) -> str:
        """The state and, where that is wrong, the remedy."""
        return self.state if self.ok else f"WRONG: {self.state}\n    {self.remedy}"


def examine(data_dir: str | None, storage: str | None) -> Iterator[Finding]:
    """Check versions, device, threads, data folders and storage, one after the other.

    Args:
        data_dir: A folder of data to check beside the default one, or None.
        storage: A storage to open, or None for the studies in runs/.
    """
    for package, number in versions().items():
        missing = number == "not installed"
        remedy = f"Install it: `{as_typed(f'pip install {package}')}`." if missing else ""
        yield Finding(package, number, not missing, remedy)
    yield Finding("processor", f"{cpu_name()}, {os.cpu_count()} logical cores")
    yield from _torch()
    yield from _data(data_dir)
    yield from _storages(storage)
    yield _results()


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision  # noqa: F401
    except Exception as error:  # a build that does not fit fails in many ways
        reason = (str(error).splitlines() or [""])[0]
        yield Finding(
            "torch and torchvision",
            f"cannot be imported: {type(error).__name__}: {reason}",
            False,
            "The release and build of torchvision must match those of torch. Reinstall both "
            "together from one index: "
            f"`{as_typed('pip install --force-reinstall torch torchvision')}`.",
        )
        return
    yield Finding("threads", f"{torch.get_num_threads()} (set by OMP_NUM_THREADS)")
    n_gpus = torch.cuda.device_count()
    for index in range(n_gpus):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        yield Finding(f"cuda:{index}", f"{properties.name}, {memory:.0f} GiB")
    if n_gpus == 0:
        yield Finding("GPU", 'none that torch can use: `device = "auto"` is the CPU')
    elif not torch.cuda.is_bf16_supported():
        yield Finding("bfloat16", 'not on this GPU: `autocast = "auto"` is off')


def _data(data_dir: str | None) -> Iterator[Finding]:
    from impon_hpo.training.data import DEBIAN_FASHION_MNIST, data_root

    yield Finding("digits", "comes with scikit-learn")
    marks = {
        "cifar10": "cifar-10-batches-py",
        "cifar100": "cifar-100-python",
        "svhn": "train_32x32.mat",
        "mnist": "MNIST/raw",
        "fashion-mnist": "FashionMNIST/raw",
        "folder": "train",
    }
    extra_root = expanded(data_dir) if data_dir else None
    for root in filter(None, (data_root(None), extra_root)):
        if root.is_dir():
            names = [name for name, mark in marks.items() if (root / mark).exists()]
            yield Finding(f"data in {root}", ", ".join(names) or "no known data set")
        elif root == extra_root:
            yield Finding(
                f"data in {root}", "no such folder", False, "Give the folder that holds the data."
            )
        else:
            yield Finding(f"data in {root}", "no such folder")
    if DEBIAN_FASHION_MNIST.is_dir():
        yield Finding(f"data in {DEBIAN_FASHION_MNIST}", "fashion-mnist (Debian's package)")


def _storages(address: str | None) -> Iterator[Finding]:
    import optuna

    from impon_hpo.storage.connect import open_storage, sqlite_address, without_secrets

    files = sorted(Path("runs").glob("*/study.db"))
    for opened in [address] if address else [sqlite_address(str(path)) for path in files]:
        name = f"storage {without_secrets(opened)}"
        try:
            studies = optuna.get_all_study_names(open_storage(opened, create=False))
        except StorageError as error:
            yield Finding(name, str(error), False, "Check the address and the server.")
        else:
            yield Finding(name, f"opens, {len(studies)} studies: {', '.join(studies)}")


def _results() -> Finding:
    folder = Path("runs") if Path("runs").is_dir() else Path()
    name = f"folder {folder.resolve()}"
    if os.access(folder, os.W_OK):
        return Finding(name, "can be written")
    remedy = "Run from a folder that you may write to: results go to runs/ in it."
    return Finding(name, "cannot be written", False, remedy)
