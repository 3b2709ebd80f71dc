"""`grad-norm`: rows in proportion to the norm of their gradient at the last layer, unbiased.

Source: Alain et al. (2015), "Variance reduction in SGD by distributed importance sampling".
Rule: a bank of random rows is scored by a forward pass; score G = ‖p - y‖₂ · √(‖h‖₂² + 1), the
exact norm of the row's gradient by weights and bias of the last linear layer, with p the softmax of
the logits, y the one-hot label and h what goes into that layer (without a bias there is no + 1); to
every score `smoothing` times the bank's mean is added; g = G / Σ G; the batch is drawn with
replacement in proportion to g.
Cost a step: a forward pass over the bank, by default 3 B rows. State: none.
Weights: 1 / (bank size · g), so the gradient is on average the bank's.
Helps: where few rows have most of the gradient, late in long runs. Hurts: a row of low score gets a
high weight, which makes steps jumpy at `smoothing` = 0; early on all norms are alike and the
scoring is paid for nothing.

Departures from the source:
1. The norm is that of the last layer alone, which takes a forward pass; the source's is of all
   layers, and takes a backward pass.
2. Scores are of this very step, from a bank; the source's workers score all rows all the time, and
   the trainer uses scores as old as they happen to be.
3. The additive constant is in units of the bank's mean score, since norms shrink over a run.
4. The label is taken as it is, where training smooths labels, too.
Rows with a norm that is not finite are not drawn as long as others are.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.logit_gradient import logit_gradient_norm
from impon_hpo.sampling.resample import resample
from impon_hpo.sampling.rows import Rows


class GradNorm(BatchSampler):
    """Train on rows of a bank in proportion to their gradient norm at the last linear layer.

    Args:
        rows: The training rows.
        bank_size: Rows scored a step, from a batch to all training rows; by default three batches.
        smoothing: Share of the bank's mean score that is added to every score, at least 0.
        common: As for every `BatchSampler`; the model must end in an `nn.Linear` that gives the
            logits, and must not be compiled.

    Raises:
        ConfigError: An argument is out of its range, or the model has no linear layer.
    """

    card = Card(
        source="Alain et al. 2015",
        forward="bank_size, 3 B by default",
        state="none",
        weights="1 / (bank_size · g)",
        use="exact gradient norms of the last layer, seen by a forward pass",
    )
    beside_training = True
    needs_forward = True
    watches_scoring = True
    repeats_rows = True

    def __init__(
        self,
        rows: Rows,
        *,
        bank_size: int | None = None,
        smoothing: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        if not 0 <= smoothing < math.inf:
            raise ConfigError(
                f"smoothing must be at least 0 and finite, but got smoothing={smoothing}."
            )
        self.bank_size = self._bank_size(bank_size, default=3 * self.batch_size)
        self.smoothing = smoothing
        layers = [layer for layer in self.model.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise ConfigError(
                "grad-norm takes the gradient at the last nn.Linear of the model, but the model "
                "has none; `upper-bound` works with any model."
            )
        self._last = layers[-1]

    def _draw(self, forward: Forward | None) -> Draw:
        assert forward is not None
        bank = draw_bank(len(self.rows), self.bank_size, self.generator)
        norms = self.gradient_norms(bank, forward)
        mean = torch.where(torch.isfinite(norms), norms, math.nan).nanmean()
        scores = self._seen(norms + self.smoothing * mean)
        picked, weights = resample(scores, self.batch_size, self.generator)
        return Draw(bank[picked], weights)

    def gradient_norms(self, rows: Tensor, forward: Forward) -> Tensor:
        """Return (k,) float32: the gradient norm of each of `rows` (k,) at the last layer.

        Raises:
            ConfigError: The last linear layer did not run, or is not the one that gives the logits.
        """
        inputs: list[Tensor] = []

        def note(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            # What a compiler traces it would do again at every later call.
            if not torch.compiler.is_compiling():
                inputs.append([*given, *named.values()][0].detach())

        hook = self._last.register_forward_pre_hook(note, with_kwargs=True)
        try:
            _, logits = forward(rows)
        finally:
            hook.remove()
        if not inputs:
            raise ConfigError(
                "grad-norm reads what goes into the last nn.Linear of the model, but that layer "
                "was not seen to run. The model must not be compiled, and the last "
                "nn.Linear must be the layer that gives the logits."
            )
        entering = torch.cat(inputs).float()
        expected = (len(rows), self._last.in_features)
        if tuple(entering.shape) != expected or logits.shape[1] != self._last.out_features:
            raise ConfigError(
                "grad-norm needs a model whose last nn.Linear gives the logits, one vector a row: "
                f"its input must be of shape {expected}, but is {tuple(entering.shape)}; it has "
                f"{self._last.out_features} outputs, and there are {logits.shape[1]} logits."
            )
        squared = entering.square().sum(1) + (0 if self._last.bias is None else 1)
        return logit_gradient_norm(logits, self.rows.labels[rows]) * squared.sqrt()
