"""Fidelity: how well what is seen of a run early agrees with what its configuration is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from impon_hpo.comparing.arms import Arm
from impon_hpo.comparing.outcomes import Truth, complete_blocks, curves_of_arm
from impon_hpo.comparing.recordings_table import Recordings

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Fidelity:
    """An arm's learning curves, and how well they rank the configurations.

    Means over configurations where a value belongs to a block. A run that diverged keeps its last
    accuracy, 0 where it has none.

    Args:
        arm: Name of the arm.
        blocks: The blocks that it has.
        cost: (epochs,) forward-equivalents of a run up to each epoch, mean.
        accuracy: (blocks, epochs) validation accuracy in points.
        tau: (blocks, epochs) Kendall's τ-b of validation accuracy and truth.
        overlap: (blocks, epochs) share of the truly best three among the three seen best.
        regret: (blocks, epochs) truth of the best minus truth of the one seen best, in points.
        regret_of_3: (blocks, epochs) the same for the best of the three seen best.
        last: (configurations,) last validation accuracy in points, mean over blocks.
        seconds: Seconds by phase of a whole run, mean.
    """

    arm: str
    blocks: tuple[int, ...]
    cost: Numbers
    accuracy: Numbers
    tau: Numbers
    overlap: Numbers
    regret: Numbers
    regret_of_3: Numbers
    last: Numbers
    seconds: dict[str, float]


def fidelity(recordings: Recordings, arm: Arm, truth: Truth) -> Fidelity | None:
    """Measure an arm's fidelity over its blocks; None where it has none."""
    n = truth.by_block.shape[1]
    blocks = [b for b in complete_blocks(recordings, arm, n) if b in truth.blocks]
    if not blocks:
        return None
    horizon = arm.config.epochs
    measured = np.zeros((5, len(blocks), horizon))
    costs, last = [], np.zeros((len(blocks), n))
    for at, block in enumerate(blocks):
        curves = curves_of_arm(recordings, arm, block, n)
        seen = np.array([_filled(curves[number].accuracy, horizon) for number in range(n)])
        costs += [np.cumsum(c.cost) for c in list(curves.values())[1:] if len(c.cost) == horizon]
        worth = truth.of(block)
        top = set(np.argsort(-worth)[:3].tolist())
        last[at] = seen[:, -1]
        for epoch in range(horizon):
            best_seen = np.argsort(-seen[:, epoch], kind="stable")[:3]
            tau = stats.kendalltau(seen[:, epoch], worth).statistic
            measured[:, at, epoch] = (
                seen[:, epoch].mean(),
                0.0 if np.isnan(tau) else tau,
                len(top & set(best_seen.tolist())) / len(top),
                worth.max() - worth[best_seen[0]],
                worth.max() - worth[best_seen].max(),
            )
    return Fidelity(
        arm=arm.name,
        blocks=tuple(blocks),
        cost=np.mean(costs, axis=0) if costs else np.full(horizon, np.nan),
        accuracy=measured[0],
        tau=measured[1],
        overlap=measured[2],
        regret=measured[3],
        regret_of_3=measured[4],
        last=last.mean(0),
        seconds=_seconds(recordings, arm, blocks, n),
    )


def _filled(accuracy: tuple[float, ...], horizon: int) -> list[float]:
    points = [100 * value for value in accuracy]
    return points + [points[-1] if points else 0.0] * (horizon - len(points))


def _seconds(recordings: Recordings, arm: Arm, blocks: list[int], n: int) -> dict[str, float]:
    runs: list[Any] = [
        recordings.runs[arm.training, block, number] for block in blocks for number in range(1, n)
    ]
    return {
        phase: float(
            np.mean([sum(epoch[f"seconds_{phase}"] for epoch in run.epochs) for run in runs])
        )
        for phase in ("drawing", "stepping", "validating")
    }
