"""The command that draws small pictures of a study: `pictures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impon_hpo.commands.options import Set, Storage, Study, quiet_optuna
from impon_hpo.console import loading, print_line


def pictures(
    study: Study,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default: runs/<study>/pictures.")
    ] = None,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only the trials of these; may be repeated.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of a recordings.csv.xz; default: this machine's, else the study's own.",
        ),
    ] = None,
    storage: Storage = None,
    settings: Set = None,
) -> None:
    """Draw what came of a study, its trials and its comparison, as small PNG files for a README.

    Nothing is trained.
    """
    with loading():
        from impon_hpo.comparing.record_study import gather
        from impon_hpo.comparing.summary import summarise_comparison
        from impon_hpo.errors import NothingYetError
        from impon_hpo.reporting.chart import Palette
        from impon_hpo.reporting.pictures import comparison_pictures, trial_pictures
        from impon_hpo.storage.connect import artifact_store, open_storage
        from impon_hpo.storage.trials import read_studies
        from impon_hpo.tuning.study_file import read_study_file

        quiet_optuna()
    study_file = read_study_file(study, settings or [])
    for arm in arms or []:
        study_file.arm(arm)
    folder = to or study_file.runs / "pictures"
    written = []
    try:
        opened = open_storage(storage or study_file.storage, create=False)
        records = read_studies(opened, study_file.name)
    except NothingYetError:
        records = []
    if records:
        palette, store = Palette(list(study_file.arms)), artifact_store(study_file.artifacts)
        written += trial_pictures(folder, records, arms or list(study_file.arms), palette, store)
    try:
        found = gather(study_file, recordings)
    except NothingYetError:
        found = None
    if found is not None:
        written += comparison_pictures(folder, summarise_comparison(study_file, found))
    if not written:
        raise NothingYetError(
            f"There is nothing of study '{study_file.name}' to draw yet: run `impon-hpo tune` or "
            "`impon-hpo compare` first."
        )
    for path in written:
        print_line(str(path))
