"""optuna-dashboard on a study's storage and artifacts, with a note and graphs on each arm."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from optuna.storages import BaseStorage
from optuna_dashboard import get_note, run_server, save_note, save_plotly_graph_object

from impon_hpo.errors import describing
from impon_hpo.reporting.chart import Palette
from impon_hpo.reporting.note import note, read_card
from impon_hpo.reporting.render import figure
from impon_hpo.reporting.study_charts import study_charts
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import read_arms_and_comparison

REFRESH_SECONDS = 20.0
UNHARMED = "The dashboard shows the trials all the same."


def serve(storage: BaseStorage, artifacts: str, host: str, port: int) -> None:
    """Serve the dashboard until it is interrupted.

    Raises:
        StorageError: The store of artifacts cannot be opened.
    """
    # A thread gets no signals. In the main thread, Python's server takes a stop that comes while a
    # request is answered for a mistake in the answer, and goes on.
    server = threading.Thread(
        target=run_server,
        args=(storage, host, port, artifact_store(artifacts)),
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

    def write(self) -> None:
        """Write the pages of those arms that have changed; a note that a person has edited stays.

        What cannot be drawn or saved is logged, and costs neither the other graphs nor the other
        arms; an arm without its note is written again the next time.

        Raises:
            NothingYetError: The storage holds nothing of the study.
        """
        records, _ = read_arms_and_comparison(self._storage, self._study)
        card = read_card(self._runs)
        for record in records:
            study = record.optuna_study
            text = note(record, records, card)
            before = self._written.get(study.study_name)
            if text == before:
                continue
            arm = f"of arm '{record.identity['arm']}'"
            for chart in study_charts(record, records, self._palette):
                with describing(f"Graph '{chart.key}' {arm} could not be saved", UNHARMED):
                    save_plotly_graph_object(study, figure(chart), graph_object_id=chart.key)
            with describing(f"The note {arm} could not be saved", UNHARMED):
                if before is None or get_note(study) == before:
                    save_note(study, text)
                self._written[study.study_name] = text

    def keep_up(self) -> None:
        """Write the pages again every few seconds, forever, while other processes run trials."""
        while True:
            time.sleep(REFRESH_SECONDS)
            with suppress(Exception):  # a storage out of reach for a moment: the next try succeeds
                self.write()
