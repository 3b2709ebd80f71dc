"""`placebo`: another sampler's whole path, with its scores permuted before the choice.

Source: this project; the control that a clinical trial would ask for.
Rule: everything that the other sampler does and pays for is done, forward passes, estimators and
histories included, but its scores are permuted at random among their rows before rows are chosen.
Cost a step, state, weights: the other sampler's.
Helps: what a sampler gains over its placebo is due to its scores; what both gain over `uniform` is
due to what comes with them (fewer different rows, other batches). Hurts: never better than nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_known
from impon_hpo.sampling.rows import Rows


class Placebo(BatchSampler):
    """Do what another sampler does, with permuted scores.

    Args:
        rows: The training rows.
        of: Name of the other sampler.
        options: Its options.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: The other sampler is unknown, is a placebo itself, or refuses its options.
    """

    card = Card(
        source="control",
        forward="the other's",
        state="the other's",
        weights="the other's",
        use="pays for another sampler's path and permutes its scores",
    )
    class_of: ClassVar[Callable[[str], type[BatchSampler]]]
    """From a name to a batch sampler; set by the table, which imports this file."""
    _state = ("other",)

    @classmethod
    def wants_reference(cls, options: Mapping[str, Any]) -> bool:
        other = Placebo.class_of(options.get("of", "impon"))
        return other.wants_reference(options.get("options") or {})

    def __init__(
        self,
        rows: Rows,
        *,
        of: str = "impon",
        options: dict[str, Any] | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        other = Placebo.class_of(of)
        if issubclass(other, Placebo):
            raise ConfigError(
                f"A placebo must be of another batch sampler than a placebo, but got of='{of}'."
            )
        check_known(of, other, options or {})
        self.other: BatchSampler = other(rows, **common, **(options or {}))
        self.other.blind = True
        self.repeats_rows = self.other.repeats_rows
        self.needs_forward = self.other.needs_forward
        self.watches_scoring = self.other.watches_scoring
        self.beside_training = self.other.beside_training

    def before_weights(self, wait: Callable[[], None]) -> None:
        self.other.before_weights(wait)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.other.start_epoch(epoch)

    def _draw(self, forward: Forward | None) -> Draw:
        return self.other.draw(forward)

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        self.other.observe(draw, losses, logits)

    def diagnostics(self) -> dict[str, float]:
        return self.other.diagnostics()
