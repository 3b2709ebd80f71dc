"""`class-loss`: rows by the mean and the spread of the loss in their class.

Source: `PerClassGaussian` in the code of Katharopoulos & Fleuret (2017), idiap/importance-sampling.
Rule: the loss of each class has a moving mean m and a moving mean square q. Every row that is
trained on changes those of its class, one row after the other: m ← α m + (1 - α) l and
q ← α q + (1 - α) l², with α = `alpha`. The score of a row is m + √(q - m²) of its class. Of a bank
of random rows, the batch is drawn without replacement in proportion to the score + `smoothing` ·
the mean score of the bank.
Cost a step: a look-up; no extra pass through the deep model. State: none a row, 3 floats a class.
Weights: none, so the training loss is biased.
Helps: as the control for every loss estimator, which must predict more than the class to be worth
its cost; if classes are not equally difficult. Hurts: within a class it is uniform, and classes
that cannot be learnt, such as noisy ones, get more and more rows (`class_balance`).

Departures from the source:
1. Means are corrected for their initial value, as Adam's are, and classes never trained on have the
   highest score of the others. The source begins with m = log(classes) and q = 1, which a class
   keeps until it is drawn. Before the first batch all classes score log(classes) here too.
2. A bank has 200 different rows, as in the IMPON paper, instead of 2048 with repeats. A bank much
   larger than the batch would give little but the worst classes. The rows of a batch differ.
3. There are no weights; the source lets the user choose a weighting policy.
4. `pick` = "top" is added, and `smoothing` is a share of this bank's mean score, not a moving one.
"""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between
from impon_hpo.sampling.draws import choose_distinct, draw_bank
from impon_hpo.sampling.estimators import EstimatorFit
from impon_hpo.sampling.rows import Rows


class ClassLoss(BatchSampler):
    """Train more on the rows of classes whose loss is high or spreads widely.

    Args:
        rows: The training rows.
        bank_size: Rows of a bank, from a batch to all training rows.
        alpha: Share of the moving means that is kept at each row of a class, from 0 to below 1.
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
        use="the control for loss estimators: what the class alone says",
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
        # All steps of the source at once: the j-th last row of a class counts (1 - α) αʲ.
        so_far = member.cumsum(0)
        later = (so_far[-1] - so_far).gather(1, labels[:, None])[:, 0].double()
        terms = torch.stack([torch.ones_like(losses), losses, losses.square()])
        new = (terms * (1 - self.alpha) * self.alpha**later) @ member.double()
        self._moments = self._moments * self.alpha ** so_far[-1].double() + new

    def diagnostics(self) -> dict[str, float]:
        return super().diagnostics() | self._fit.measures()
