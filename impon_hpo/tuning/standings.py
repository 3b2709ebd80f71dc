"""Standings: where the trials of a halving that promotes stand, in the storage, and their claims.

A trial's own reports and the epoch that it may train to (`impon:until`) say where it stands. Paused
trials are not finished, so a database reads them anew at every look, which takes 0.3 ms each. So
what decides is kept once more as a short attribute of the study, written by whoever holds the
trial: a thousand paused trials are read in 10 ms. A look at the trials themselves corrects it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.storage.trials import PRUNED, UNTIL
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.lease import claim, make_trial, put_back
from impon_hpo.tuning.promotion import Promotion, Standing

STANDING = "impon:standing:"
"""System attribute of a study, followed by a trial's number: trial id, state, until, values."""


class Standings:
    """Where the trials of one study stand.

    Args:
        study: The study.
        promotion: Its halving.
        checkpoints: The folder of checkpoints on this machine.
        untaught: Returns whether trials wait for what one that trains to its end learns.
    """

    def __init__(
        self,
        study: optuna.Study,
        promotion: Promotion,
        checkpoints: Checkpoints,
        untaught: Callable[[], bool] = lambda: False,
    ) -> None:
        self.study = study
        self.promotion = promotion
        self._checkpoints = checkpoints
        self._untaught = untaught
        self._storage = study._storage
        self._ids: dict[int, int] = {}

    def read(self) -> dict[int, Standing]:
        """Return where trials stand, from the short attributes alone.

        Trials that were enqueued or made since the last look at all trials may be missing.
        """
        attributes = self._storage.get_study_system_attrs(self.study._study_id)
        standings = {}
        for key, entry in attributes.items():
            if key.startswith(STANDING):
                number = int(key.removeprefix(STANDING))
                self._ids[number], state, until, values = entry
                reported = {int(epoch): value for epoch, value in values.items()}
                standings[number] = Standing(TrialState(state), until, reported)
        return dict(sorted(standings.items()))

    def look(self, trials: Sequence[FrozenTrial]) -> dict[int, Standing]:
        """Return where trials stand, from the trials themselves, and correct the attributes.

        Args:
            trials: All trials of the study, as just read.
        """
        kept = self.read()
        standings = {}
        for trial in trials:
            self._ids[trial.number] = trial._trial_id
            standings[trial.number] = standing = self._of(trial)
            before = kept.get(trial.number)
            # A trial that runs is written down by who holds it: it may be at its rung by now.
            held = before is not None and before.until == standing.until
            if before == standing or (trial.state == TrialState.RUNNING and held):
                continue
            # Reading all takes long: what has gone on since then was written down by who did that.
            if self._of(self._storage.get_trial(trial._trial_id)) == standing:
                self._write(trial.number, standing)
        return standings

    def seen_by_samplers(self) -> optuna.Study:
        """Return the study as its study sampler is to see it: paused trials are pruned ones."""
        return _SeenBySamplers(self.study)

    def claim(self, standings: Mapping[int, Standing], n_trials: int) -> tuple[int, int] | None:
        """Claim the next trial and return its id and number; None where nothing is to be done now.

        Args:
            standings: Where they stand.
            n_trials: Trials that the study is to have in all.

        Raises:
            StorageError: The study has come to its end with fewer trials.
        """
        wanted = {number: standings[number] for number in standings if number < n_trials}
        moves = self.promotion.moves(wanted, n_trials, untaught=self._untaught())
        for number, until in self._nearest_first(wanted, moves.claims):
            if self._take(number, wanted[number].until) and self._begin(number, until):
                if wanted[number].until:
                    self._checkpoints.fetch(self.study, number)
                return self._ids[number], number
        if moves.begin:
            trial_id, number = make_trial(self.study, {UNTIL: moves.begin})
            self._ids[number] = trial_id
            if number >= n_trials:
                put_back(self.study, trial_id)  # another worker was faster: it is for later
            elif self._begin(number, moves.begin):
                return trial_id, number
        places = self.promotion.places(wanted) if moves.leave else {}
        for number in moves.leave:
            until, (place, n_come) = wanted[number].until, places[number]
            reason = f"not promoted from epoch {until}: place {place} of {n_come}"
            if self._take(number, until) and self._begin(number, until, pruned=reason):
                return self._ids[number], number
        return None

    def pause(self, trial: optuna.Trial) -> None:
        """Let a trial that this process holds wait at the rung that it has come to."""
        frozen = self._storage.get_trial(trial._trial_id)
        until = frozen.user_attrs[UNTIL]
        values = self._at_rungs(frozen)
        # Before it waits: who claims it then may read and write at once.
        self._checkpoints.share(self.study, trial.number)
        self._write(trial.number, Standing(TrialState.WAITING, until, values))
        put_back(self.study, trial._trial_id)

    def ended(self, trial: FrozenTrial) -> None:
        """Note that a trial has ended."""
        self._write(trial.number, self._of(trial))
        self._checkpoints.unshare(self.study, trial.number)

    def delete_checkpoints(self) -> list[int]:
        """Delete checkpoints of paused trials until the rest fits into the budget, of those first
        that are the least likely to go on; return their numbers.

        One that goes on all the same is trained again.
        """
        excess = self._checkpoints.excess()
        if excess <= 0:
            return []
        standings = self.read()
        numbers = []
        places = self.promotion.places(standings)
        for number in sorted(places, key=lambda n: (standings[n].until, -places[n][0])):
            size = self._checkpoints.of(self.study, number).size
            # Only under its claim: another worker may be about to go on with it.
            if size and self._take(number, standings[number].until):
                self._checkpoints.of(self.study, number).delete()
                put_back(self.study, self._ids[number])
                numbers.append(number)
                excess -= size
            if excess <= 0:
                break
        return numbers

    def _of(self, trial: FrozenTrial) -> Standing:
        # One that is only still to be told as pruned holds up nobody.
        pruned = trial.state == TrialState.RUNNING and PRUNED in trial.user_attrs
        state = TrialState.PRUNED if pruned else trial.state
        return Standing(state, trial.user_attrs.get(UNTIL, 0), self._at_rungs(trial))

    def _at_rungs(self, trial: FrozenTrial) -> dict[int, float]:
        values = trial.intermediate_values
        return {rung: values[rung] for rung in self.promotion.rungs if rung in values}

    def _write(self, number: int, standing: Standing) -> None:
        values = {str(epoch): value for epoch, value in standing.values.items()}
        entry: list[Any] = [self._ids[number], standing.state.value, standing.until, values]
        self._storage.set_study_system_attr(self.study._study_id, f"{STANDING}{number}", entry)

    def _nearest_first(
        self, standings: Mapping[int, Standing], claims: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Return claims with those first, within a rung, whose checkpoint is on this machine."""
        here = self._checkpoints.numbers(self.study)

        def far(claim: tuple[int, int]) -> tuple[int, bool]:
            number, until = claim
            order = -until if standings[number].paused else -self.promotion.epochs - 1
            return (1 if standings[number].until == 0 else order), number not in here

        return sorted(claims, key=far)

    def _take(self, number: int, until: int) -> bool:
        """Claim a waiting trial, unless it has gone on since it was looked at."""
        trial_id = self._ids[number]
        if not claim(self.study, trial_id):
            return False
        if self._storage.get_trial(trial_id).user_attrs.get(UNTIL, 0) == until:
            return True
        put_back(self.study, trial_id)
        return False

    def _begin(self, number: int, until: int, *, pruned: str = "") -> bool:
        """Note that a trial that this process has claimed may train to epoch `until`, or why it is
        only to end; False if somebody has ended it since."""
        trial_id = self._ids[number]
        try:
            if pruned:
                self._storage.set_trial_user_attr(trial_id, PRUNED, pruned)
            self._storage.set_trial_user_attr(trial_id, UNTIL, until)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        self._write(number, self._of(self._storage.get_trial(trial_id)))
        return True


class _SeenBySamplers(optuna.Study):
    """A study as its study sampler sees it: paused trials are pruned at their last report."""

    def __init__(self, study: optuna.Study) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = [_as_pruned(trial) for trial in super()._get_trials(deepcopy, None, use_cache)]
        return [trial for trial in trials if states is None or trial.state in states]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    until, values = trial.user_attrs.get(UNTIL, 0), trial.intermediate_values
    if trial.state != TrialState.WAITING or until not in values:
        return trial
    return FrozenTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=TrialState.PRUNED,
        value=values[max(values)],
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_start,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=values,
    )
