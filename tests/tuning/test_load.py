"""Many workers on one storage: every trial accounted for, and no lock error reaches a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import optuna
import pytest
from rich.console import Console

from impon_hpo.storage.connect import open_storage, quiet_studies
from impon_hpo.tuning.algorithms import make_study_sampler
from impon_hpo.tuning.job import Job, OnEpoch
from impon_hpo.tuning.progress import TuningProgress
from impon_hpo.tuning.worker import work
from tests.tuning.forks import fork

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

N_WORKERS = 8
EPOCHS = 3


def stub(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
    """Report as a training would, without training."""
    x = trial.suggest_float("x", 0, 1)
    for epoch in range(1, EPOCHS + 1):
        trial.report(x * epoch, step=epoch)
        fields = {"cost": 1, "val_accuracy": x * epoch, "diagnostics": {}}
        trial.set_user_attr(f"impon:epoch:{epoch}", fields)
        trial.set_user_attr("impon:cost", epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x * EPOCHS


def worker(address: str, n_trials: int) -> Callable[[], None]:
    def run() -> None:
        with quiet_studies():
            study = optuna.load_study(
                study_name="load",
                storage=open_storage(address, create=False),
                pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
            )
        job = Job(
            "stub",
            study,
            stub,
            n_trials,
            sampler_of=lambda number: make_study_sampler(
                {"name": "RandomSampler"}, seed=0, number=number
            ),
        )
        with TuningProgress(Console(quiet=True)) as progress:
            work([job], progress=progress)

    return run


@pytest.mark.parametrize(
    ("storage", "trials_each"),
    [
        pytest.param("sqlite", 2, marks=pytest.mark.slow),
        ("journal", 2),
        pytest.param("sqlite", 200, marks=pytest.mark.slow),
        pytest.param("journal", 200, marks=pytest.mark.slow),
        pytest.param("postgres", 200, marks=pytest.mark.slow),
        pytest.param("mysql", 200, marks=pytest.mark.slow),
    ],
)
def test_workers_share_a_storage(
    storage: str,
    trials_each: int,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = {"sqlite": "sqlite:///load.db", "journal": "load.journal"}.get(storage)
    address = address or request.getfixturevalue(storage)
    n_trials = N_WORKERS * trials_each
    attrs = {
        "impon:identity": {"study": "load", "arm": "stub", "run": {"epochs": EPOCHS}},
    }
    study = optuna.create_study(study_name="load", storage=open_storage(address, create=True))
    for key, value in attrs.items():
        study.set_user_attr(key, value)
    begun = time.perf_counter()
    children = [fork(worker(address, n_trials)) for _ in range(N_WORKERS)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    seconds = time.perf_counter() - begun
    said = capfd.readouterr()
    assert codes == [0] * N_WORKERS, said.err
    assert "Traceback" not in said.err
    assert "locked" not in said.err
    trials = optuna.load_study(
        study_name="load", storage=open_storage(address, create=False)
    ).trials
    finished = [trial for trial in trials if trial.state.is_finished()]
    assert [trial.number for trial in finished] == list(range(n_trials))
    assert not any(trial.state == optuna.trial.TrialState.RUNNING for trial in trials)
    assert not any(trial.state == optuna.trial.TrialState.FAIL for trial in trials)
    assert len({trial.params["x"] for trial in finished}) == n_trials  # nothing proposed twice
    for trial in finished:
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
        assert trial.user_attrs["impon:cost"] == len(trial.intermediate_values)
    with capfd.disabled():
        print(
            f"\n{storage}: {N_WORKERS} workers, {n_trials} trials in {seconds:.1f} s, "
            f"{n_trials / seconds:.1f} trials/s, {1000 * seconds / n_trials:.0f} ms a trial"
        )
