"""`impon` and `impon-low`: the paper's batch sampler, and its ablation with the lowest scores.

Source: Ganapathiraman, Calderon Rodriguez, Joshi: IMPON (2022).
Rule: draw a bank of `bank_size` = 200 rows; predict each row's loss by a linear model from the
context vector {features of the row; ‖w‖_F of the deep weights}; train on the `batch_size` rows with
the highest (`impon-low`: the lowest) prediction; learn from their observed losses by one SGD step
at `estimator_lr` = 1e-6; draw new linear weights after every epoch.
Cost a step: one linear model on the bank and one norm; no extra pass through the deep model.
State: d + 2 floats and a generator. Weights: none, so the training loss is biased.
Helps: nobody has shown it to at an equal learning rate (studies/cifar10-cpu measures it).
Hurts: ‖w‖_F is the same for the whole bank and so cannot change the ranking; at 1e-6 the model
learns one to three directions of brightness before it is reset; rows with a low score are never
seen, so the share of rows ever trained on grows slowly (`share_seen`).

Departures from the paper, each where it is silent:
1. The features are not named: flattened normalised pixels, without augmentation.
2. Nor are the initial linear weights: those of `torch.nn.Linear`.
3. ‖w‖_F is taken over all trainable parameters, those of batch normalisation included.
4. The squared error is averaged over the batch, not summed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Draw, Forward
from impon_hpo.sampling.estimator import Init, LinearEstimator
from impon_hpo.sampling.features import make_features
from impon_hpo.sampling.fit import EstimatorFit
from impon_hpo.sampling.rows import Rows


class Impon(BatchSampler):
    """Train on the rows of a random bank whose loss a linear model predicts to be highest.

    Args:
        rows: The training rows.
        batch_size: Rows a batch, at most `bank_size`.
        model: The deep model, whose weights' norm enters the context vector.
        seed: Seed of the banks and of the linear weights.
        bank_size: Rows of a bank (N in the paper), at most the number of training rows.
        estimator_lr: Learning rate of the linear model, positive.
        features: "pixels", "pooled" (averages over a 4 × 4 grid), "pca" (32 components), or a
            function from prepared inputs (k, ...) to (k, d), also as "module:function".
        estimator_init: "uniform" (as `torch.nn.Linear`) or "zeros".

    Raises:
        ConfigError: An argument is out of its range.
    """

    _sign: ClassVar[float] = 1.0

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        model: nn.Module,
        seed: int = 0,
        bank_size: int = 200,
        estimator_lr: float = 1e-6,
        features: str | Callable[[Tensor], Tensor] = "pixels",
        estimator_init: Init = "uniform",
    ) -> None:
        super().__init__(rows, batch_size=batch_size, model=model, seed=seed)
        if not batch_size <= bank_size <= len(rows):
            raise ConfigError(
                f"bank_size must be between batch_size ({batch_size}) and the number of training "
                f"rows ({len(rows)}), but got bank_size={bank_size}."
            )
        if not 0 < estimator_lr < float("inf"):
            raise ConfigError(
                f"estimator_lr must be positive and finite, but got estimator_lr={estimator_lr}."
            )
        if estimator_init not in ("uniform", "zeros"):
            raise ConfigError(
                f"estimator_init must be 'uniform' or 'zeros', but got '{estimator_init}'."
            )
        self.bank_size = bank_size
        self._features, n_features = make_features(features, rows)
        self.estimator = LinearEstimator(
            n_features + 1, lr=estimator_lr, init=estimator_init, generator=self.generator
        )
        self._fit = EstimatorFit()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._fit.clear()
        if epoch > 1:
            self.estimator.reset()

    def _draw(self, forward: Forward | None) -> Draw:
        bank = draw_bank(len(self.rows), self.bank_size, self.generator)
        norm = get_total_norm([p.detach() for p in self.model.parameters() if p.requires_grad])
        context = torch.cat([self._features(bank), norm.float().expand(len(bank), 1)], dim=1)
        scores = self.estimator.predict(context)
        picked = torch.topk(self._sign * scores, self.batch_size).indices
        return Draw(bank[picked], scores=scores[picked], context=context[picked])

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if draw.scores is None or draw.context is None:
            raise ConfigError("observe() needs the draw that this batch sampler returned.")
        losses = losses.float()
        self._fit.add(draw.scores, losses)
        self.estimator.update(draw.context, losses)

    def diagnostics(self) -> dict[str, float]:
        return super().diagnostics() | self._fit.measures()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"estimator": self.estimator.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.estimator.load_state_dict(state["estimator"])


class ImponLow(Impon):
    """The paper's ablation: train on the rows whose predicted loss is lowest; else as `Impon`."""

    _sign = -1.0
