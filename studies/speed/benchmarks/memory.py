"""`bench.py memory`: what training holds in memory as data grow, beside a tensor of all images."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Measurement, surroundings
from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.splits import load_splits, split_data
from impon_hpo.training.training_run import TrainingRun

CPU = torch.device("cpu")
PIXELS, LABELS = "pixels.npy", "labels.npy"
STEPS = 30
MEGABYTE = 1e6
EVERY = 0.02
"""Seconds between two looks at the memory of all processes."""


def measure_memory(
    *, n_rows: Sequence[int], n_workers: Sequence[int], side: int, sampler: str
) -> Measurement:
    """Measure the memory of workers that train on an array of images in a file.

    Each worker is a process that loads the data, takes some steps and validates. What counts is the
    peak of the sum over all workers of private memory (`Pss_Anon` of Linux) above that of workers
    who have 1,000 rows. Pages of the mapped file are counted apart (`Pss_File`): they are shared,
    and Linux takes them back when it needs them.

    The other side is a `TensorDataset` of all images in each process, with a `DataLoader`.

    Args:
        n_rows: Rows of the data set.
        n_workers: Numbers of processes at a time.
        side: Side of the images in pixels.
        sampler: The batch sampler of our side.

    Raises:
        ConfigError: A number is too small.
    """
    if min(n_rows) < 1000 or min(n_workers) < 1:
        raise ConfigError(
            "There must be at least 1000 rows and 1 worker, but got "
            f"{list(n_rows)} and {list(n_workers)}."
        )
    around, rows = surroundings("cpu"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in [1000, *n_rows]:
            _write(folder / str(n), n, side)
        for workers in n_workers:
            base = {
                who: _peak(folder / "1000", workers, who, sampler) for who in ("ours", "tensor")
            }
            for n in n_rows:
                ours, tensor = (
                    _peak(folder / str(n), workers, who, sampler) for who in ("ours", "tensor")
                )
                grown = ours["anonymous"] - base["ours"]["anonymous"]
                plain = tensor["anonymous"] - base["tensor"]["anonymous"]
                rows.append(
                    {
                        "rows": n,
                        "workers": workers,
                        "pixels_mb": round(n * side * side * 3 / MEGABYTE, 1),
                        "first_step_s": round(ours["seconds"], 2),
                        "whole_mb": round(ours["anonymous"] / MEGABYTE),
                        "grown_mb": round(grown / MEGABYTE, 1),
                        "bytes_a_row_and_worker": round(grown / (n - 1000) / workers)
                        if n > 1000
                        else 0,
                        "mapped_mb": round(ours["files"] / MEGABYTE),
                        "tensor_grown_mb": round(plain / MEGABYTE, 1),
                    }
                )
    return Measurement("memory", {"side": side, "sampler": sampler}, around, rows)


def load(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """The data set: an array of images that is mapped from a file."""
    return ImageData(np.load(root / PIXELS, mmap_mode="r"), np.load(root / LABELS))


def _write(folder: Path, n: int, side: int) -> None:
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(
        folder / PIXELS, mode="w+", dtype=np.uint8, shape=(n, side, side, 3)
    )
    for begin in range(0, n, 5000):
        part = pixels[begin : begin + 5000]
        part[:] = generator.integers(256, size=part.shape, dtype=np.uint8)
    np.save(folder / LABELS, np.arange(n) % 10)


def _peak(folder: Path, workers: int, who: str, sampler: str) -> dict[str, float]:
    """Return the largest sums of private and of mapped bytes, and seconds to the first step."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(workers + 1), context.Queue()
    target = _train_ours if who == "ours" else _train_tensor
    processes = [
        context.Process(target=target, args=(folder, sampler, barrier, seconds))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait()  # all have imported what they need
    peak = {"anonymous": 0.0, "files": 0.0}
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            parts = [_proportional(process.pid) for process in processes]
            for key, before in peak.items():
                peak[key] = max(before, sum(part[key] for part in parts))
            time.sleep(EVERY)

    looking = threading.Thread(target=look)
    looking.start()
    times = [seconds.get() for _ in processes]
    done.set()
    looking.join()
    barrier.wait()
    for process in processes:
        process.join()
    return peak | {"seconds": max(times)}


def _proportional(pid: int | None) -> dict[str, float]:
    """Return the bytes of a process that are private, and those of files, shared ones in part."""
    found = {"anonymous": 0.0, "files": 0.0}
    names = {"Pss_Anon:": "anonymous", "Pss_File:": "files"}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, *values = line.split()
            if name in names:
                found[names[name]] = float(values[0]) * 1024
    return found


def _train_ours(folder: Path, sampler: str, barrier: Any, seconds: Any) -> None:
    torch.set_num_threads(1)
    config = TrainingConfig(
        dataset="benchmarks.memory:load",
        data_dir=str(folder),
        sampler=sampler,
        width=4,
        batch_size=32,
        validation_size=500,
        epochs=1,
        compile="off",
    )
    TrainingRun(config, load_splits(config.model_copy(update={"dataset": "digits"}), CPU))
    barrier.wait()
    begun = time.perf_counter()
    run = TrainingRun(config, load_splits(config, CPU))
    run.steps_per_epoch = STEPS
    first: list[float] = []
    run.train_epoch(lambda: first.append(time.perf_counter() - begun))
    seconds.put(first[0])
    barrier.wait()


def _train_tensor(folder: Path, sampler: str, barrier: Any, seconds: Any) -> None:
    torch.set_num_threads(1)
    config = TrainingConfig(width=4, batch_size=32, subset=320, epochs=1, compile="off")
    images = np.zeros((1000, *np.load(folder / PIXELS, mmap_mode="r").shape[1:]), dtype=np.uint8)
    splits = split_data(ImageData(images, np.arange(1000) % 10), config, CPU)
    run = TrainingRun(config, splits)
    barrier.wait()
    begun = time.perf_counter()
    data = TensorDataset(
        torch.from_numpy(np.load(folder / PIXELS)), torch.from_numpy(np.load(folder / LABELS))
    )
    first = None
    for _, (pixels, labels) in zip(
        range(STEPS), DataLoader(data, batch_size=32, shuffle=True), strict=False
    ):
        run.step(pixels, labels, None)
        first = first or time.perf_counter() - begun
    seconds.put(first)
    barrier.wait()
