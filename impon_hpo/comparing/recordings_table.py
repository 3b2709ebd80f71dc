"""The table of recordings of a comparison: an epoch a row, and what it was made with."""

from __future__ import annotations

import csv
import io
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from impon_hpo.errors import NothingYetError, StorageError, as_typed
from impon_hpo.files import csv_text, write_file

TABLE = "recordings.csv.xz"
ABOUT = "recordings.json"
_NOT_NUMBERS = {"training", "ended"}


@dataclass(frozen=True)
class Run:
    """One configuration, trained to its end.

    Args:
        epochs: The rows of the table of one run, in order, as far as they have an accuracy.
        ended_cost: What the epoch cost in which its loss was no longer finite, or 0.
        ended: Why it ended early, or "".
        reference_cost: What a reference cost that was made for its study alone.
    """

    epochs: tuple[Mapping[str, Any], ...]
    ended_cost: float
    ended: str
    reference_cost: float

    def accuracy(self, split: str, weights: str) -> tuple[float, ...]:
        """Return the accuracy on "val" or "test" of "last" or "ema" after each epoch; on "test"
        only after those in which it was looked at."""
        name = f"{split}_accuracy_{weights}"
        return tuple(epoch[name] for epoch in self.epochs if split != "test" or name in epoch)

    def as_recorded(self, weights: str) -> list[dict[str, Any]]:
        """Return its epochs as a trial that is judged by "last" or "ema" records them."""
        names = {f"{name}_{weights}": name for name in ("val_accuracy", "val_loss")}
        return [
            {**epoch, **{names[key]: epoch[key] for key in names if key in epoch}}
            for epoch in self.epochs
        ]

    @cached_property
    def cost(self) -> tuple[float, ...]:
        """Forward-equivalents of each epoch."""
        return tuple(epoch["cost"] for epoch in self.epochs)


class Recordings:
    """The runs of a comparison by training, block and configuration.

    Args:
        rows: The table, as `recorded_rows` makes it.
        about: Protocol, versions, hardware, command.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
        self.rows = rows
        self.about = about
        self.rows_of: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
        for row in rows:
            key = (row["training"], int(row["block"]), int(row["configuration"]))
            self.rows_of.setdefault(key, []).append(row)
        self.runs = {key: _run(of_run) for key, of_run in self.rows_of.items()}

    def blocks_of(self, training: str, n_configurations: int, *, taught: bool) -> list[int]:
        """Return the blocks in which a training has all its configurations (a taught one lacks the
        first, which is its teacher's)."""
        blocks = {block for name, block, _ in self.runs if name == training}
        first = 1 if taught else 0
        return sorted(
            block
            for block in blocks
            if all(
                (training, block, number) in self.runs for number in range(first, n_configurations)
            )
        )

    def write(self, folder: Path) -> None:
        """Write table and description into `folder`; the same runs give the same bytes.

        Raises:
            StorageError: They cannot be written.
        """
        write_file(folder / TABLE, lzma.compress(csv_text(self.rows).encode()))
        write_file(folder / ABOUT, json.dumps(self.about, indent=2) + "\n")


def _run(rows: list[Mapping[str, Any]]) -> Run:
    rows = sorted(rows, key=lambda row: row["epoch"])
    ended = rows[-1] if rows[-1].get("ended") else None
    return Run(
        epochs=tuple(row for row in rows if not row.get("ended")),
        ended_cost=ended["cost"] if ended else 0,
        ended=ended["ended"] if ended else "",
        reference_cost=rows[0].get("reference_cost") or 0,
    )


def read_recordings(folder: Path) -> Recordings:
    """Read what `Recordings.write` wrote.

    Raises:
        NothingYetError: There is nothing in `folder`.
        StorageError: It cannot be read.
    """
    path = folder / TABLE
    if not path.exists():
        raise NothingYetError(
            f"There are no recordings in '{folder}' yet: "
            f"run `{as_typed('impon-hpo compare')}` first, or give --recordings "
            "a folder that has some."
        )
    try:
        text = lzma.decompress(path.read_bytes()).decode()
        rows = [_typed(row) for row in csv.DictReader(io.StringIO(text))]
        about = dict(json.loads((folder / ABOUT).read_text()))
        return Recordings(rows, about)
    except (OSError, ValueError, KeyError, TypeError, csv.Error, lzma.LZMAError) as error:
        reason = str(error) or type(error).__name__
        raise StorageError(f"The recordings in '{folder}' cannot be read: {reason}.") from error


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {
        key: value if key in _NOT_NUMBERS else _number(value)
        for key, value in row.items()
        if value != ""
    }


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
