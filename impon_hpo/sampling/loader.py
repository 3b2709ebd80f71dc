"""Batches for a `torch.utils.data.DataLoader`: any batch sampler as its `batch_sampler=`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Sampler

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Draw, Forward


class LoaderBatchSampler(Sampler[list[int]]):
    """Let a batch sampler decide the batches of a `DataLoader`, and learn from their losses.

    Give it as `batch_sampler=`. Wrap the data set in `IndexedDataset`, so that the rows arrive with
    the batch. Ask `draw(rows)` for the weights, and call `observe(rows, losses)` after the step,
    batch by batch in the order of their arrival. Each iteration over the loader is one epoch.

    Staleness: a loader with workers asks for `num_workers · prefetch_factor` batches ahead, so each
    batch is chosen without the losses of up to that many batches before it; without workers, none.
    A host reads each batch's rows, so a GPU is waited for once a step.

    Args:
        sampler: The batch sampler; its rows are the positions in the data set.
        n_steps: Batches an epoch; default ⌊n / batch size⌋.
        forward: Gives losses and logits of rows, for samplers that score by a forward pass.

    Raises:
        ConfigError: `n_steps` is below 1, or the sampler needs `forward` and has none.
    """

    def __init__(
        self, sampler: BatchSampler, *, n_steps: int | None = None, forward: Forward | None = None
    ) -> None:
        self.sampler = sampler
        self.n_steps = len(sampler.rows) // sampler.batch_size if n_steps is None else n_steps
        if self.n_steps < 1:
            raise ConfigError(f"n_steps must be at least 1, but got n_steps={n_steps}.")
        if sampler.needs_forward and forward is None:
            raise ConfigError(
                f"{type(sampler).__name__} scores rows by a forward pass: give forward=."
            )
        self._forward = forward
        self._epoch = 0
        self._open: deque[Draw] = deque()

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each batch of the next epoch; what was not observed is forgotten."""
        self._epoch += 1
        self._open.clear()
        self.sampler.start_epoch(self._epoch)
        for _ in range(self.n_steps):
            draw = self.sampler.draw(self._forward)
            self._open.append(draw)
            yield draw.rows.tolist()

    def draw(self, rows: Tensor) -> Draw:
        """Return the draw that the oldest batch not yet observed came from, with its weights.

        Raises:
            ConfigError: `rows` are not those of that batch.
        """
        if not self._open:
            raise ConfigError("There is no batch that has not been observed yet.")
        draw = self._open[0]
        if not bool((rows.to(draw.rows.device) == draw.rows).all()):
            raise ConfigError(
                "Batches must be observed in the order in which they arrived: expected rows "
                f"{draw.rows[:3].tolist()} …, but got {rows[:3].tolist()} …."
            )
        return draw

    def observe(self, rows: Tensor, losses: Tensor, logits: Tensor | None = None) -> None:
        """Learn from the losses (B,) and logits (B, n_classes) of the oldest batch not observed.

        Raises:
            ConfigError: `rows` are not those of that batch, or lengths differ.
        """
        draw = self.draw(rows)
        device = draw.rows.device
        self.sampler.observe(draw, losses.to(device), None if logits is None else logits.to(device))
        self._open.popleft()


class IndexedDataset(Dataset[tuple[int, Any]]):
    """A map-style data set whose items come as (row, item).

    Args:
        dataset: Any data set with `__getitem__` and `__len__`.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, Any]:
        return row, self.dataset[row]
