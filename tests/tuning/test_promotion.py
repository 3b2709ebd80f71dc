"""The rule of halving that promotes: who goes on, who waits, and that someone finishes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.tuning.promotion import Moves, Promotion, Standing, promotion_of

ASYNC = Promotion(reduction_factor=3, epochs=9)
SYNC = Promotion(reduction_factor=3, epochs=9, mode="sync")
NAN = float("nan")


def at(until: int, *values: float, state: TrialState = TrialState.WAITING) -> Standing:
    """Return a standing with values at epochs 1, 3 …"""
    return Standing(state, until, dict(zip((1, 3), values, strict=False)))


def numbered(*standings: Standing) -> dict[int, Standing]:
    return dict(enumerate(standings))


@pytest.mark.parametrize(
    ("factor", "least", "epochs", "rungs"),
    [(3, 1, 9, (1, 3)), (3, 1, 10, (1, 3, 9)), (2, 2, 9, (2, 4, 8)), (4, 1, 2, (1,))],
)
def test_rungs_lie_below_the_horizon(
    factor: int, least: int, epochs: int, rungs: tuple[int, ...]
) -> None:
    halving = Promotion(reduction_factor=factor, min_resource=least, epochs=epochs)
    assert halving.rungs == rungs
    assert [halving.after(rung) for rung in (0, *rungs)] == [*rungs, epochs]


def test_best_third_of_those_that_have_come_goes_on() -> None:
    two = numbered(at(1, 0.5), at(1, 0.6))
    assert ASYNC.moves(two, 9) == Moves(begin=1)
    assert ASYNC.moves(two | {2: at(1, 0.4)}, 9) == Moves(claims=((1, 3),), begin=1)
    # One that came early and was passed over is promoted later, when it is among the best.
    gone = at(3, 0.6, state=TrialState.RUNNING)
    later = numbered(at(1, 0.5), gone, at(1, 0.1), at(1, 0.2), at(1, 0.3), at(1, 0.4))
    assert ASYNC.moves(later, 9).claims == ((0, 3),)


def test_equal_ones_go_on_by_their_number_and_one_that_is_not_a_number_last() -> None:
    assert ASYNC.moves(numbered(at(1, 0.5), at(1, 0.5), at(1, 0.5)), 9).claims == ((0, 3),)
    assert ASYNC.moves(numbered(at(1, NAN), at(1, -1.0), at(1, NAN)), 9).claims == ((1, 3),)


def test_highest_rung_goes_first_and_what_was_interrupted_before_all() -> None:
    standings = numbered(
        at(3, 0.9, 0.9), at(3, 0.8, 0.8), at(3, 0.7, 0.7), *(at(1, 0.1 * n) for n in range(6))
    )
    assert ASYNC.moves(standings, 12).claims == ((0, 9),)
    standings |= {9: at(1, 0.95), 10: Standing(TrialState.WAITING, 3, {1: 0.2})}
    assert ASYNC.moves(standings, 12).claims == ((10, 3), (0, 9), (9, 3))


def test_enqueued_trials_come_after_promoted_ones_and_before_new_ones() -> None:
    standings = numbered(at(1, 0.5), at(1, 0.6), at(1, 0.4), Standing(TrialState.WAITING))
    assert ASYNC.moves(standings, 9) == Moves(claims=((1, 3), (3, 1)), begin=1)


def test_synchronous_halving_waits_for_all() -> None:
    three = numbered(at(1, 0.5), at(1, 0.6), at(1, 0.4))
    assert SYNC.moves(three, 9) == Moves(begin=1)
    running = three | {3: at(1, state=TrialState.RUNNING)}
    assert SYNC.moves(running, 4) == Moves()
    assert SYNC.moves(three, 3) == Moves(claims=((1, 3),))


@pytest.mark.parametrize("halving", [ASYNC, SYNC])
def test_one_goes_on_when_no_more_can_come(halving: Promotion) -> None:
    assert halving.moves(numbered(at(1, 0.5), at(1, 0.6)), 2).claims == ((1, 3),)
    # And if it fails on its way, the next one does.
    failed = numbered(at(1, 0.5), at(3, 0.6, state=TrialState.PRUNED))
    assert halving.moves(failed, 2).claims == ((0, 3),)


def test_nobody_is_left_behind_while_one_that_runs_may_still_fail() -> None:
    held = at(9, 0.6, 0.6, state=TrialState.RUNNING)
    assert ASYNC.moves(numbered(at(1, 0.5), held), 2) == Moves()
    done = at(9, 0.6, 0.6, state=TrialState.COMPLETE)
    assert ASYNC.moves(numbered(at(1, 0.5), done), 2) == Moves(leave=(0,))


def test_study_that_has_ended_does_not_grow() -> None:
    ended = numbered(
        at(9, 0.6, 0.6, state=TrialState.COMPLETE), at(1, 0.5, state=TrialState.PRUNED)
    )
    assert ASYNC.moves(ended, 2) == Moves()
    with pytest.raises(StorageError, match=r"ended with 2 trials.*cannot grow to 3"):
        ASYNC.moves(ended, 3)
    # What diverged is no sign of an end.
    diverged = numbered(Standing(TrialState.PRUNED, 1), at(9, 0.6, 0.6, state=TrialState.COMPLETE))
    assert ASYNC.moves(diverged, 3).begin == 1


def test_teacher_trains_to_its_end_before_any_other_begins() -> None:
    assert ASYNC.moves({}, 9, untaught=True) == Moves(begin=9)
    teacher = Standing(TrialState.RUNNING, 9)
    assert ASYNC.moves({0: teacher}, 9, untaught=True) == Moves()
    stopped = Standing(TrialState.WAITING, 9, {1: 0.5})
    assert ASYNC.moves({0: stopped}, 9, untaught=True) == Moves(claims=((0, 9),))
    # If it fails, another one teaches; an enqueued one comes before a new one.
    failed = Standing(TrialState.FAIL, 9, {1: 0.5})
    assert ASYNC.moves({0: failed}, 9, untaught=True) == Moves(begin=9)
    enqueued = {0: failed, 1: Standing(TrialState.WAITING)}
    assert ASYNC.moves(enqueued, 9, untaught=True) == Moves(claims=((1, 9),))


def test_place_is_told_of_a_trial_that_waits() -> None:
    standings = numbered(at(1, 0.5), at(1, 0.6), at(3, 0.7, 0.8))
    assert ASYNC.places(standings)[0] == (3, 3)
    assert ASYNC.places(standings)[2] == (1, 1)


def test_expected_epochs_follow_from_the_rungs() -> None:
    # 9 train 1 epoch, 3 go on to 3, 1 to 9.
    assert ASYNC.expected_epochs(9) == 9 + 3 * 2 + 6
    assert ASYNC.expected_epochs(1) == 9


def run_study(
    halving: Promotion,
    curves: list[list[float]],
    n_workers: int,
    chance: random.Random,
    *,
    untaught: bool = False,
) -> dict[int, Standing]:
    """Run a study of made-up curves by workers that finish in a random order; a curve that is too
    short has diverged."""
    standings: dict[int, Standing] = {}
    held: list[int] = []
    for _ in range(20 * len(curves)):
        while len(held) < n_workers:
            taught = not untaught or any(s.state == TrialState.COMPLETE for s in standings.values())
            moves = halving.moves(standings, len(curves), untaught=not taught)
            if moves.claims:
                number, until = moves.claims[0]
                assert standings[number].paused  # nobody is interrupted here
            elif moves.begin:
                number, until = len(standings), moves.begin
            else:
                break
            before = standings.get(number, Standing(TrialState.WAITING))
            standings[number] = Standing(TrialState.RUNNING, until, before.values)
            held.append(number)
        if not held:
            break
        number = held.pop(chance.randrange(len(held)))
        curve, until = curves[number], standings[number].until
        reached = min(until, len(curve))
        values = {rung: curve[rung - 1] for rung in halving.rungs if rung <= reached}
        state = TrialState.WAITING if until < halving.epochs else TrialState.COMPLETE
        standings[number] = Standing(TrialState.PRUNED if reached < until else state, until, values)
    assert not held
    return standings


CURVES = st.lists(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=0, max_size=9), min_size=1, max_size=12
).map(lambda curves: [curve if len(curve) < 9 else curve[:9] for curve in curves])


@given(
    curves=CURVES,
    full=st.lists(st.booleans(), min_size=12, max_size=12),
    n_workers=st.integers(1, 4),
    factor=st.integers(2, 4),
    mode=st.sampled_from(["async", "sync"]),
    seed=st.integers(0, 5),
    untaught=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_every_study_ends_with_a_winner_if_anyone_can_finish(
    curves: list[list[float]],
    full: list[bool],
    n_workers: int,
    factor: int,
    mode: Any,
    seed: int,
    untaught: bool,
) -> None:
    curves = [
        (curve + [0.25] * 9)[:9] if whole else curve
        for curve, whole in zip(curves, full, strict=False)
    ]
    halving = Promotion(reduction_factor=factor, epochs=9, mode=mode)
    ends = run_study(halving, curves, n_workers, random.Random(seed), untaught=untaught)
    assert len(ends) == len(curves)
    can_finish = [number for number, curve in enumerate(curves) if len(curve) == 9]
    complete = [n for n, s in ends.items() if s.state == TrialState.COMPLETE]
    if can_finish:
        assert complete
    moves = halving.moves(ends, len(curves))
    assert not moves.claims
    assert not moves.begin
    assert set(moves.leave) == {n for n, s in ends.items() if s.state == TrialState.WAITING}
    for rung in halving.rungs:
        # The best that came to a rung went on, or gave up on its way.
        best = halving.ranking(ends, rung)[:1]
        assert all(ends[number].until > rung for number in best)


@given(curves=CURVES, seeds=st.lists(st.integers(0, 99), min_size=2, max_size=2))
@settings(max_examples=100, deadline=None)
def test_synchronous_halving_does_not_depend_on_who_comes_first(
    curves: list[list[float]], seeds: list[int]
) -> None:
    first, again = (
        run_study(SYNC, curves, n_workers, random.Random(seed))
        for n_workers, seed in zip((1, 4), seeds, strict=True)
    )
    assert first == again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"reduction_factor": 1}, r"pruner\.reduction_factor = 1: .* greater than or equal to 2"),
        ({"min_resource": 0}, r"pruner\.min_resource = 0"),
        ({"mode": "later"}, r"pruner\.mode = 'later'"),
        ({"mode": "snyc"}, r"Input should be 'async' or 'sync'\. Did you mean 'sync'\?"),
        ({"reduction": 3}, r"Unknown key 'pruner\.reduction'"),
        ({"epochs": 9}, r"Unknown key 'pruner\.epochs'"),
    ],
)
def test_mistakes_are_told(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        promotion_of({"name": "promote"} | arguments, epochs=9)


def test_other_pruners_are_none_of_it() -> None:
    assert promotion_of({"name": "SuccessiveHalvingPruner", "epochs": 3}, epochs=9) is None
