"""Tuning one arm of a study: trials until as many are finished as were asked for."""

from __future__ import annotations

import optuna

from impon_hpo.errors import ImponHpoError
from impon_hpo.record import REASON, StudyRecord, read_study
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.progress import Progress

FAILURES_IN_A_ROW = 3


def tune(
    study: optuna.Study, objective: Objective, *, n_trials: int, progress: Progress
) -> StudyRecord:
    """Run trials until `n_trials` of the study are finished (complete, pruned or failed).

    A trial that fails is recorded with its reason and the study goes on. A trial that is
    interrupted does not count, and its configuration is queued to be tried again.

    Raises:
        ImponHpoError: Three trials in a row failed, or a trial met a mistake of the user's.
        KeyboardInterrupt: The user stopped it.
    """
    failures = 0
    while (record := read_study(study)).n_finished < n_trials:
        progress.begin(record, n_trials)
        running: list[optuna.Trial] = []

        def run(trial: optuna.Trial, running: list[optuna.Trial] = running) -> float:
            running.append(trial)
            return objective(trial)

        try:
            study.optimize(run, n_trials=1)
        except ImponHpoError:
            raise
        except KeyboardInterrupt:
            if running:
                study.enqueue_trial(running[0].params)
            raise
        except Exception as error:
            failures += 1
            progress.note(f"trial {running[0].number} failed: {type(error).__name__}: {error}")
            if failures >= FAILURES_IN_A_ROW:
                raise ImponHpoError(
                    f"{failures} trials in a row failed, the last one with "
                    f"{type(error).__name__}: {error}. {record.n_finished + 1} of {n_trials} "
                    "trials are finished; mend the cause, then the same command continues."
                ) from error
        else:
            failures = 0
            last = study.get_trials(deepcopy=False)[running[0].number]
            progress.end(last.number, last.state.name, last.user_attrs.get(REASON, ""))
    return record
