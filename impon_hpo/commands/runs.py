"""The commands that train: `train`, one run, and `tune`, a study."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.commands.launches import Launcher, launch, run_workers_here
from impon_hpo.commands.looks import print_summary
from impon_hpo.commands.options import (
    Arm,
    Format,
    Formatted,
    Set,
    Storage,
    Study,
    interrupted,
    quiet_optuna,
)
from impon_hpo.console import loading, print_json, print_rows, say, talk
from impon_hpo.errors import NothingYetError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from impon_hpo.storage.trials import StudyRecord
    from impon_hpo.tuning.ledger import Budget
    from impon_hpo.tuning.study_file import StudyFile


def train(study: Study, arm: Arm = None, settings: Set = None) -> None:
    """One training run, no search: a line an epoch, a checkpoint, the result as JSON.

    The same command again continues a run that was stopped. The test split is looked at once, after
    the last epoch.
    """
    with loading():
        from impon_hpo.training.train import train as train_run
        from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study, settings or [])
    arm = study_file.arm(arm)
    try:
        result = train_run(
            study_file.arms[arm],
            study_file.runs / "train",
            name=arm,
            say=say,
        )
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    print_json(result)


def tune(
    study: Study,
    arm: Arm = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials wanted in all; default: n_trials.")
    ] = None,
    storage: Storage = None,
    settings: Set = None,
    max_epochs: Annotated[
        int | None, typer.Option(min=1, help="Budget of the study: epochs of all workers.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=1, help="Budget: forward-equivalents.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Budget: seconds of training, added up.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    devices: Annotated[
        str | None, typer.Option(metavar="cuda:0,cuda:1", help="Given out to them in turn.")
    ] = None,
    launcher: Annotated[
        Launcher | None,
        typer.Option(help="Hand the workers to a cluster, and return; local: to try that out."),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A parameter of submitit's: timeout_min, gpus_per_node, slurm_partition …",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds of silence after which another machine's trial is taken over."
        ),
    ] = 180.0,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Also of finished trials.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be run.")
    ] = False,
    format: Formatted = Format.table,
) -> None:
    """Run the study until N trials are finished; the same command again continues it.

    Killed at any moment, it loses an epoch at most. Started again beside itself, here or on a
    machine that reaches the same storage, it works on the same study.
    """
    with loading():
        from impon_hpo.reporting.summary import summarise
        from impon_hpo.storage.connect import without_secrets
        from impon_hpo.tuning.ledger import Budget
        from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study, settings or [])
    arm = study_file.arm(arm)
    n_trials = trials or study_file.n_trials
    address = storage or study_file.storage
    for warning in study_file.warnings():
        say(f"Warning: {warning}")
    if dry_run:
        from impon_hpo.tuning.plan import plan, plan_rows

        facts = plan(study_file, arm, n_trials, address)
        if format is Format.json:
            print_json(facts)
        else:
            print_rows(f"{study_file.name}, arm {arm}: nothing is run", plan_rows(facts))
        return
    shown = None if storage is None else without_secrets(storage)
    command = {"study": study, "settings": settings or [], "storage": shown}
    budget = Budget(max_epochs, max_cost, max_seconds)
    if workers == 1 and launcher is None:
        more = [f"device={devices.split(',')[0]}"] if devices else []
        study_file = read_study_file(study, [*(settings or []), *more])
        record = _run_study(
            study_file, arm, n_trials, address, command, budget, grace, keep_checkpoints
        )
    else:
        given = [study, "--arm", arm, "--trials", str(n_trials)]
        for setting in settings or []:
            given += ["--set", setting]
        for name, limit in vars(budget).items():
            given += [f"--{name.replace('_', '-')}", str(limit)] if limit is not None else []
        given += ["--grace", str(grace)]
        given += ["--keep-checkpoints"] if keep_checkpoints else []
        if launcher is not None:
            launch(study_file, address, given, workers, launcher, job or [])
            return
        places = devices.split(",") if devices else []
        record = run_workers_here(study_file, arm, address, given, places, workers, command)
    facts = summarise(record)
    if format is Format.json:
        print_json(facts)
    else:
        print_summary(facts)


def _run_study(
    study_file: StudyFile,
    arm: str,
    n_trials: int,
    address: str,
    command: dict[str, Any],
    budget: Budget,
    grace: float,
    keep_checkpoints: bool,
) -> StudyRecord:
    from impon_hpo.reporting.csv_files import write_csv_files
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.storage.trials import read_studies
    from impon_hpo.tuning.checkpoints import Checkpoints
    from impon_hpo.tuning.progress import Progress
    from impon_hpo.tuning.study import finished_study
    from impon_hpo.tuning.workers import end_with_parent

    quiet_optuna()
    end_with_parent()
    config = study_file.arms[arm]
    progress = Progress(talk, config.epochs, budget)
    checkpoints = Checkpoints(
        study_file.runs / "checkpoints", keep=keep_checkpoints, say=progress.note
    )
    opened: BaseStorage | None = None
    with suppress(NothingYetError):
        opened = open_storage(address, create=False)
    # A study that has all its trials needs neither data nor model, which take seconds to load.
    if opened is not None:
        record = finished_study(study_file, arm, opened, n_trials, command=command)
        if record is not None:
            study = record.optuna_study
            checkpoints.delete_finished(study, study.get_trials(deepcopy=False))
            write_csv_files(study_file.runs, read_studies(opened, study_file.name))
            return record

    from impon_hpo.environment import environment
    from impon_hpo.storage.connect import artifact_store
    from impon_hpo.storage.trials import read_study
    from impon_hpo.training.references import References
    from impon_hpo.tuning.algorithms import make_study_sampler
    from impon_hpo.tuning.guard import BudgetSpentError, Guard
    from impon_hpo.tuning.lease import Watch
    from impon_hpo.tuning.objective import Objective
    from impon_hpo.tuning.plan import check_fit
    from impon_hpo.tuning.study import open_study
    from impon_hpo.tuning.tune import tune as run_trials

    guard = Guard(budget, progress.epoch)
    objective = Objective(
        config,
        study_file.space,
        artifact_store=artifact_store(study_file.artifacts),
        references=References(study_file.runs / "references", say=progress.note),
        checkpoints=checkpoints,
        on_epoch=guard.epoch,
        n_trials=n_trials,
    )
    check_fit(config, study_file.space, objective.splits)
    opened = opened or open_storage(address, create=True)
    here = environment(str(objective.device))
    study = open_study(study_file, arm, opened, command=command, environment=here)
    try:
        with progress:
            return run_trials(
                study,
                objective,
                n_trials=n_trials,
                progress=progress,
                guard=guard,
                watch=Watch(grace=grace),
                checkpoints=checkpoints,
                sampler_of=lambda number: make_study_sampler(
                    study_file.study_sampler, seed=study_file.seed, number=number
                ),
            )
    except BudgetSpentError as spent:
        say(f"The budget is spent: {spent}. With a greater one, the same command continues.")
        return read_study(study)
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    finally:
        write_csv_files(study_file.runs, read_studies(opened, study_file.name))
