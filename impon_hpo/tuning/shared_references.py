"""The references of a study: on this machine's disk, and in the artifact store for the others."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

import optuna
from optuna.artifacts import download_artifact, upload_artifact

from impon_hpo.errors import CheckpointError, describing
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import REFERENCE
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.reference_folder import MAKERS, KeptReference, References
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits

log = logging.getLogger("impon_hpo")

_one_at_a_time = threading.Lock()
"""Of the threads that find a reference at the same moment, one uploads it."""


class SharedReferences:
    """Finds a study's references wherever one of its workers made them, and charges the study once.

    What is known of a reference stands in the study's user attribute `impon:reference:<key>`:
    maker, cost, settings and, where there is an artifact store, the artifact that holds it. Two
    machines that begin at the same moment may both make it; it is then the same, and charged once.

    Args:
        references: The folder on this machine.
        artifact_store: Where other machines find it; default: nowhere.
    """

    def __init__(self, references: References, artifact_store: ArtifactStore | None) -> None:
        self.references = references
        self._artifact_store = artifact_store
        self._broken: set[str] = set()

    def key(
        self, config: TrainingConfig, splits: Splits, *, teacher: TrainingConfig | None = None
    ) -> str:
        """Return the name of the reference that `config` asks for."""
        return self.references.key(config, splits, teacher=teacher)

    def find(
        self,
        study: optuna.Study | None,
        config: TrainingConfig,
        splits: Splits,
        *,
        teacher: TrainingConfig | None = None,
    ) -> KeptReference | None:
        """Return the reference that `config` asks for, made if need be; None if it cannot be yet.

        Args:
            study: The study that is charged for it, and in which its artifact is noted; None:
                nobody is charged, and only this machine is looked through.
            config: The settings.
            splits: The data.
            teacher: All settings of the run that it comes from, where that run is known.

        Raises:
            ConfigError: `reference` or its options are wrong.
            CheckpointError: A file is broken, of other data, or cannot be written.
        """
        key = self.references.key(config, splits, teacher=teacher)
        if study is not None and config.reference in MAKERS:
            self._fetch(study, key, splits)
        kept = self.references.find(config, splits, teacher=teacher)
        if study is not None and kept is not None:
            with _one_at_a_time:
                self._share(study, key, kept)
        return kept

    def learn(
        self,
        study: optuna.Study,
        config: TrainingConfig,
        splits: Splits,
        memory: RowMemory,
        *,
        teacher: TrainingConfig | None = None,
    ) -> None:
        """Keep what a finished trial observed as the prequential reference, if it is the first."""
        key = self.references.key(config, splits, teacher=teacher)
        kept = self.references.learn(config, splits, memory, teacher=teacher)
        with _one_at_a_time:
            self._share(study, key, kept)

    def _fetch(self, study: optuna.Study, key: str, splits: Splits) -> None:
        """Copy a reference from the artifact store; a broken one is left there and rebuilt."""
        known = study.user_attrs.get(REFERENCE + key)
        path = self.references.path(key)
        if known is None or known["artifact"] is None or path.exists():
            return
        if self._artifact_store is None:
            return
        # A name of its own: several workers may fetch at once, and one may have been killed.
        part = path.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_artifact(
                artifact_store=self._artifact_store,
                file_path=str(part),
                artifact_id=known["artifact"],
            )
            KeptReference.load(part, splits)
            part.replace(path)
        except CheckpointError as error:
            log.warning("%s It is rebuilt.", error)
            self._broken.add(key)
        except Exception as error:  # a store can be a folder or a bucket, each with its own errors
            raise CheckpointError(
                f"Reference {key} cannot be fetched from the artifact store: {error}"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _share(self, study: optuna.Study, key: str, kept: KeptReference) -> None:
        if REFERENCE + key in study.user_attrs and key not in self._broken:
            return
        self._broken.discard(key)
        artifact = None
        path = self.references.path(key)
        if self._artifact_store is not None and path.exists():
            with describing(
                f"Reference {key} could not be put into the artifact store",
                "It is on this machine; another one makes or learns its own.",
            ):
                artifact = upload_artifact(
                    artifact_store=self._artifact_store, file_path=str(path), study_or_trial=study
                )
        entry: dict[str, Any] = {
            "maker": kept.maker,
            "cost": kept.cost,
            "settings": kept.settings,
            "artifact": artifact,
        }
        study.set_user_attr(REFERENCE + key, entry)
