"""optuna-dashboard on a study's storage and artifacts, with a note and graphs on each arm."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from optuna.storages import BaseStorage
from optuna_dashboard import get_note, run_server, save_note, save_plotly_graph_object

from impon_hpo.errors import ImponHpoError, StorageError, describing
from impon_hpo.reporting.chart import Palette
from impon_hpo.reporting.note import note, read_card
from impon_hpo.reporting.render import figure
from impon_hpo.reporting.study_charts import study_charts
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import StudyRecord, read_arms_and_comparison

log = logging.getLogger("impon_hpo")

REFRESH_SECONDS = 20.0
UNHARMED = "The dashboard shows the trials all the same."


def serve(storage: BaseStorage, artifacts: str, host: str, port: int) -> None:
    """Serve the dashboard until it is interrupted.

    Where the folder of artifacts cannot be made, as in a colleague's study, there is none.
    """
    store = None
    try:
        store = artifact_store(artifacts)
    except StorageError as error:
        log.warning("The files of trials are not shown: %s", error)
    # A thread gets no signals. In the main thread, Python's server takes a stop that comes while a
    # request is answered for a mistake in the answer, and goes on.
    server = threading.Thread(
        target=run_server,
        args=(storage, host, port, store),
        name="dashboard",
        daemon=True,
    )
    server.start()
    with suppress(KeyboardInterrupt):
        server.join()
        raise RuntimeError("The server of the dashboard has failed.")


class Pages:
    """What we write on the dashboard's pages of a study's arms: a note, and graphs under fixed
    names.

    Args:
        storage: The storage.
        study: Name of the study.
        arms: Its arms in the order of the study file, which decides their colours.
        runs: runs/<study>, which holds the verdict of a comparison.
    """

    def __init__(self, storage: BaseStorage, study: str, arms: Sequence[str], runs: Path) -> None:
        self._storage = storage
        self._study = study
        self._palette = Palette(arms)
        self._runs = runs
        self._written: dict[str, str] = {}
        self._failure = ""

    def write(self) -> None:
        """Write the pages of those arms that have changed; a note that a person has edited stays.

        A graph that cannot be drawn is logged, and costs no other. Where the storage takes none,
        such as a backup that may only be read, that is logged once, and tried again the next time.

        Raises:
            NothingYetError: The storage holds nothing of the study.
        """
        records, _ = read_arms_and_comparison(self._storage, self._study)
        card = read_card(self._runs)
        failure = ""
        try:
            for record in records:
                self._save(record, note(record, records, card), records)
        except Exception as error:  # of which every storage has its own
            kind = "" if isinstance(error, ImponHpoError) else f"{type(error).__name__}: "
            failure = f"{kind}{error}"
        if failure and failure != self._failure:  # not again every few seconds
            log.warning("Notes and graphs could not be saved: %s %s", failure, UNHARMED)
        self._failure = failure

    def _save(self, record: StudyRecord, text: str, records: Sequence[StudyRecord]) -> None:
        """Save the note and the graphs of an arm that has changed since."""
        study = record.optuna_study
        before = self._written.get(study.study_name)
        if text == before:
            return
        for chart in study_charts(record, records, self._palette):
            drawn = None
            what = f"Graph '{chart.key}' of arm '{record.identity['arm']}' could not be drawn"
            with describing(what, UNHARMED):
                drawn = figure(chart)
            if drawn is not None:
                save_plotly_graph_object(study, drawn, graph_object_id=chart.key)
        if before is None or get_note(study) == before:
            save_note(study, text)
        self._written[study.study_name] = text

    def keep_up(self) -> None:
        """Write the pages again every few seconds, forever, while other processes run trials."""
        while True:
            time.sleep(REFRESH_SECONDS)
            with suppress(Exception):  # a storage out of reach for a moment: the next try succeeds
                self.write()
