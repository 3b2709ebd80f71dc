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
from impon_hpo.lookup import find
from impon_hpo.sampling.base import BatchSampler, Common, Draw, Forward
from impon_hpo.sampling.card import Card
from impon_hpo.sampling.options import check_known, check_sampler
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
    # The table fills this in: it imports this file, so this file cannot import it.
    known: ClassVar[Mapping[str, type[BatchSampler]]] = {}

    @classmethod
    def wants_reference(cls, options: Mapping[str, Any]) -> bool:
        name = options.get("of", "impon")
        other = check_sampler(name, find(cls.known, name, "batch sampler"))
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
        kind = check_sampler(of, find(self.known, of, "batch sampler"))
        if issubclass(kind, Placebo):
            raise ConfigError("A placebo of a placebo is none: give `of` another batch sampler.")
        check_known(of, kind, options or {})
        constructor: Callable[..., BatchSampler] = kind
        self.other = constructor(rows, **common, **(options or {}))
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

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"other": self.other.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.other.load_state_dict(state["other"])
