"""`upper-bound`: rows in proportion to a bound of their gradient norm, once it is worth its cost.

Source: Katharopoulos & Fleuret (2018), "Not all samples are created equal: deep learning with
importance sampling", and their code, idiap/importance-sampling.
Rule: `presample` = B rows are drawn uniformly and scored by a forward pass, G = ‖p - y‖₂ with p the
softmax of the logits and y the one-hot label. With g = G / Σ G, the batch of b rows is drawn from
them with replacement in proportion to g. This is done only while τ > `tau_th`, with
1/τ = √(1 - Σ (g - 1/B)² / Σ g²), that is τ = √(B Σ g²): how many times larger a uniform batch of
the same variance would be. Else batches are uniform. τ is a moving average, τ ← `tau_momentum` τ +
(1 - `tau_momentum`) τ'. τ' is that of the presample while scores are in use, else that of the
batch, which the training step gives for free. The default of `tau_th` is (B + 3 b) / (3 b), which
is 2 at B = 3 b.
Cost a step: a forward pass over `presample` rows, by default 3 b, while scores are in use, else
none. State: τ; the order of the uniform batches, 8 bytes a row.
Weights: 1 / (B g) while scores are in use, so the gradient is unbiased; else none.
Helps: late in long runs; until then it costs nothing. Hurts: short runs may end before it begins,
since early on all gradients are similar (`tau` near 1, `importance_on` = 0).

Departures from the source:
1. Whether scores are used is decided once an epoch, at its start, since the host would have to wait
   for the GPU to decide it at every step. Without `start_epoch` batches stay uniform.
2. τ begins at 1, its least value, not at 0.
3. Uniform batches are those of shuffled epochs; the source draws them with replacement.
4. While scores are not in use, τ' comes from logits of training: augmented, in training mode.
5. The label is used as it is, even if training smooths labels.
Rows with a score that is not finite are not drawn if any other score is finite, and do not count
for τ.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.draws import resample
from impon_hpo.sampling.rows import Rows


class UpperBound(ShuffledEpochs):
    """Train on uniform batches until scores differ enough, then in proportion to them.

    Args:
        rows: The training rows.
        presample: Rows scored at each step (B in the paper), at least a batch, drawn with
            replacement; default three batches.
        tau_th: Scores are used in an epoch if τ is above this at its start; positive; below 1 they
            are always used. Default (presample + 3 · batch_size) / (3 · batch_size).
        tau_momentum: Share of the moving average of τ that is kept at each step, 0 … 1.
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
    _state = ("_tau", "importance_on")

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

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
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
        """Add `tau`, as it is now, and `importance_on`: 1 if this epoch's batches use scores."""
        return super().diagnostics() | {
            "tau": float(self._tau),
            "importance_on": float(self.importance_on),
        }


def logit_gradient_norm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ‖softmax(logits) - onehot(labels)‖₂ of each row.

    It is 0 if all probability is on the label, and at most √2. For the label, 1 - p is summed from
    the other classes, so that rows learnt almost perfectly still differ.

    Args:
        logits: (k, n_classes) of any float type.
        labels: (k,) int64.

    Returns:
        (k,) float32; nan where a logit is nan or infinite.
    """
    probabilities = torch.softmax(logits.float(), dim=1)
    others = probabilities.scatter(1, labels[:, None], 0.0)
    return (others.square().sum(1) + others.sum(1).square()).sqrt()


def variance_ratio(scores: Tensor) -> Tensor:
    """Return τ (float64, one value) of non-negative scores (m,): √(m Σ g²) with g = scores / Σ.

    It is 1 if all scores are equal (also if all are 0), and √m if only one is above 0. Scores that
    are not finite do not count.
    """
    finite = torch.isfinite(scores)
    scores = torch.where(finite, scores, 0.0).double()
    total = scores.sum()
    ratio = (finite.sum() * scores.square().sum()).sqrt() / total
    return torch.where(total > 0, ratio, 1.0)
