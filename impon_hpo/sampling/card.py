"""The card of a batch sampler: what `impon-hpo samplers` prints about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A batch sampler in one line; the docstring of its file says the rest.

    Args:
        source: Authors and year, or "control".
        forward: Extra forward passes a step, in rows, "0" where there are none.
        state: What is kept for each row, "none" where nothing is.
        weights: Whether the rows' losses are weighted, and how.
        use: What it is for, in a few words.
    """

    source: str
    forward: str
    state: str
    weights: str
    use: str
