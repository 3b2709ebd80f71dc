"""`curriculum`: easy rows first, by a fixed difficulty and a pacing function.

Source: Bengio, Louradour, Collobert, Weston (2009), "Curriculum learning"; the pacing functions of
Hacohen & Weinshall (2019) and Platanios et al. (2019).
Rule: rows are ordered once, by difficulty. At each step the batch is drawn at random, without
repeats, from the easiest share, which is open. The share widens until all rows are open; from then
on epochs are shuffled as in `uniform`.
Cost a step: none; the difficulty is computed once. State: 8 bytes a row. Weights: none.
Helps: with little time or noisy labels (Wu, Dyer, Neyshabur 2021). Hurts: a difficulty that does
not use the labels opens classes unevenly.

Departures from the source:
1. It prescribes no difficulty. Here it is the reference's loss or a function of the user's.
2. The share widens at every step, not at a few chosen steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import load_object
from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs
from impon_hpo.sampling.checks import Common, describe
from impon_hpo.sampling.draws import draw_bank
from impon_hpo.sampling.features import CHUNK
from impon_hpo.sampling.pacing import Pacing, Shape, easiest_first
from impon_hpo.sampling.rows import Rows


class Curriculum(ShuffledEpochs):
    """Train on the easiest rows first, widening to all of them.

    Args:
        rows: The training rows.
        difficulty: "reference" (the reference's loss of each row), or a function from prepared
            inputs (k, ...) to (k,), higher = harder, or its name as "module:function".
        start: Share of the rows open at the beginning, above 0, at most 1.
        end: Share of the run after which all rows are open, above 0, at most 1.
        shape: How the share widens: "linear", "root" or "step".
        common: As for every `BatchSampler`; `total_steps` is needed.

    Raises:
        ConfigError: An argument is out of its range, or both reference and function are missing.
    """

    card = Card(
        source="Bengio et al. 2009",
        forward="0",
        state="8 bytes",
        weights="none",
        use="easy rows first, by a difficulty of your choice",
    )
    beside_training = True
    _state = ("_easiest_first",)

    needs_reference = True  # of those that want one: without, there is no order

    @classmethod
    def wants_reference(cls, options: Mapping[str, Any]) -> bool:
        return bool(options.get("difficulty", "reference") == "reference")

    def __init__(
        self,
        rows: Rows,
        *,
        difficulty: str | Callable[[Tensor], Tensor] = "reference",
        start: float = 0.2,
        end: float = 0.5,
        shape: Shape = "linear",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        self.pacing = Pacing(start, end, shape)
        _ = self.progress  # raises if there is no total_steps
        self._easiest_first = easiest_first(_difficulty(difficulty, rows))

    def _draw(self, forward: Forward | None) -> Draw:
        share = self.pacing.share(self.progress)
        if share == 1:
            return Draw(self._stream.take(self.batch_size))
        n_open = max(self.batch_size, round(share * len(self.rows)))
        # The placebo opens the same number of rows, in random order.
        order = self._order_seen()
        return Draw(order[draw_bank(n_open, self.batch_size, self.generator)])

    def _order_seen(self) -> Tensor:
        if self.blind and self.steps == 0:
            self._easiest_first = self._seen(self._easiest_first)
        return self._easiest_first


def _difficulty(difficulty: str | Callable[[Tensor], Tensor], rows: Rows) -> Tensor:
    if difficulty == "reference":
        if rows.reference is None:
            raise ConfigError(
                "difficulty='reference' needs to know what earlier training learnt about the rows. "
                "Give Rows a reference, or a function for difficulty."
            )
        return rows.reference.loss
    function = load_object(difficulty) if isinstance(difficulty, str) else difficulty
    if not callable(function):
        raise ConfigError(f"difficulty must be 'reference' or a function, but got {difficulty!r}.")
    all_rows = torch.arange(len(rows), device=rows.device)
    parts = [function(rows.read(part)) for part in all_rows.split(CHUNK)]
    for part in parts:
        if not isinstance(part, Tensor) or part.dim() != 1:
            raise ConfigError(
                f"difficulty must return a tensor (rows,), but '{difficulty}' returned "
                f"{describe(part)}."
            )
    values = torch.cat(parts)
    if values.shape != (len(rows),) or not bool(torch.isfinite(values).all()):
        raise ConfigError(
            f"difficulty must return one finite number for each of the {len(rows)} rows, but "
            f"returned {tuple(values.shape)} numbers or some that are not finite."
        )
    return values
