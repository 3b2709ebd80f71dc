"""Simulated worlds: random recordings from a known truth, to test the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impon_hpo.comparing.arms import Arm
from impon_hpo.comparing.recordings_table import Recordings

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """The effect of an arm on the learning curves of its configurations.

    Args:
        cost: What its epoch costs of a uniform one.
        speed: How much faster accuracy approaches its end.
        distortion: Standard deviation, in points, of what the arm adds to a configuration's
            accuracy, drawn again in each block: it makes the arm judge by something else.
        lift: Points that it adds to every configuration's accuracy.
        noise: Validation noise, of uniform sampling's.
        favour: Points that it adds to a configuration for each point that it is worse than the
            best; above 1 it reverses the order.
    """

    cost: float = 1.0
    speed: float = 1.0
    distortion: float = 0.0
    favour: float = 0.0
    lift: float = 0.0
    noise: float = 1.0


@dataclass(frozen=True)
class World:
    """A truth, and the effect of each arm on it.

    Args:
        effects: By kind of arm: "uniform-fraction", "uniform-short", "placebo", "importance".
        n_configurations: Configurations; their distances from the best are the quantiles of an
            exponential distribution.
        spread: Mean distance of their worth from the best, in points.
        seed_noise: Standard deviation of a configuration's accuracy over seeds, in points.
        validation_noise: Standard deviation of an epoch's validation accuracy, in points.
    """

    effects: Mapping[str, Effect]
    n_configurations: int = 12
    spread: float = 5.0
    seed_noise: float = 0.8
    validation_noise: float = 0.8

    def recordings(self, arms: list[Arm], n_blocks: int, seed: int) -> Recordings:
        """Draw the recordings of a comparison in this world."""
        generator = np.random.default_rng(seed)
        n = self.n_configurations
        worth = 60 + self.spread * np.log1p(-np.arange(n) / n)
        rows: list[dict[str, Any]] = []
        for arm in arms:
            effect = self.effects.get(arm.kind, Effect())
            epochs = np.arange(1, arm.config.epochs + 1)
            for block in range(n_blocks):
                shift = generator.normal(0, effect.distortion, n)
                shift += effect.lift + effect.favour * (worth.max() - worth)
                for number in range(n):
                    end = worth[number] + shift[number] + generator.normal(0, self.seed_noise)
                    # A good start is not always a good end: each configuration has its own pace.
                    pace = 0.35 * effect.speed * np.exp(0.1 * np.sin(number))
                    curve = end - (end - 10) * np.exp(-pace * epochs)
                    noise = effect.noise * self.validation_noise
                    seen = curve + generator.normal(0, noise, len(epochs))
                    rows += [
                        {
                            "training": arm.training,
                            "block": block,
                            "configuration": number,
                            "epoch": int(epoch),
                            "val_accuracy_last": float(seen[epoch - 1]) / 100,
                            "test_accuracy_last": float(curve[epoch - 1]) / 100,
                            "cost": 1000.0 * effect.cost,
                            "seconds_drawing": 0.0,
                            "seconds_stepping": 1.0,
                            "seconds_validating": 0.0,
                        }
                        for epoch in epochs
                    ]
        return Recordings(rows, {"configurations": [{}] * self.n_configurations})
