"""`upper-bound`: rows in proportion to a bound of their gradient norm, once that is worth its cost.

Source: Katharopoulos & Fleuret (2018), "Not all samples are created equal: deep learning with
importance sampling", and their code, idiap/importance-sampling.
Rule: `presample` = B rows are drawn uniformly and scored by a forward pass, G = ‖p - y‖₂ with p the
softmax of the logits and y the one-hot label; g = G / Σ G; the batch of b rows is drawn from them
with replacement in proportion to g. This is done only while τ > `tau_th`, with
1/τ = √(1 - Σ (g - 1/B)² / Σ g²), which is τ = √(B Σ g²): how many times larger a uniform batch of
the same variance would be. Else batches are uniform. τ is a moving average, τ ← `tau_momentum` τ +
(1 - `tau_momentum`) τ', of the presample's τ' while scores are in use, else of the batch's, which
the training step gives for free. By default `tau_th` = (B + 3 b) / (3 b): 2 at B = 3 b.
Cost a step: a forward pass over `presample` rows, by default 3 b, while scores are in use, else
none. State: τ; the order of the uniform batches, 8 bytes a row.
Weights: 1 / (B g) while scores are in use, so the gradient is unbiased; else none.
Helps: late in long runs; until then it costs nothing. Hurts: short runs may end before it begins,
since early on all gradients are alike (`tau` close to 1, `importance_on` = 0).

Departures from the source:
1. Whether scores are used is decided once an epoch, at its start, since asking at every step would
   make the host wait for the GPU at every step. Without `start_epoch` batches stay uniform.
2. τ begins at 1, the least it can be, not at 0.
3. Uniform batches are those of shuffled epochs; the source draws them with replacement.
4. While scores are not in use τ' comes from logits of training: augmented, in training mode.
5. The label is taken as it is, where training smooths labels, too.
Rows with a score that is not finite are not drawn as long as others are, nor do they count for τ.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.logit_gradient import logit_gradient_norm
from impon_hpo.sampling.resample import resample
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class UpperBound(BatchSampler):
    """Train on uniform batches until scores differ enough, then in proportion to them.

    Args:
        rows: The training rows.
        presample: Rows scored a step (B in the paper), at least a batch, drawn with replacement;
            by default three batches.
        tau_th: Scores are used in epochs at whose start τ is above it, positive; below 1 always.
            By default (presample + 3 · batch_size) / (3 · batch_size).
        tau_momentum: What the moving average of τ keeps at each step, 0 … 1.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Katharopoulos & Fleuret 2018",
        forward="presample, 3 B by default; 0 while off",
        state="none",
        weights="1 / (presample · g); none while off",
        use="a bound of the gradient norm, used only in epochs where it is worth its cost",
    )
    beside_training = True
    needs_forward = True
    repeats_rows = True
    _state = ("_stream", "_tau", "importance_on")

    def __init__(
        self,
        rows: Rows,
        *,
        presample: int | None = None,
        tau_th: float | None = None,
        tau_momentum: float = 0.9,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        three_batches = 3 * self.batch_size
        self.presample = three_batches if presample is None else presample
        if self.presample < self.batch_size:
            raise ConfigError(
                f"presample must be at least batch_size ({self.batch_size}), but got "
                f"presample={presample}."
            )
        default = (self.presample + three_batches) / three_batches
        self.tau_th = default if tau_th is None else tau_th
        check_positive("tau_th", self.tau_th)
        check_between("tau_momentum", tau_momentum, 0, 1)
        self.tau_momentum = tau_momentum
        self.importance_on = False
        """Whether this epoch's batches are drawn in proportion to scores."""
        self._tau = torch.ones((), dtype=torch.float64, device=rows.device)
        self._stream = Stream(len(rows), self.generator)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()
        self.importance_on = float(self._tau) > self.tau_th

    def _draw(self, forward: Forward | None) -> Draw:
        if not self.importance_on:
            return Draw(self._stream.take(self.batch_size))
        assert forward is not None
        bank = torch.randint(
            len(self.rows), (self.presample,), generator=self.generator, device=self.rows.device
        )
        _, logits = forward(bank)
        scores = logit_gradient_norm(logits, self.rows.labels[bank])
        self._follow(scores)
        picked, weights = resample(self._seen(scores), self.batch_size, self.generator)
        return Draw(bank[picked], weights)

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if not self.importance_on and logits is not None:
            self._follow(logit_gradient_norm(logits, self.rows.labels[draw.rows]))

    def _follow(self, scores: Tensor) -> None:
        finite = torch.isfinite(scores)
        moved = torch.lerp(variance_ratio(scores), self._tau, self.tau_momentum)
        self._tau = torch.where(finite.any(), moved, self._tau)

    def diagnostics(self) -> dict[str, float]:
        """Add `tau` as it is now, and `importance_on`: 1 if this epoch's batches use scores."""
        return super().diagnostics() | {
            "tau": float(self._tau),
            "importance_on": float(self.importance_on),
        }


def variance_ratio(scores: Tensor) -> Tensor:
    """Return τ (float64, one value) of non-negative scores (m,): √(m Σ g²) with g = scores / Σ.

    It is 1 where all scores are equal (0 included), and √m where one has it all. Scores that are
    not finite do not count.
    """
    finite = torch.isfinite(scores)
    scores = torch.where(finite, scores, 0.0).double()
    total = scores.sum()
    ratio = (finite.sum() * scores.square().sum()).sqrt() / total
    return torch.where(total > 0, ratio, 1.0)
