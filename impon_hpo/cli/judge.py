"""The commands that judge without training: `plan`, `report` and `pictures`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impon_hpo.cli.options import (
    Format,
    Formatted,
    Set,
    Storage,
    Study,
    Table,
    quiet_optuna,
    read_study,
)
from impon_hpo.console import (
    loading,
    print_card,
    print_json,
    print_line,
    print_rows,
    print_table,
    say,
)
from impon_hpo.errors import NothingYetError, as_typed

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from impon_hpo.comparing.recordings_table import Recordings
    from impon_hpo.tuning.study_file import StudyFile


def plan(
    study: Study,
    storage: Storage = None,
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """What `compare` would record: runs, epochs, cost, time, and what cannot come out of it."""
    with loading():
        from impon_hpo.comparing.plan import plan_comparison, plan_notes
        from impon_hpo.tuning.dry_run import plan_rows

        quiet_optuna()
    study_file = read_study(study, settings)
    facts = plan_comparison(study_file, _opened(study_file, storage))
    if format is Format.json:
        print_json(facts)
    else:
        print_rows(f"{study_file.name}: nothing is run", plan_rows(facts))
        for line in plan_notes(facts):
            print_line(line)


def report(
    study: Study,
    recordings: Table = None,
    storage: Storage = None,
    settings: Set = None,
    format: Formatted = Format.table,
) -> None:
    """Make the report of a comparison again from what is recorded, without training."""
    with loading():
        from impon_hpo.comparing.evidence import gather

        quiet_optuna()
    study_file = read_study(study, settings, check_samplers=False)
    opened = None if recordings is not None else _opened(study_file, storage)
    print_comparison(study_file, gather(study_file, opened, recordings), format)


def _opened(study_file: StudyFile, storage: str | None) -> BaseStorage | None:
    """Open the storage of a study, if it is there."""
    from impon_hpo.storage.connect import open_storage

    with suppress(NothingYetError):
        return open_storage(storage or study_file.storage, create=False)
    return None


def print_comparison(study_file: StudyFile, recordings: Recordings, format: Format) -> None:
    """Judge what is recorded, print what came out, and write the report."""
    from impon_hpo.comparing.summary import summarise_comparison
    from impon_hpo.reporting.comparison_page import (
        IN_HAND,
        SHORT,
        arms_table,
        in_hand_table,
        warnings,
        with_headings,
        write_report,
    )
    from impon_hpo.reporting.html import card_rows

    summary = summarise_comparison(study_file, recordings)
    if format is Format.json:
        print_json(summary)
        write_report(study_file.runs / "report", summary)
        return
    card = summary["card"]
    print_card(card_rows(card), as_typed(card["command"]), good=card["earned"])
    print_table(study_file.name, with_headings(arms_table(summary), SHORT))
    print_table(IN_HAND, with_headings(in_hand_table(summary)))
    for warning in warnings(summary):
        say(f"Warning: {warning}")
    print_line(summary["verdict"]["sentence"])
    if "credit_sentence" in summary["verdict"]:
        print_line(summary["verdict"]["credit_sentence"])
    print_line(f"report: {write_report(study_file.runs / 'report', summary)}")


def pictures(
    study: Study,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default: runs/<study>/pictures.")
    ] = None,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only the trials of these; may be repeated.")
    ] = None,
    recordings: Table = None,
    storage: Storage = None,
    settings: Set = None,
) -> None:
    """Draw what came of a study, its trials and its comparison, as small PNG files for a README.

    Nothing is trained.
    """
    with loading():
        from impon_hpo.comparing.evidence import gather
        from impon_hpo.comparing.summary import summarise_comparison
        from impon_hpo.reporting.chart import Palette
        from impon_hpo.reporting.readme_pictures import comparison_pictures, trial_pictures
        from impon_hpo.storage.connect import artifact_store
        from impon_hpo.storage.trials import read_studies

        quiet_optuna()
    study_file = read_study(study, settings, check_samplers=False)
    for arm in arms or []:
        study_file.arm(arm)
    folder = to or study_file.runs / "pictures"
    written = []
    opened = _opened(study_file, storage)
    with suppress(NothingYetError):
        records = [] if opened is None else read_studies(opened, study_file.name)
        palette, store = Palette(list(study_file.arms)), artifact_store(study_file.artifacts)
        written += trial_pictures(folder, records, arms or list(study_file.arms), palette, store)
    with suppress(NothingYetError):
        gathered = gather(study_file, None if recordings is not None else opened, recordings)
        written += comparison_pictures(folder, summarise_comparison(study_file, gathered))
    if not written:
        raise NothingYetError(
            f"There is nothing of study '{study_file.name}' to draw yet: "
            f"run `{as_typed('impon-hpo tune')}` or `{as_typed('impon-hpo compare')}` first."
        )
    for path in written:
        print_line(str(path))
