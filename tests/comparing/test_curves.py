"""The curves of a grid, against numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from impon_hpo.comparing.curves import Curves, cost_ratio, curves_of, table
from impon_hpo.errors import ConfigError


def run(
    arm: str, accuracies: list[float], *, cost: float = 100.0, seed: int = 0, **changed: Any
) -> dict[str, Any]:
    epochs = [
        {
            "val_accuracy": accuracy,
            "cost": cost,
            "rows_trained": 10,
            "seconds_drawing": 0.5,
            "seconds_stepping": 1.5,
            "diagnostics": {},
        }
        for accuracy in accuracies
    ]
    whole = {"arm": arm, "params": {}, "seed": seed, "epochs": epochs, "ended": "", "horizon": 4}
    return whole | {"reference_cost": 0} | changed


UNIFORM = run("uniform", [0.1, 0.2, 0.3, 0.4])


def both(accuracies: list[float], cost: float = 100.0) -> dict[str, Curves]:
    return curves_of([UNIFORM, run("new", accuracies, cost=cost)], chance=0.0)


@pytest.mark.parametrize(
    ("accuracies", "cost", "epoch", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], 100, 2, 1.0),
        ([0.2, 0.3, 0.4, 0.4], 100, 2, 0.5),
        ([0.2, 0.3, 0.4, 0.4], 200, 2, 1.0),  # twice the cost a step eats it
        ([0.1, 0.3, 0.4, 0.4], 100, 2, 0.75),  # half-way through its second epoch
        ([0.9, 0.9, 0.9, 0.9], 100, 4, 0.25),  # within the first epoch nothing is credited
        ([0.1, 0.1, 0.1, 0.1], 100, 2, math.inf),
        ([0.1, 0.35, 0.2, 0.5], 100, 3, 1.8 / 3),  # when it is first reached
    ],
)
def test_cost_to_the_control_s_accuracy(
    accuracies: list[float], cost: float, epoch: int, expected: float
) -> None:
    curves = both(accuracies, cost)
    assert cost_ratio(curves["new"], curves["uniform"], epoch) == pytest.approx(expected)


def test_diverged_run_keeps_its_last_accuracy_and_counts() -> None:
    broken = run("new", [0.1, 0.2], ended="The training loss is nan.")
    nothing = run("new", [], seed=1, ended="The training loss is nan.")
    curves = curves_of([broken, nothing, run("new", [0.1] * 4, seed=2)], chance=0.05)["new"]
    np.testing.assert_array_equal(curves.accuracy[0], [0.1, 0.2, 0.2, 0.2])
    np.testing.assert_array_equal(curves.accuracy[1], [0.05] * 4)
    np.testing.assert_array_equal(curves.cost, [100, 200, 300, 400])
    assert curves.n_ended == 2


def test_table_pairs_the_runs() -> None:
    results = [
        run("uniform", [0.1, 0.2, 0.3, 0.4]),
        run("uniform", [0.1, 0.2, 0.3, 0.5], seed=1),
        run("new", [0.1, 0.2, 0.3, 0.42]),
        run("new", [0.1, 0.2, 0.3, 0.54], seed=1),
    ]
    rows = table(curves_of(results, chance=0.0), control="uniform", epochs=[1, 4], targets=[2, 4])
    assert [row["arm"] for row in rows] == ["uniform", "new"]
    assert rows[0]["last_minus_control_points"] == 0
    assert rows[1]["epoch_4"] == 0.48
    assert rows[1]["last_minus_control_points"] == 3.0
    assert rows[1]["standard_error"] == 1.0  # of 2 and 4
    assert rows[1]["cost_to_control_epoch_2"] == 1.0
    assert rows[1]["step_cost"] == 1.0
    assert rows[1]["step_seconds"] == 1.0
    assert math.isnan(rows[1]["rank_correlation"])


def test_rank_correlation_is_the_mean_of_the_epochs() -> None:
    one = run("new", [0.1, 0.2, 0.3, 0.4])
    for epoch, value in zip(one["epochs"], [0.1, 0.2, 0.3, 0.6], strict=True):
        epoch["diagnostics"] = {"rank_correlation": value}
    assert curves_of([one], chance=0.0)["new"].rank_correlation == pytest.approx(0.3)


def test_control_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"control 'uniform' is not among the arms: new"):
        table(
            curves_of([run("new", [0.1] * 4)], chance=0), control="uniform", epochs=[], targets=[]
        )
