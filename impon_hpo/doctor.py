"""The doctor: what this machine and installation have, what is wrong, and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from impon_hpo.environment import cpu_name, versions
from impon_hpo.errors import StorageError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, how it is, whether that is a problem, what mends it."""

    what: str
    found: str
    ok: bool = True
    remedy: str = ""

    @property
    def said(self) -> str:
        """How it is and, where that is wrong, what mends it."""
        return self.found if self.ok else f"WRONG: {self.found}\n    {self.remedy}"


def examine(data_dir: str | None, storage: str | None) -> Iterator[Finding]:
    """Look at versions, device, threads, data folders and storage, one after the other.

    Args:
        data_dir: A folder of data to look into beside the default one, or None.
        storage: A storage to open, or None for the studies in runs/.
    """
    for package, number in versions().items():
        missing = number == "not installed"
        remedy = f"Install it: `pip install {package}`." if missing else ""
        yield Finding(package, number, not missing, remedy)
    yield Finding("processor", f"{cpu_name()}, {os.cpu_count()} logical cores")
    yield from _torch()
    yield from _data(data_dir)
    yield from _storages(storage)


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision  # noqa: F401
    except Exception as error:  # a build that does not fit fails in many ways
        yield Finding(
            "torch and torchvision",
            f"do not import: {type(error).__name__}: {str(error).splitlines()[0]}",
            False,
            "torchvision must be of the release and build that pairs with torch: reinstall both "
            "together, `pip install --force-reinstall torch torchvision`, from one index.",
        )
        return
    yield Finding("threads", f"{torch.get_num_threads()} (OMP_NUM_THREADS sets them)")
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
    roots = [data_root(None)] + ([Path(data_dir).expanduser()] if data_dir else [])
    for root in roots:
        found = [name for name, mark in marks.items() if (root / mark).exists()]
        if not root.is_dir():
            given = data_dir is not None and root == Path(data_dir).expanduser()
            yield Finding(
                f"data in {root}",
                "no such folder",
                not given,
                "Give the folder that holds the data." if given else "",
            )
        else:
            yield Finding(f"data in {root}", ", ".join(found) or "none that is known")
    if DEBIAN_FASHION_MNIST.is_dir():
        yield Finding(f"data in {DEBIAN_FASHION_MNIST}", "fashion-mnist (Debian's package)")


def _storages(address: str | None) -> Iterator[Finding]:
    import optuna

    from impon_hpo.storage.connect import open_storage, without_secrets

    runs = Path("runs")
    addresses = (
        [address] if address else [f"sqlite:///{path}" for path in sorted(runs.glob("*/study.db"))]
    )
    for one in addresses:
        try:
            names = optuna.get_all_study_names(open_storage(one, create=False))
        except StorageError as error:
            yield Finding(
                f"storage {without_secrets(one)}",
                str(error),
                False,
                "Check the address and the server.",
            )
        else:
            yield Finding(
                f"storage {without_secrets(one)}",
                f"opens, {len(names)} studies: {', '.join(names)}",
            )
    place = runs if runs.is_dir() else Path()
    writable = os.access(place, os.W_OK)
    yield Finding(
        f"folder {place.resolve()}",
        "can be written" if writable else "cannot be written",
        writable,
        "" if writable else "Run from a folder that you may write to: results go to runs/ in it.",
    )
