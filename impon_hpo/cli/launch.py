"""The commands that train: `train`, `tune`, `compare`, `compare-samplers`, and their workers."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.cli.earlier import earlier_configurations
from impon_hpo.cli.inspect import print_summary
from impon_hpo.cli.judge import print_comparison
from impon_hpo.cli.options import (
    Arm,
    CheckpointBudget,
    Devices,
    Format,
    Formatted,
    From,
    FromArm,
    FromBest,
    FromStorage,
    Grace,
    Job,
    Launched,
    Launcher,
    MaxCost,
    MaxEpochs,
    MaxSeconds,
    Set,
    Storage,
    Study,
    Workers,
    bytes_of,
    interrupted,
    quiet_optuna,
    read_study,
)
from impon_hpo.console import loading, print_json, print_line, print_rows, print_table, say, talk
from impon_hpo.environment import keep_freed_memory
from impon_hpo.errors import NothingYetError, as_typed, describing
from impon_hpo.settings import metric_words

if TYPE_CHECKING:
    from impon_hpo.tuning.processes import Orders
    from impon_hpo.tuning.study_file import StudyFile

Arms = Annotated[list[str] | None, typer.Option("--arm", help="Only these; may be repeated.")]


def train(study: Study, arm: Arm = None, settings: Set = None) -> None:
    """One training run, no search: a line an epoch, a checkpoint, the result as JSON.

    The same command again continues a run that was stopped. The test split is looked at once, after
    the last epoch.
    """
    with loading():
        from impon_hpo.training.single import train as train_run

    keep_freed_memory()
    study_file = read_study(study, settings)
    arm = study_file.arm(arm)
    try:
        result = train_run(study_file.arms[arm], study_file.runs / "train", name=arm)
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
    max_epochs: MaxEpochs = None,
    max_cost: MaxCost = None,
    max_seconds: MaxSeconds = None,
    workers: Workers = 1,
    devices: Devices = None,
    launcher: Launched = None,
    job: Job = None,
    grace: Grace = 180.0,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Also of finished trials.")
    ] = False,
    checkpoint_budget: CheckpointBudget = None,
    from_study: From = None,
    from_storage: FromStorage = None,
    from_arm: FromArm = None,
    from_best: FromBest = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be run.")
    ] = False,
    format: Formatted = Format.table,
) -> None:
    """Run the study until N trials are finished; the same command again continues it.

    Killed at any moment, it loses an epoch at most. Started again beside itself, here or on a
    machine that reaches the same storage, it works on the same study.
    """
    from impon_hpo.tuning.processes import Orders

    with loading():
        from impon_hpo.reporting.status import summarise
        from impon_hpo.storage.connect import open_storage
        from impon_hpo.storage.trials import read_studies

        study_file = read_study(study, settings)
    arm = study_file.arm(arm)
    room = bytes_of(checkpoint_budget)
    address = storage or study_file.storage
    for warning in study_file.warnings():
        say(f"Warning: {warning}")
    earlier = earlier_configurations(study_file, arm, from_study, from_storage, from_arm, from_best)
    if dry_run:
        from impon_hpo.tuning.dry_run import plan, plan_rows

        facts = plan(study_file, arm, trials or study_file.n_trials, address, earlier)
        if format is Format.json:
            print_json(facts)
        else:
            print_rows(f"{study_file.name}, arm {arm}: nothing is run", plan_rows(facts))
        return
    orders = Orders(
        task="tune",
        study=study,
        settings=settings or [],
        storage=storage,
        arms=[arm],
        n_trials=trials,
        max_epochs=max_epochs,
        max_cost=max_cost,
        max_seconds=max_seconds,
        grace=grace,
        keep_checkpoints=keep_checkpoints,
        checkpoint_budget=room,
        earlier=[dataclasses.asdict(one) for one in earlier],
    )
    if not _run(study_file, orders, workers, devices, launcher, job):
        return
    records = read_studies(open_storage(address, create=False), study_file.name)
    (facts,) = [summarise(record) for record in records if record.identity["arm"] == arm]
    if format is Format.json:
        print_json(facts)
    else:
        print_summary(facts)


def compare(
    study: Study,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", help='Record only these, such as "memory@1/3"; may be repeated.'),
    ] = None,
    storage: Storage = None,
    settings: Set = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Continue the recordings.csv.xz of this folder: what it has is not trained again.",
        ),
    ] = None,
    max_epochs: MaxEpochs = None,
    max_cost: MaxCost = None,
    max_seconds: MaxSeconds = None,
    workers: Workers = 1,
    devices: Devices = None,
    launcher: Launched = None,
    job: Job = None,
    grace: Grace = 180.0,
    format: Formatted = Format.table,
) -> None:
    """Does importance sampling pay here? Record every arm, replay pruners, judge, and report.

    Every configuration is trained to its end in every arm and block, once. The same command again
    continues, from the middle of a run, too. Started again beside itself, here or on a machine that
    reaches the same storage, it takes its share of the runs.
    """
    from impon_hpo.tuning.processes import Orders

    with loading():
        from impon_hpo.comparing.evidence import gather, runs_to_adopt
        from impon_hpo.comparing.grid import comparison_grid
        from impon_hpo.storage.connect import open_storage

        study_file = read_study(study, settings)
    comparison_grid(study_file, arms or [])  # its mistakes come before anything is begun
    if recordings is not None:
        runs_to_adopt(study_file, recordings)
    orders = Orders(
        task="compare",
        study=study,
        settings=settings or [],
        storage=storage,
        arms=arms or [],
        max_epochs=max_epochs,
        max_cost=max_cost,
        max_seconds=max_seconds,
        grace=grace,
        recordings=None if recordings is None else str(recordings),
        command=shlex.join(["impon-hpo", *sys.argv[1:]]),
    )
    if _run(study_file, orders, workers, devices, launcher, job):
        opened = open_storage(storage or study_file.storage, create=False)
        print_comparison(study_file, gather(study_file, opened, recordings), format)


def compare_samplers(
    study: Study,
    arms: Arms = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each configuration.")] = 3,
    control: Annotated[str, typer.Option(help="The arm that the others are held against.")] = (
        "uniform"
    ),
    storage: Storage = None,
    settings: Set = None,
    max_epochs: MaxEpochs = None,
    max_cost: MaxCost = None,
    max_seconds: MaxSeconds = None,
    workers: Workers = 1,
    devices: Devices = None,
    launcher: Launched = None,
    job: Job = None,
    grace: Grace = 180.0,
    format: Formatted = Format.table,
) -> None:
    """Train every arm on every configuration of a grid, without pruning, and compare the curves.

    The study's space must be a grid (categorical settings only). The same command again continues.
    """
    from impon_hpo.tuning.processes import Orders

    with loading():
        from impon_hpo.comparing.compare import results
        from impon_hpo.comparing.grid import samplers_grid
        from impon_hpo.storage.connect import open_storage

        study_file = read_study(study, settings)
    chosen = [study_file.arm(arm) for arm in arms] if arms else list(study_file.arms)
    study_file.arm(control)
    if control not in chosen:
        chosen.insert(0, control)
    grid = samplers_grid(study_file, chosen, seeds)
    orders = Orders(
        task="compare-samplers",
        study=study,
        settings=settings or [],
        storage=storage,
        arms=chosen,
        n_seeds=seeds,
        max_epochs=max_epochs,
        max_cost=max_cost,
        max_seconds=max_seconds,
        grace=grace,
    )
    if not _run(study_file, orders, workers, devices, launcher, job):
        return
    opened = open_storage(storage or study_file.storage, create=False)
    runs = results(study_file, grid, opened)
    if runs:
        _print_curves(study_file, runs, control, format)


def _print_curves(
    study_file: StudyFile, runs: list[dict[str, Any]], control: str, format: Format
) -> None:
    from impon_hpo.comparing.curves import curves_of, epoch_rows, table
    from impon_hpo.files import write_csv
    from impon_hpo.reporting.comparison_page import with_headings, write_curves

    curves = curves_of(runs, chance=0.0)
    horizon = runs[0]["horizon"]
    rows = table(
        curves,
        control=control,
        epochs=[epoch for epoch in (1, 2, 3, 5, 9, 30) if epoch < horizon] + [horizon],
        targets=[epoch for epoch in (2, 4, 6) if epoch <= horizon],
    )
    folder = study_file.runs / "samplers"
    if format is Format.json:
        print_json(rows)
    else:
        print_table(f"{study_file.name}: {len(runs)} runs", with_headings(rows))
    write_csv(folder / "epochs.csv", epoch_rows(runs))
    write_csv(folder / "table.csv", rows)
    page = folder / "accuracy-against-cost.html"
    metric = metric_words(study_file.run.metric)
    write_curves(page, curves, rows, control=control, title=study_file.name, metric=metric)
    if format is Format.json:
        return
    print_line(f"this table: {folder / 'table.csv'}")
    print_line(f"every epoch: {folder / 'epochs.csv'}")
    print_line(f"picture: {page}")


def worker(orders: Annotated[str, typer.Argument(metavar="JSON")]) -> None:
    """One worker of a command that runs several."""
    from impon_hpo.tuning.processes import Orders

    serve(Orders.from_json(orders))


def serve(orders: Orders) -> None:
    """Do one worker's share of what is ordered."""
    from impon_hpo.tuning.budget import BudgetSpentError
    from impon_hpo.tuning.processes import end_with_parent
    from impon_hpo.tuning.progress import RecordingProgress, TuningProgress
    from impon_hpo.tuning.tune import budget_of

    quiet_optuna()
    keep_freed_memory()
    end_with_parent()
    device = [] if orders.device is None else [f"device={orders.device}"]
    study_file = read_study(orders.study, [*orders.settings, *device])
    kind = TuningProgress if orders.task == "tune" else RecordingProgress
    try:
        with kind(talk, budget_of(orders)) as progress:
            if orders.task == "tune":
                from impon_hpo.tuning.tune import tune as tune_arm

                tune_arm(study_file, orders.arms[0], orders, progress)
            else:
                from impon_hpo.comparing import compare as comparing

                comparisons = {
                    "compare": comparing.compare,
                    "compare-samplers": comparing.compare_samplers,
                }
                comparisons[orders.task](study_file, orders, progress)
    except BudgetSpentError as spent:
        say(f"The budget is spent: {spent}. With a greater one, the same command continues.")
    except KeyboardInterrupt as error:
        _write_tables(study_file, orders)
        raise interrupted(error) from None
    _write_tables(study_file, orders)


def _write_tables(study_file: StudyFile, orders: Orders) -> None:
    """Write down what an arm's trials have recorded, as tables."""
    if orders.task != "tune":
        return
    from impon_hpo.reporting.status import IN_STORAGE, write_csv_files
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.storage.trials import read_studies

    with (
        describing("The tables of trials and epochs could not be made", IN_STORAGE),
        suppress(NothingYetError),  # it may have failed before anything was begun
    ):
        storage = open_storage(orders.storage or study_file.storage, create=False)
        write_csv_files(study_file.runs, read_studies(storage, study_file.name))


def _run(
    study_file: StudyFile,
    orders: Orders,
    workers: int,
    devices: str | None,
    launcher: Launcher | None,
    job: list[str] | None,
) -> bool:
    """Have workers do what is ordered: this process, others here, or jobs of a cluster; return
    whether they have ended."""
    from impon_hpo.tuning.processes import run_workers

    if launcher is not None:
        _submit(study_file, orders, workers, launcher, job or [])
        return False
    places = devices.split(",") if devices else []
    if workers == 1:
        serve(dataclasses.replace(orders, device=places[0] if places else None))
        return True
    quiet_optuna()
    code = run_workers(orders, places, n=workers)
    if code:
        raise typer.Exit(code)
    return True


def _submit(
    study_file: StudyFile,
    orders: Orders,
    workers: int,
    launcher: Launcher,
    parameters: list[str],
) -> None:
    """Hand workers to a cluster, and say what to look at."""
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.tuning.processes import submit_workers

    address = orders.storage or study_file.storage
    open_storage(address, create=True)
    if launcher is Launcher.slurm and ("://" not in address or address.startswith("sqlite")):
        say(
            "Warning: the storage is a file. Workers on several machines need a server: "
            "--storage postgresql+psycopg://…"
        )
    logs = study_file.runs / "jobs"
    ids = submit_workers(
        orders,
        n=workers,
        launcher=launcher.value,
        folder=logs,
        storage=address,
        parameters=parameters,
    )
    for job_id in ids:
        print_line(job_id)
    say(
        f"{len(ids)} job(s) of {launcher.value}; their logs: {logs}/<job>. "
        f"Check progress: {as_typed(f'impon-hpo status {shlex.quote(orders.study)}')}"
    )
