"""Replay: the decisions of Optuna's pruners on curves whose outcome can be worked out by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.comparing.replay import Curve, finish_best, replay, replay_promotion
from impon_hpo.tuning.algorithms import make_pruner
from impon_hpo.tuning.promotion import Promotion

PROMOTE = Promotion(reduction_factor=3, epochs=9)
HALVING = {"name": "SuccessiveHalvingPruner", "reduction_factor": 3}
PRUNERS: list[dict[str, Any]] = [
    {"name": "NopPruner"},
    HALVING,
    {"name": "HyperbandPruner", "reduction_factor": 3},
    {"name": "MedianPruner", "n_startup_trials": 1},
    {"name": "PercentilePruner", "percentile": 25.0, "n_startup_trials": 1},
    {"name": "PatientPruner", "patience": 1, "wrapped_pruner": {"name": "MedianPruner"}},
    {"name": "WilcoxonPruner", "n_startup_steps": 1},
]


def flat(accuracy: float, horizon: int = 9, cost: float = 10.0) -> Curve:
    return Curve((accuracy,) * horizon, (cost,) * horizon, 0.0, horizon)


def pruner(table: dict[str, Any], horizon: int = 9) -> Any:
    return make_pruner(table, epochs=horizon)


def test_without_a_pruner_everything_is_paid_and_the_best_is_picked() -> None:
    curves = {0: flat(0.1), 1: flat(0.3), 2: flat(0.2)}
    done = replay(curves, [2, 0, 1], pruner({"name": "NopPruner"}), cost=5.0)
    assert done.stopped == {0: 9, 1: 9, 2: 9}
    assert done.cost == 5 + 3 * 90
    assert done.picks == ((95.0, 2), (185.0, 2), (275.0, 1))
    assert done.pick == 1


def test_successive_halving_stops_at_its_rungs_counted_from_one() -> None:
    curves = {0: flat(0.5), 1: flat(0.4), 2: flat(0.3), 3: flat(0.6)}
    done = replay(curves, [0, 1, 2, 3], pruner(HALVING))
    # The first trial is always promoted; worse ones end after epoch 1, a better one goes on.
    assert done.stopped == {0: 9, 1: 1, 2: 1, 3: 9}
    assert done.cost == 200
    assert done.pick == 3


def test_promotion_passes_nobody_over_for_having_come_early() -> None:
    curves = {0: flat(0.3), 1: flat(0.2), 2: flat(0.1), 3: flat(0.4), 4: flat(0.5), 5: flat(0.25)}
    done = replay_promotion(curves, list(range(6)), PROMOTE, cost=5.0)
    # 0 goes on as the best of three, 3 and 4 as the best of those that came later.
    assert done.stopped == {0: 3, 1: 1, 2: 1, 3: 3, 4: 9, 5: 1}
    assert done.cost == 5 + 10 * (3 + 1 + 1 + 3 + 9 + 1)
    assert done.pick == 4
    assert done.picks[-1] == (done.cost, 4)
    optunas = replay(curves, list(range(6)), pruner(HALVING))
    assert optunas.stopped[0] == 9  # the first one always goes on there


def test_teacher_is_trained_to_its_end_before_others_begin() -> None:
    curves = {0: flat(0.1), 1: flat(0.3), 2: flat(0.2)}
    done = replay_promotion(curves, [0, 2, 1], PROMOTE, taught=True)
    assert done.stopped == {0: 9, 1: 9, 2: 1}
    assert done.picks[0] == (90.0, 0)
    assert done.pick == 1


def test_pruner_sees_what_is_reported_and_the_pick_is_by_accuracy() -> None:
    def told(accuracy: float, reported: float) -> Curve:
        return Curve((accuracy,) * 9, (10.0,) * 9, 0.0, 9, (reported,) * 9)

    # The first is the most accurate one, but its reports are the lowest.
    curves = {0: told(0.9, -3.0), 1: told(0.2, -2.0), 2: told(0.1, -1.0)}
    done = replay(curves, [2, 1, 0], pruner(HALVING))
    assert done.stopped == {2: 9, 1: 1, 0: 1}
    assert replay(curves, [0, 1, 2], pruner(HALVING)).pick == 0
    promoted = replay_promotion(curves, [0, 1, 2], PROMOTE)
    assert (promoted.stopped, promoted.pick) == ({0: 1, 1: 1, 2: 9}, 2)
    assert finish_best(curves, [0, 1, 2], 1).pick == 2


def test_last_epoch_is_never_asked_about() -> None:
    curves = {0: flat(0.5, 3), 1: Curve((0.6, 0.6, 0.1), (1.0,) * 3, 0.0, 3)}
    done = replay(curves, [0, 1], pruner({"name": "MedianPruner", "n_startup_trials": 1}, 3))
    assert done.stopped[1] == 3
    assert done.pick == 0


@pytest.mark.parametrize("table", PRUNERS, ids=lambda table: table["name"])
def test_run_that_diverged_is_paid_to_its_end_and_never_picked(table: dict[str, Any]) -> None:
    curves = {0: flat(0.2), 1: Curve((0.9, 0.9), (10.0, 10.0), 7.0, 9), 2: Curve((), (), 7.0, 9)}
    done = replay(curves, [0, 1, 2], pruner(table))
    assert done.pick == 0
    assert done.stopped == {0: 9, 1: 2, 2: 0}
    assert done.cost == 90 + 27 + 7


def test_study_whose_every_run_diverges_has_no_pick() -> None:
    curves = {0: Curve((), (), 7.0, 9), 1: Curve((0.3,), (1.0,), 2.0, 9)}
    for done in (
        replay(curves, [0, 1], pruner(HALVING)),
        finish_best(curves, [0, 1], 1),
        replay_promotion(curves, [0, 1], PROMOTE),
    ):
        assert done.pick is None
        assert done.cost == 10


@pytest.mark.parametrize("table", PRUNERS, ids=lambda table: table["name"])
@given(
    accuracies=st.lists(
        st.lists(st.integers(0, 100), min_size=4, max_size=4), min_size=2, max_size=6
    ),
    order_seed=st.randoms(use_true_random=False),
)
def test_studies_of_fewer_trials_are_beginnings_of_longer_ones(
    table: dict[str, Any], accuracies: list[list[int]], order_seed: Any
) -> None:
    curves = {
        number: Curve(tuple(entry / 100 for entry in entries), (1.0,) * 4, 0.0, 4)
        for number, entries in enumerate(accuracies)
    }
    order = list(curves)
    order_seed.shuffle(order)
    whole = replay(curves, order, pruner(table, 4))
    part = replay(curves, order[:-1], pruner(table, 4))
    assert part.picks == whole.picks[:-1]
    assert part.stopped.items() <= whole.stopped.items()
    # What is paid adds up, and only complete trials are picked.
    assert whole.cost == sum(whole.stopped.values())
    costs = [cost for cost, _ in whole.picks]
    assert all(earlier < later for earlier, later in itertools.pairwise(costs))
    complete = {number for number in order if whole.stopped[number] == 4}
    if complete:
        assert whole.pick in complete
        assert curves[whole.pick].accuracy[-1] == max(curves[n].accuracy[-1] for n in complete)


def test_finishing_the_best_trains_all_once_and_only_those_to_the_end() -> None:
    curves = {0: flat(0.1, 4), 1: flat(0.4, 4), 2: flat(0.3, 4), 3: flat(0.2, 4)}
    done = finish_best(curves, [3, 2, 1, 0], 2, cost=1.0)
    assert done.stopped == {0: 1, 1: 4, 2: 4, 3: 1}
    assert done.cost == 1 + 40 + 60
    assert done.pick == 1
    assert done.picks[0] == (41.0, 1)  # before any is finished, the one ahead
