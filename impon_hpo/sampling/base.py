"""The batch sampler: it decides which rows the next optimiser step trains on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.checks import Common, check_literals, check_share, describe
from impon_hpo.sampling.draws import Stream, random_order
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.state import Stateful

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""rows (k,) -> (losses (k,), logits (k, n_classes)), without gradients. Its cost is charged."""


@dataclass(frozen=True)
class Card:
    """A batch sampler in one line, as `impon-hpo samplers` prints it.

    Args:
        source: Authors and year, or "control".
        forward: Extra forward passes a step, in rows, "0" where there are none.
        state: What is kept for each row, "none" if nothing is.
        weights: How the losses of the rows are weighted, "none" if they are not.
        use: What it is for, in a few words.
    """

    source: str
    forward: str
    state: str
    weights: str
    use: str


@dataclass(frozen=True, repr=False)
class Draw:
    """One batch: the rows to train on, and what their batch sampler needs to learn from it.

    Args:
        rows: (B,) int64, positions in the training set.
        weights: (B,) float32 factors of the rows' losses, or None if all are 1.
        scores: (B,) float32, the scores of the rows, or None if the method has none.
        context: (B, d) float32, the context vectors of the rows, or None if the method has none.

    Example:
        >>> import torch
        >>> from impon_hpo import Rows, Uniform
        >>> rows = Rows(torch.rand(100, 8), torch.arange(100) % 3, n_classes=3)
        >>> Uniform(rows, batch_size=4, model=torch.nn.Linear(8, 3)).draw()
        Draw(rows=int64 (4,), weights=None, scores=None, context=None)
    """

    rows: Tensor
    weights: Tensor | None = None
    scores: Tensor | None = None
    context: Tensor | None = None

    def __repr__(self) -> str:
        return describe(self)


class BatchSampler(Stateful, ABC):
    """The base class of batch samplers; `start_epoch`, then `draw` and `observe` at every step.

    Everything stays on the device of `rows`: no step waits for a GPU. All randomness comes from
    the sampler's own generator: two samplers with the same arguments draw the same batches.

    A class of your own writes `_draw`, and `_observe` if it learns from the losses. It names the
    attributes that a checkpoint must keep in `_state`, and passes the scores that it chooses by
    through `self._seen`. An option whose type is a `Literal` is checked for it.

    Args:
        rows: The training rows.
        batch_size: Rows in a batch, B, from 1 to the number of rows.
        model: The deep model that is trained. Its weights are read and never changed.
        seed: Seed of the sampler's generator; default 0.
        total_steps: Steps in the whole run. Methods that change over a run need it.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from impon_hpo import BatchSampler, Draw, Rows
        >>> class InOrder(BatchSampler):
        ...     _state = ("position",)
        ...     position = 0
        ...
        ...     def _draw(self, forward):
        ...         first, self.position = self.position, self.position + self.batch_size
        ...         return Draw(torch.arange(first, self.position) % len(self.rows))
        >>> rows = Rows(torch.rand(10, 2), torch.arange(10) % 2, n_classes=2)
        >>> sampler = InOrder(rows, batch_size=4, model=torch.nn.Linear(2, 2))
        >>> sampler.start_epoch(1)
        >>> [sampler.draw().rows.tolist() for _ in range(3)]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
        >>> sampler.state_dict()["position"]
        12
    """

    card: ClassVar[Card]
    """The method in one line; a class of your own may do without."""
    repeats_rows: bool = False
    """Whether a row can occur twice in one batch."""
    needs_forward: bool = False
    """Whether `draw` calls `forward`, which is charged."""
    beside_training: bool = False
    """Whether it reads the model only through `forward` and after `self._wait_for_weights()`. If
    so, it may choose and learn on a GPU while the training step is still being finished."""
    watches_scoring: bool = False
    """Whether it reads inside the model while `forward` runs, which a replayed graph would hide."""
    needs_reference: ClassVar[bool] = False
    """Whether `rows` must have a reference."""
    _state: ClassVar[tuple[str, ...]] = ("generator", "_visits", "_epoch_visits", "steps")

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # Not inherited: what a user adds to one of our classes may read the weights.
        cls.beside_training = cls.__dict__.get("beside_training", False)

    @classmethod
    def wants_reference(cls, options: Mapping[str, Any]) -> bool:
        """Return whether a sampler with these options uses a reference."""
        return cls.needs_reference

    def __new__(cls, *args: Any, **arguments: Any) -> Self:
        # Here, so that no sampler has to check options whose types say which values they take.
        check_literals(cls, arguments)
        sampler = super().__new__(cls)
        sampler._arguments = arguments
        return sampler

    _arguments: dict[str, Any]

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
        # Visits before the current epoch, visits within it, and its rows that are not counted yet.
        self._visits = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
        self._epoch_visits = torch.zeros_like(self._visits)
        self._epoch_rows: list[Tensor] = []

    def __repr__(self) -> str:
        hidden = {"model", "seed", "total_steps"}
        shown = [f"{key}={value!r}" for key, value in self._arguments.items() if key not in hidden]
        return f"{type(self).__name__}({', '.join([f'{len(self.rows)} rows', *shown])})"

    def start_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch`, counted from 1, and forget the diagnostics of the one before.

        Raises:
            ConfigError: `epoch` is below 1.
        """
        if epoch < 1:
            raise ConfigError(f"Epochs count from 1, but got epoch={epoch}.")
        self._visits = self.visits()
        self._epoch_visits = torch.zeros_like(self._visits)

    @torch.no_grad()
    def draw(self, forward: Forward | None = None) -> Draw:
        """Return the next batch.

        Args:
            forward: Returns losses and logits of any rows; required if `needs_forward` is true.

        Raises:
            ConfigError: `forward` is required and not given.
        """
        if self.needs_forward and forward is None:
            raise ConfigError(
                f"{type(self).__name__} scores rows by a forward pass: call draw(forward)."
            )
        draw = self._draw(forward)
        self.steps += 1
        self._epoch_rows.append(draw.rows)
        return draw

    @torch.no_grad()
    def observe(self, draw: Draw, losses: Tensor, logits: Tensor | None = None) -> None:
        """Learn from what `draw.rows` gave in the training step.

        Args:
            draw: The batch, as `draw` returned it.
            losses: (B,) losses of the rows, of any float type.
            logits: (B, n_classes) logits of the rows, where they are at hand.

        Raises:
            ConfigError: `losses` or `logits` do not have the length of the batch.
        """
        expected = tuple(draw.rows.shape)
        if tuple(losses.shape) != expected or (
            logits is not None and tuple(logits.shape[:1]) != expected
        ):
            more = "" if logits is None else f" and logits of shape {tuple(logits.shape)}"
            raise ConfigError(
                f"The draw has rows of shape {expected}, but got losses of shape "
                f"{tuple(losses.shape)}{more}."
            )
        self._observe(draw, losses.detach(), None if logits is None else logits.detach())

    def before_weights(self, wait: Callable[[], None]) -> None:
        """Have `wait` called before the model's weights are read."""
        self._wait_for_weights = wait

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 at the first draw, at most 1.

        Raises:
            ConfigError: The sampler has no `total_steps`.
        """
        if self.total_steps is None:
            raise ConfigError(
                f"{type(self).__name__} changes over a run and needs total_steps, the number of "
                "steps in the whole run."
            )
        return min(1.0, self.steps / self.total_steps)

    @property
    def _reference(self) -> Reference:
        if self.rows.reference is None:
            raise ConfigError(
                f"{type(self).__name__} needs to know what earlier training learnt about the rows. "
                "Give Rows a reference."
            )
        return self.rows.reference

    def _bank_size(self, option: int | None, *, default: int) -> int:
        """Return the checked size of a bank; a default is at most the number of rows."""
        bank_size = min(default, len(self.rows)) if option is None else option
        if not self.batch_size <= bank_size <= len(self.rows):
            raise ConfigError(
                f"bank_size must be between batch_size ({self.batch_size}) and the number of "
                f"training rows ({len(self.rows)}), but got bank_size={bank_size}."
            )
        return bank_size

    def _pool_size(self, name: str, share: float) -> int:
        """Return the size of a pool that is a share of all rows, given as option `name`."""
        check_share(name, share)
        n_pool = math.floor(share * len(self.rows) + 1e-9)
        if n_pool < self.batch_size:
            raise ConfigError(
                f"{name}={share} of {len(self.rows)} rows is {n_pool}, fewer than a batch "
                f"({self.batch_size})."
            )
        return n_pool

    def _seen(self, scores: Tensor) -> Tensor:
        """Return the scores (m,) that the choice uses: permuted in a placebo. Every method passes
        its scores through here."""
        if not self.blind:
            return scores
        return scores[random_order(len(scores), self.generator)]

    @abstractmethod
    def _draw(self, forward: Forward | None) -> Draw: ...

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        """Learn from a batch whose shapes have been checked; by default, nothing."""

    def visits(self) -> Tensor:
        """Return (n,) int32: how often each row has been picked so far."""
        return self._visits + self._counted()

    def class_picks(self) -> Tensor:
        """Return (n_classes,) int64: how often each class has been picked in this epoch."""
        picks = torch.zeros(self.rows.n_classes, dtype=torch.int64, device=self.rows.device)
        return picks.scatter_add_(0, self.rows.labels, self._counted().long())

    def diagnostics(self) -> dict[str, float]:
        """Describe the picks of this epoch. This waits for the device, so call it once an epoch.

        Returns:
            `share_seen`, the share of all rows ever picked, and `class_balance`, the entropy of the
            classes picked in this epoch divided by that of a uniform distribution (1: all equally
            often, 0: one class only). A method may add more.
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
        self._epoch_rows = []

    def _check_state(self, state: Any, place: str) -> None:
        kind = state.get("sampler") if isinstance(state, Mapping) else None
        if kind is not None and kind != type(self).__name__:
            raise ConfigError(f"The state is of the batch sampler {kind}, but this is a {place}.")
        visits = state.get("visits") if isinstance(state, Mapping) else None
        if isinstance(visits, Tensor) and len(visits) != len(self.rows):
            raise ConfigError(
                f"The state is of {len(visits)} rows, but the sampler has {len(self.rows)}."
            )
        super()._check_state(state, place)

    def _counted(self) -> Tensor:
        """Return (n,) int32: how often each row has been picked in this epoch."""
        if self._epoch_rows:
            rows = torch.cat(self._epoch_rows)
            ones = torch.ones_like(rows, dtype=torch.int32)
            self._epoch_visits.scatter_add_(0, rows, ones)
            self._epoch_rows = []
        return self._epoch_visits


class ShuffledEpochs(BatchSampler):
    """The base class of batch samplers that take rows, or banks of rows, from shuffled epochs.

    `self._stream` hands out all rows in random order; it shuffles them at the start of each epoch
    and whenever too few are left.

    Args:
        rows: The training rows.
        common: As for every `BatchSampler`.
    """

    _state: ClassVar[tuple[str, ...]] = ("_stream",)

    def __init__(self, rows: Rows, **common: Unpack[Common]) -> None:
        super().__init__(rows, **common)
        self._stream = Stream(len(rows), self.generator)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()
