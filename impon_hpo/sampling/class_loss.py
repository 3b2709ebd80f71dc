"""`class-loss`: rows by the mean and the spread of the loss in their class.

Source: `PerClassGaussian` in the code of Katharopoulos & Fleuret (2017), idiap/importance-sampling.
Rule: the loss of each class has a moving mean m and a moving mean square q; every row that is
trained on moves those of its class, one row after the other: m ← α m + (1 - α) l, q ← α q +
(1 - α) l², with α = `alpha`. Score of a row = m + √(q - m²) of its class. Of a bank of random rows
the batch is drawn without replacement in proportion to score + `smoothing` · the bank's mean score.
Cost a step: a look-up; no extra pass through the deep model. State: none a row, 3 floats a class.
Weights: none, so the training loss is biased.
Helps: as the control of every loss estimator, which must predict more than the class to be worth
its cost; with classes of unequal difficulty. Hurts: within a class it is uniform, and the classes
that cannot be learnt, noisy ones first, get ever more rows (`class_balance`).

Departures from the source:
1. Means are corrected for where they began, as Adam's are, and classes never trained on take the
   highest score of the others; the source begins with m = log(classes) and q = 1 for all, which
   a class keeps until it is drawn. Before the first batch all score log(classes) here, too.
2. A bank of 200 different rows, as the paper's, for 2048 with repeats: a bank much larger than the
   batch would leave little but the worst classes. Rows of a batch differ, as elsewhere here.
3. No weights; the source hands the choice to any of its weighting policies.
4. `pick` = "top" and `smoothing` as a share of the mean score (of this bank, not a moving one).
"""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between
from impon_hpo.sampling.choice import choose_distinct
from impon_hpo.sampling.fit import EstimatorFit
from impon_hpo.sampling.rows import Rows


class ClassLoss(BatchSampler):
    """Train more on the rows of classes whose loss is high or spreads widely.

    Args:
        rows: The training rows.
        bank_size: Rows of a bank, from a batch to all training rows.
        alpha: What the moving means keep at each row of a class, from 0 to below 1.
        smoothing: Share of the mean score that is added to every score, 0 … 100.
        pick: "proportional" draws rows in proportion to their score, "top" takes the highest.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Katharopoulos & Fleuret 2017 (code)",
        forward="0",
        state="none",
        weights="none",
        use="the control of loss estimators: what the class alone tells",
    )
    beside_training = True
    _state = ("_fit", "_moments")

    def __init__(
        self,
        rows: Rows,
        *,
        bank_size: int = 200,
        alpha: float = 0.9,
        smoothing: float = 0.0,
        pick: Literal["proportional", "top"] = "proportional",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        if not 0 <= alpha < 1:
            raise ConfigError(f"alpha must be at least 0 and below 1, but got alpha={alpha}.")
        check_between("smoothing", smoothing, 0, 100)
        self.bank_size = self._bank_size(bank_size, default=bank_size)
        self.alpha = alpha
        self.smoothing = smoothing
        self.pick = pick
        # Moving sums of 1, loss and loss² in each class; float64 for the difference of squares.
        self._moments = torch.zeros(3, rows.n_classes, dtype=torch.float64, device=rows.device)
        self._fit = EstimatorFit()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._fit.clear()

    def class_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and score (n_classes,) float64 of the loss in each class."""
        weight, total, squares = self._moments
        seen = weight > 0
        weight = torch.where(seen, weight, 1.0)
        mean = total / weight
        spread = (squares / weight - mean.square()).clamp_min(0).sqrt()
        return self._filled(mean, seen), self._filled(mean + spread, seen)

    def _filled(self, values: Tensor, seen: Tensor) -> Tensor:
        highest = torch.where(seen, values, -math.inf).amax()
        unseen = torch.where(seen.any(), highest, math.log(len(values)))
        return torch.where(seen, values, unseen)

    def _draw(self, forward: Forward | None) -> Draw:
        bank = draw_bank(len(self.rows), self.bank_size, self.generator)
        labels = self.rows.labels[bank]
        mean, score = self.class_statistics()
        scores = self._seen(score[labels])
        importance = (scores + self.smoothing * scores.mean()).clamp_min(1e-6)
        if self.pick == "top":
            picked = torch.topk(importance, self.batch_size).indices
        else:
            picked = choose_distinct(importance, self.batch_size, self.generator)
        return Draw(bank[picked], scores=mean[labels[picked]].float())

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        losses = losses.float()
        if draw.scores is not None:
            self._fit.add(draw.scores, losses)
        finite = torch.isfinite(losses)
        losses = torch.where(finite, losses, 0.0).double()
        labels = self.rows.labels[draw.rows]
        classes = torch.arange(self.rows.n_classes, device=labels.device)
        member = (labels[:, None] == classes) & finite[:, None]
        # The source's one step a row, all at once: the j-th last row of a class counts (1 - α) αʲ.
        so_far = member.cumsum(0)
        later = (so_far[-1] - so_far).gather(1, labels[:, None])[:, 0].double()
        terms = torch.stack([torch.ones_like(losses), losses, losses.square()])
        new = (terms * (1 - self.alpha) * self.alpha**later) @ member.double()
        self._moments = self._moments * self.alpha ** so_far[-1].double() + new

    def diagnostics(self) -> dict[str, float]:
        return super().diagnostics() | self._fit.measures()
