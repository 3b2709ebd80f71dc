"""The commands that only look: `status`, `watch`, `samplers` and `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.cli.options import (
    Format,
    Formatted,
    Storage,
    Study,
    interrupted,
    read_study,
)
from impon_hpo.console import print_json, print_line, print_rows, print_table, talk

if TYPE_CHECKING:
    from impon_hpo.storage.trials import StudyRecord


def print_summary(facts: dict[str, Any]) -> None:
    """Print what came of one arm, and the commands that follow from it."""
    from impon_hpo.reporting.status import summary_commands, summary_rows

    print_rows(f"{facts['study']}, arm {facts['arm']}", summary_rows(facts))
    for command in summary_commands(facts):
        print_line(command)


def status(study: Study, storage: Storage = None, format: Formatted = Format.table) -> None:
    """What is in the storage: trials by state, best, cost; the comparison; and on the disk."""
    from impon_hpo.reporting.status import disk_line, disk_use, summarise
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.storage.trials import read_arms_and_comparison

    study_file = read_study(study, check_samplers=False)
    opened = open_storage(storage or study_file.storage, create=False)
    records, trainings = read_arms_and_comparison(opened, study_file.name)
    arms = [summarise(record) for record in records]
    if format is Format.json:
        more: dict[str, Any] = {"bytes_on_disk": disk_use(study_file.runs)}
        more["comparison"] = _comparison_facts(trainings) if trainings else None
        none = [{"study": study_file.name, "arm": None}]
        print_json([facts | more for facts in arms or none])
        return
    for facts in arms:
        print_summary(facts)
    if trainings:
        print_line(_comparison_line(study_file.name, trainings))
    print_line(disk_line(study_file.runs))


def _comparison_facts(trainings: Sequence[StudyRecord]) -> dict[str, int]:
    return {
        "runs_wanted": sum(record.n_wanted for record in trainings),
        "runs_recorded": sum(record.n_finished for record in trainings),
        "runs_under_way": sum(record.count("RUNNING") for record in trainings),
    }


def _comparison_line(study: str, trainings: Sequence[StudyRecord]) -> str:
    facts = _comparison_facts(trainings)
    return (
        f"{study}, comparison: {facts['runs_recorded']} of {facts['runs_wanted']} runs are "
        f"recorded, {facts['runs_under_way']} under way"
    )


def watch(
    study: Study,
    storage: Storage = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials wanted; default: n_trials.")
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds from one look to the next.")
    ] = 2.0,
) -> None:
    """Show how a study and its comparison go that other processes run, until they have their runs.

    Each arm has to have its finished trials, and the comparison all that is to be recorded. What
    nobody has begun is not waited for.
    """
    from impon_hpo.reporting.status import summarise
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.storage.trials import read_arms_and_comparison
    from impon_hpo.tuning.live_table import watch as watch_study

    study_file = read_study(study, check_samplers=False)
    n_trials = trials or study_file.n_trials
    opened = open_storage(storage or study_file.storage, create=False)

    def wanted(arm: str) -> int:
        combinations = study_file.combinations(arm) if arm in study_file.arms else None
        return n_trials if combinations is None else min(n_trials, len(combinations))

    try:
        arms, trainings = watch_study(
            lambda: read_arms_and_comparison(opened, study_file.name),
            wanted=wanted,
            console=talk,
            interval=interval,
        )
    except KeyboardInterrupt as error:
        raise interrupted(error) from None
    for record in arms:
        print_summary(summarise(record))
    if trainings:
        print_line(_comparison_line(study_file.name, trainings))


def doctor(
    data_dir: Annotated[str | None, typer.Option(help="A folder of data to look into.")] = None,
    storage: Storage = None,
    format: Formatted = Format.table,
) -> None:
    """Say what this machine has, what is wrong and how to fix it; exit code 1 if anything is."""
    import dataclasses

    from impon_hpo.doctor import examine

    findings = list(examine(data_dir, storage))
    if format is Format.json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        print_rows("impon-hpo doctor", [(finding.name, finding.text) for finding in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def samplers(format: Formatted = Format.table) -> None:
    """The batch samplers: source, extra forward passes, state a row, weights, what each is for."""
    import dataclasses

    from impon_hpo.sampling.table import SAMPLERS

    cards: list[dict[str, Any]] = [
        {"name": name} | dataclasses.asdict(sampler.card) for name, sampler in SAMPLERS.items()
    ]
    if format is Format.json:
        print_json(cards)
    else:
        headings = {
            "forward": "extra forward passes (rows a step; B: a batch)",
            "state": "state (a row)",
            "weights": "weights (of losses)",
        }
        shown = [{headings.get(key, key): card[key] for key in card} for card in cards]
        print_table("batch samplers", shown)
