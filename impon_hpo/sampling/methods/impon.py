"""`impon` and `impon-low`: the paper's batch sampler, and its ablation with the lowest scores.

Source: Ganapathiraman, Calderon Rodriguez, Joshi: IMPON (2022).
Rule: draw a bank of `bank_size` = 200 rows; predict each row's loss by a linear model from the
context vector {features of the row; ‖w‖_F of the deep weights}; train on the `batch_size` rows with
the highest (`impon-low`: the lowest) prediction; learn from their observed losses by one SGD step
at `estimator_lr` = 1e-6; draw new linear weights after every epoch.
Cost a step: one linear model on the bank and one norm; no extra pass through the deep model.
State: d + 2 floats and a generator. Weights: none, so the training loss is biased.
Helps: not shown by anyone at an equal learning rate (studies/cifar10-cpu measures it).
Hurts: ‖w‖_F is the same for the whole bank and so cannot change the ranking. At 1e-6 the linear
model learns one to three directions of brightness before it is reset. Rows with a low score are
never seen, so the share of rows ever trained on grows slowly (`share_seen`).

What the paper leaves for later is an option each: banks that grow or shrink over the run, no reset
or a gradual one, rows picked in proportion to the prediction, recursive least squares for SGD.

Choices where the paper says nothing:
1. Features: flattened normalised pixels, without augmentation; of images above 64 pixels a side,
   averages over a 4 × 4 grid, so that a bank of whole photographs is not read at every step.
2. Initial linear weights: those of `torch.nn.Linear`.
3. ‖w‖_F is that of all trainable parameters, including those of batch normalisation.
4. The squared error is averaged over the batch, not summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.captured import Captured
from impon_hpo.sampling.checks import Common, check_positive, check_share
from impon_hpo.sampling.draws import choose_distinct, draw_bank
from impon_hpo.sampling.estimators import EstimatorFit, Init, LinearEstimator, RecursiveLeastSquares
from impon_hpo.sampling.features import WeightNorm, make_features
from impon_hpo.sampling.rows import Rows


class Impon(BatchSampler):
    """Train on the rows of a random bank whose loss a linear model predicts to be highest.

    Args:
        rows: The training rows.
        bank_size: Rows of a bank (N in the paper), from a batch to all training rows.
        bank_schedule: "constant"; "growing", from a batch to `bank_size` over the run; "shrinking",
            the reverse. The latter two need `total_steps`.
        features: "pixels", "pooled" (averages over a 4 × 4 grid), "auto" (pixels, but pooled
            ones of images above 64 pixels), "pca" (32 components), or a function from prepared
            inputs (k, ...) to (k, d), or its name as "module:function".
        estimator: "sgd", as in the paper, or "rls", recursive least squares (for d < 500).
        estimator_lr: Learning rate of "sgd", positive.
        estimator_init: Initial weights of "sgd": "uniform" (as `torch.nn.Linear`) or "zeros".
        forgetting: Factor of "rls" at each batch, above 0, at most 1.
        ridge: Ridge penalty of "rls", positive.
        reset: At each new epoch "epoch" begins with new weights, "never" keeps them, and "decay"
            halves what was learnt.
        pick: "top" takes the rows with the highest predictions; "proportional" draws rows in
            proportion to their prediction.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> from impon_hpo import Impon, Rows
        >>> inputs, labels = torch.rand(300, 8), torch.arange(300) % 3
        >>> model = torch.nn.Linear(8, 3)
        >>> sampler = Impon(Rows(inputs, labels, n_classes=3), batch_size=32, model=model)
        >>> sampler.start_epoch(1)
        >>> for _ in range(9):
        ...     draw = sampler.draw()
        ...     logits = model(inputs[draw.rows])
        ...     losses = cross_entropy(logits, labels[draw.rows], reduction="none")
        ...     # … the step of the optimiser …
        ...     sampler.observe(draw, losses)
        >>> sorted(sampler.diagnostics())
        ['class_balance', 'r_squared', 'rank_correlation', 'share_seen']
    """

    card = Card(
        source="Ganapathiraman et al. 2022",
        forward="0",
        state="none",
        weights="none",
        use="the paper's rule; behind uniform at an equal learning rate",
    )
    beside_training = True
    _highest: ClassVar[bool] = True
    _state = ("_fit", "estimator")

    def __init__(
        self,
        rows: Rows,
        *,
        bank_size: int = 200,
        bank_schedule: Literal["constant", "growing", "shrinking"] = "constant",
        features: str | Callable[[Tensor], Tensor] = "auto",
        estimator: Literal["sgd", "rls"] = "sgd",
        estimator_lr: float = 1e-6,
        estimator_init: Init = "uniform",
        forgetting: float = 0.999,
        ridge: float = 1.0,
        reset: Literal["epoch", "never", "decay"] = "epoch",
        pick: Literal["top", "proportional"] = "top",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        check_positive("estimator_lr", estimator_lr)
        check_share("forgetting", forgetting)
        check_positive("ridge", ridge)
        if bank_schedule != "constant" and self.total_steps is None:
            raise ConfigError(f"bank_schedule='{bank_schedule}' needs total_steps.")
        self.bank_size = self._bank_size(bank_size, default=bank_size)
        self.bank_schedule = bank_schedule
        self.reset = reset
        self.pick = pick
        self._features, n_features = make_features(features, rows)
        self.estimator: LinearEstimator | RecursiveLeastSquares
        if estimator == "sgd":
            self.estimator = LinearEstimator(
                n_features + 1, lr=estimator_lr, init=estimator_init, generator=self.generator
            )
        else:
            self.estimator = RecursiveLeastSquares(
                n_features + 1, forgetting=forgetting, ridge=ridge, device=rows.device
            )
        self._fit = EstimatorFit()
        self._norm = WeightNorm(self.model)
        self._capture()
        self._learn = Captured(self.estimator.update, rows.device)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._fit.clear()
        norm = WeightNorm(self.model)
        if not norm.is_of_the_same(self._norm):  # parameters were frozen or replaced
            self._norm = norm
            self._capture()
        if epoch > 1 and self.reset != "never":
            self.estimator.shrink(0.0 if self.reset == "epoch" else 0.5)

    def _draw(self, forward: Forward | None) -> Draw:
        bank, features = self._bank()
        self._wait_for_weights()
        rows, scores, context = self._choose(bank, features)
        return Draw(rows, scores=scores, context=context)

    def _capture(self) -> None:
        same_shape = self.bank_schedule == "constant"
        self._bank, self._choose = (
            Captured(part, self.rows.device, generators=[self.generator], capture=same_shape)
            for part in (self._drawn_bank, self._chosen)
        )

    def _drawn_bank(self) -> tuple[Tensor, Tensor]:
        """Return the rows (N,) of a bank and their features (N, d - 1)."""
        bank = draw_bank(len(self.rows), self._current_bank_size(), self.generator)
        return bank, self._features(bank)

    def _chosen(self, bank: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows (B,) of a batch, their scores (B,) and context vectors (B, d)."""
        norm = self._norm().to(features)[None]  # without parameters it is on the CPU
        scores = self.estimator.predict(features, shared=norm)
        picked = self._pick(self._seen(scores))
        rows, scores, chosen = (part.index_select(0, picked) for part in (bank, scores, features))
        context = torch.cat([chosen, norm.expand(len(picked), 1)], dim=1)
        return rows, scores, context

    def _current_bank_size(self) -> int:
        if self.bank_schedule == "constant":
            return self.bank_size
        share = self.progress if self.bank_schedule == "growing" else 1 - self.progress
        return round(self.batch_size + share * (self.bank_size - self.batch_size))

    def _pick(self, scores: Tensor) -> Tensor:
        scores = scores if self._highest else -scores
        if self.pick == "top":
            return torch.topk(scores, self.batch_size).indices
        # For the lowest scores, the predictions are mirrored within the bank.
        importance = scores if self._highest else scores - scores.min() - scores.max()
        return choose_distinct(importance.clamp_min(1e-6), self.batch_size, self.generator)

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if draw.scores is None or draw.context is None:
            raise ConfigError("observe() needs the draw that this batch sampler returned.")
        losses = losses.float()
        self._fit.add(draw.scores, losses)
        self._learn(draw.context, losses)

    def diagnostics(self) -> dict[str, float]:
        return super().diagnostics() | self._fit.measures()


class ImponLow(Impon):
    """The paper's ablation: as `Impon`, but train on the rows whose predicted loss is lowest.

    Args:
        rows: The training rows.
        arguments: As for `Impon`.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from impon_hpo import ImponLow, Rows
        >>> rows = Rows(torch.rand(300, 8), torch.arange(300) % 3, n_classes=3)
        >>> sampler = ImponLow(rows, batch_size=32, bank_size=100, model=torch.nn.Linear(8, 3))
        >>> sampler.draw()
        Draw(rows=int64 (32,), weights=None, scores=float32 (32,), context=float32 (32, 9))
    """

    card = replace(Impon.card, use="the paper's ablation: the lowest scores")
    beside_training = True
    _highest = False
