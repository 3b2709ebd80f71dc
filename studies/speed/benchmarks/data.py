"""`bench.py data`: a folder of images decoded once, opened from its cache, and trained on again."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.measure import (
    Measurement,
    Spread,
    check_rounds,
    seconds_of,
    spread,
    surroundings,
)
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.data import load_folder
from impon_hpo.training.picture_files import picture_extensions
from impon_hpo.training.splits import load_splits
from impon_hpo.training.training_run import TrainingRun


def measure_data(*, root: Path, image_size: int | None, rounds: int) -> Measurement:
    """Time a folder of images: decoded in a plain loop, decoded by us, opened from the cache; and a
    run on it that is started again, up to its first step of two rows.

    The cache is in a temporary folder and starts empty in every round. The files are read once
    beforehand, so that no side pays for the disk.

    Args:
        root: The folder, as `dataset = "folder"` takes it.
        image_size: Side in pixels to which images are resized; None: not resized.
        rounds: Times that each side counts.

    Raises:
        ConfigError: There is no round.
        DataError: The folder does not exist, or has no images in one folder per class.
    """
    check_rounds(rounds)
    around = surroundings("cpu")
    extensions = picture_extensions()
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in extensions]
    for file in files:
        file.read_bytes()

    def load() -> None:
        load_folder(root=root, download=False, image_size=image_size)

    def start() -> None:
        # Another spelling each time: a process looks for near-duplicates once a data set.
        started.append("/")
        config = TrainingConfig(
            dataset="folder",
            data_dir=f"{root}{''.join(started)}",
            image_size=image_size,
            width=8,
            batch_size=2,
            compile="off",
        )
        run = TrainingRun(config, load_splits(config, torch.device("cpu")))
        run.sampler.start_epoch(1)
        draw = run.sampler.draw()
        run.step(*run.splits.train.batch(draw.rows), draw.weights)

    plain, first, again, second = [], [], [], []
    started: list[str] = []
    before = os.environ.get("XDG_CACHE_HOME")
    try:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["XDG_CACHE_HOME"] = folder
                plain.append(decode_plainly(files))
                first.append(seconds_of(load))
                again.append(seconds_of(load))
                start()
                second.append(seconds_of(start))
    finally:
        if before is None:
            os.environ.pop("XDG_CACHE_HOME", None)
        else:
            os.environ["XDG_CACHE_HOME"] = before
    sides = {
        "PIL in a loop": spread(plain),
        "decoded once": spread(first),
        "from the cache": spread(again),
        "second start": spread(second),
    }
    rows = [_row(name, seconds, len(files)) for name, seconds in sides.items()]
    settings = {"root": str(root), "images": len(files), "rounds": rounds}
    return Measurement("data", settings, around, rows)


def decode_plainly(files: list[Path]) -> float:
    """Return the seconds that one thread takes to decode the files with PIL, keeping nothing."""
    begun = time.perf_counter()
    for file in files:
        with Image.open(file) as image:
            image.convert("RGB")
    return time.perf_counter() - begun


def _row(name: str, seconds: Spread, n: int) -> dict[str, Any]:
    rate = round(n / seconds.median)
    return dict[str, Any](side=name) | seconds.columns("seconds") | {"images_per_second": rate}
