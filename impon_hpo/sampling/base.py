"""The batch sampler: what decides which rows the next optimiser step trains on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.checks import Common, check_literals
from impon_hpo.sampling.choice import random_order
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.state import Stateful

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""rows (k,) -> (losses (k,), logits (k, n_classes)), without gradients; its cost is charged."""


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


@dataclass(frozen=True)
class Draw:
    """One batch: the rows to train on and what their batch sampler wants back with the losses.

    Args:
        rows: (B,) int64.
        weights: (B,) float32 factors of the rows' losses, or None where all are 1.
        scores: (B,) float32, the predicted losses of the rows, where there are any.
        context: (B, d) float32, the context vectors of the rows, where there are any.
    """

    rows: Tensor
    weights: Tensor | None = None
    scores: Tensor | None = None
    context: Tensor | None = None


class BatchSampler(Stateful, ABC):
    """Decides the next batch: call `start_epoch`, then `draw` and `observe` at every step.

    Everything stays on the device of `rows`: no step waits for a GPU. All randomness comes from
    the sampler's own generator, so two samplers made alike draw alike.

    Args:
        rows: The training rows.
        batch_size: Rows a batch, B.
        model: The deep model that is trained; only its weights are read, never changed.
        seed: Seed of the sampler's generator.
        total_steps: Steps that the whole run will have; methods that change over a run need it.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card: ClassVar[Card]
    """The method in one line."""
    repeats_rows: bool = False
    """Whether a row can stand twice in one batch."""
    needs_forward: bool = False
    """Whether `draw` calls `forward`, and so pays for scoring."""
    beside_training: bool = False
    """Whether it reads the model only by `forward` and after `self._wait_for_weights()`, so that on
    a GPU it may choose and learn while the step that it learns from is still being finished."""
    watches_scoring: bool = False
    """Whether it looks into the model while `forward` runs, which a replayed graph would hide."""
    needs_reference: ClassVar[bool] = False
    """Whether `rows` must have a reference."""
    _state: ClassVar[tuple[str, ...]] = ("generator", "_visits", "_epoch_visits", "steps")

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        # A class says so itself: what a user adds to one of ours may well read the weights.
        cls.beside_training = cls.__dict__.get("beside_training", False)

    @classmethod
    def wants_reference(cls, options: Mapping[str, Any]) -> bool:
        """Return whether a sampler made with these options makes use of a reference."""
        return cls.needs_reference

    def __new__(cls, *args: Any, **arguments: Any) -> Self:
        # Here, so that no sampler has to check the options whose types say what they may be.
        check_literals(cls, arguments)
        return super().__new__(cls)

    def __init__(self, rows: Rows, **common: Unpack[Common]) -> None:
        batch_size = common["batch_size"]
        total_steps = common.get("total_steps")
        if not 1 <= batch_size <= len(rows):
            raise ConfigError(
                f"batch_size must be between 1 and the number of training rows ({len(rows)}), "
                f"but got batch_size={batch_size}."
            )
        if total_steps is not None and total_steps < 1:
            raise ConfigError(f"total_steps must be at least 1, but got total_steps={total_steps}.")
        self.rows = rows
        self.total_steps = total_steps
        self.steps = 0
        """Batches drawn so far."""
        self.blind = False
        """Whether scores are permuted among their rows: the placebo of a method."""
        self.batch_size = batch_size
        self.model = common["model"]
        self._wait_for_weights: Callable[[], None] = lambda: None
        self.generator = torch.Generator(device=rows.device).manual_seed(common.get("seed", 0))
        # Visits before the epoch that runs, those within it, and its rows that are not counted yet.
        self._visits = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
        self._epoch_visits = torch.zeros_like(self._visits)
        self._uncounted: list[Tensor] = []

    def start_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch` (from 1): forget the diagnostics of the last one."""
        if epoch < 1:
            raise ConfigError(f"Epochs count from 1, but got epoch={epoch}.")
        self._visits = self.visits()
        self._epoch_visits = torch.zeros_like(self._visits)

    @torch.no_grad()
    def draw(self, forward: Forward | None = None) -> Draw:
        """Return the next batch.

        Args:
            forward: Gives losses and logits of any rows; needed where `needs_forward` is true.
        """
        if self.needs_forward and forward is None:
            raise ConfigError(
                f"{type(self).__name__} scores rows by a forward pass: call draw(forward)."
            )
        draw = self._draw(forward)
        self.steps += 1
        self._uncounted.append(draw.rows)
        return draw

    @torch.no_grad()
    def observe(self, draw: Draw, losses: Tensor, logits: Tensor | None = None) -> None:
        """Learn from the losses (B,) and logits (B, n_classes) that `draw.rows` had in the step.

        Raises:
            ConfigError: `losses` or `logits` are not as long as the batch.
        """
        expected = tuple(draw.rows.shape)
        if tuple(losses.shape) != expected or (
            logits is not None and tuple(logits.shape[:1]) != expected
        ):
            given = "" if logits is None else f" and logits of shape {tuple(logits.shape)}"
            raise ConfigError(
                f"The draw has rows of shape {expected}, but got losses of shape "
                f"{tuple(losses.shape)}{given}."
            )
        self._observe(draw, losses.detach(), None if logits is None else logits.detach())

    def before_weights(self, wait: Callable[[], None]) -> None:
        """Have `wait` called before the model's weights are read."""
        self._wait_for_weights = wait

    @property
    def progress(self) -> float:
        """Share of the run that is behind, 0 at the first draw, at most 1.

        Raises:
            ConfigError: The sampler was made without `total_steps`.
        """
        if self.total_steps is None:
            raise ConfigError(
                f"{type(self).__name__} changes over a run: give it total_steps, the number of "
                "steps that the run will have."
            )
        return min(1.0, self.steps / self.total_steps)

    @property
    def _reference(self) -> Reference:
        if self.rows.reference is None:
            raise ConfigError(
                f"{type(self).__name__} needs to know what earlier training learnt about the rows: "
                "give Rows a reference."
            )
        return self.rows.reference

    def _bank_size(self, given: int | None, *, default: int) -> int:
        """Return the size of a bank, checked; the default is cut to the number of rows."""
        bank_size = min(default, len(self.rows)) if given is None else given
        if not self.batch_size <= bank_size <= len(self.rows):
            raise ConfigError(
                f"bank_size must be between batch_size ({self.batch_size}) and the number of "
                f"training rows ({len(self.rows)}), but got bank_size={bank_size}."
            )
        return bank_size

    def _seen(self, scores: Tensor) -> Tensor:
        """Return `scores` (m,) as the choice is to see them; every method passes its own here."""
        if not self.blind:
            return scores
        return scores[random_order(len(scores), self.generator)]

    @abstractmethod
    def _draw(self, forward: Forward | None) -> Draw: ...

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        """Learn from a batch whose shapes are already checked; by default, nothing."""

    def visits(self) -> Tensor:
        """Return (n,) int32: how often each row has been picked so far."""
        return self._visits + self._counted()

    def class_picks(self) -> Tensor:
        """Return (n_classes,) int64: how often each class is picked in the epoch that runs."""
        picks = torch.zeros(self.rows.n_classes, dtype=torch.int64, device=self.rows.device)
        return picks.scatter_add_(0, self.rows.labels, self._counted().long())

    def diagnostics(self) -> dict[str, float]:
        """Describe the picks of the epoch that runs; waits for the device, so once an epoch.

        Returns:
            `share_seen`, the share of all rows ever picked, and `class_balance`, the entropy of the
            classes picked in this epoch over that of a uniform distribution (1 = all equally often,
            0 = one class only). A method adds its own.
        """
        picked = self.class_picks().double()
        shares = picked / picked.sum().clamp_min(1)
        entropy = -float(torch.special.xlogy(shares, shares).sum())
        return {
            "share_seen": float((self.visits() > 0).double().mean()),
            "class_balance": min(1.0, entropy / math.log(max(2, self.rows.n_classes))),
        }

    def state_dict(self) -> dict[str, Any]:
        self._counted()
        return {"sampler": type(self).__name__} | super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._uncounted = []

    def _check_state(self, state: Any, place: str) -> None:
        kind = state.get("sampler") if isinstance(state, Mapping) else None
        if kind is not None and kind != type(self).__name__:
            raise ConfigError(f"The state is of the batch sampler {kind}, but this is {place}.")
        visits = state.get("visits") if isinstance(state, Mapping) else None
        if isinstance(visits, Tensor) and len(visits) != len(self.rows):
            raise ConfigError(
                f"The state is of {len(visits)} rows, but there are {len(self.rows)}."
            )
        super()._check_state(state, place)

    def _counted(self) -> Tensor:
        """Return (n,) int32: how often each row has been picked in the epoch that runs."""
        if self._uncounted:
            rows = torch.cat(self._uncounted)
            ones = torch.ones_like(rows, dtype=torch.int32)
            self._epoch_visits.scatter_add_(0, rows, ones)
            self._uncounted = []
        return self._epoch_visits
