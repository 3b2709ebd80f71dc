"""The context of `impon-memory`: what the reference says of a row, and its last seen loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from impon_hpo.sampling.estimator import is_finite
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows


def n_features(n_classes: int) -> int:
    """Return the length d of a context vector."""
    return 2 * n_classes + 11


class MemoryContext:
    """A table of what is known of each row, from which a step's context vectors are computed.

    A context vector has {loss of the reference, its square; entropy of the reference, its class
    probabilities; label; how far the last seen loss is above the reference's (0 if there is none),
    whether there is one; these two times its age in epochs; progress; progress times loss of the
    reference and times how far above it; progress squared}.

    All of it stands in one table, since an operation between two training steps costs as much for
    one column as for all. Steps are kept as float32, which counts them up to 16 million.

    Args:
        rows: The training rows.
        reference: What earlier training learnt about them.
        batch_size: Rows a step, to tell the age in epochs.
    """

    def __init__(self, rows: Rows, reference: Reference, *, batch_size: int) -> None:
        p = reference.probabilities
        loss = reference.loss[:, None]
        entropy = torch.special.entr(p).sum(1, keepdim=True)
        labels = one_hot(rows.labels, rows.n_classes).float()
        unseen = torch.zeros(len(rows), 3, device=rows.device)  # above, whether seen, at which step
        fixed = [loss, loss.square(), entropy, p, labels]
        parts = [*fixed, torch.ones_like(loss), loss, unseen]
        self._table = torch.cat(parts, dim=1)
        self._seen = self._table[:, -3:]
        self._epochs_a_step = batch_size / len(rows)

    def vectors(self, rows: Tensor, *, steps: int, progress: float) -> Tensor:
        """Return the context vectors (k, d) float32 of rows (k,) after so many steps.

        Args:
            rows: (k,) int64.
            steps: Steps taken so far.
            progress: Share of the run that is behind, 0 … 1.
        """
        found = self._table.index_select(0, rows)
        age = (steps - found[:, -1:]) * self._epochs_a_step
        parts = [
            found[:, :-5],
            found[:, -3:-1],
            found[:, -3:-1] * age,
            found[:, -5:-2] * progress,
            found.new_full((len(rows), 1), progress**2),
        ]
        return torch.cat(parts, dim=1)

    def above_reference(self, context: Tensor, losses: Tensor) -> Tensor:
        """Return losses (k,) of the rows of `context` (k, d) less those of the reference."""
        return losses - context[:, 0]

    def note(self, rows: Tensor, above: Tensor, step: int) -> None:
        """Note what was seen of different rows (k,) at a step; infinite and nan change nothing.

        Args:
            rows: (k,) int64.
            above: (k,) float32, from `above_reference`.
            step: When it was.
        """
        new = torch.stack([above, torch.ones_like(above), torch.full_like(above, step)], dim=1)
        new = torch.where(is_finite(above)[:, None], new, self._seen.index_select(0, rows))
        self._seen.index_copy_(0, rows, new)

    def state_dict(self) -> dict[str, Tensor]:
        return {"seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._seen.copy_(state["seen"])
