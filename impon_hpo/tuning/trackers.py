"""The trackers that come with the package, TensorBoard and MLflow, and how `[track]` names one."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import socket
import time
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock

from impon_hpo.errors import ConfigError, as_typed
from impon_hpo.files import expanded
from impon_hpo.lookup import find, load_object, suggestion
from impon_hpo.storage.connect import without_secrets
from impon_hpo.tuning.tracking import WAITING, TrackedTrial, Tracker, check_tracker

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

PARAMS_AT_ONCE = 100  # MLflow's own limit
LETTERS = 500  # of a parameter, for servers before MLflow 2.8
REACHED_SECONDS = 5.0
"""A server of MLflow must be reached in so long: its client would try for minutes."""

ROOM = 65_536
"""Bytes that a folder of TensorBoard must have room for."""

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass
class TensorBoardTracker:
    """Writes a folder for each trial, which `tensorboard --logdir FOLDER` shows as it grows.

    A trial's folder is FOLDER/<study>/trial-<number>. One that was interrupted goes on there. The
    table HPARAMS has the trials that have ended.

    Args:
        folder: The folder; `~` is the user's own.

    Raises:
        ConfigError: The package is missing.

    Example:
        >>> from impon_hpo import TensorBoardTracker
        >>> TensorBoardTracker("runs/tensorboard")
        TensorBoardTracker(folder='runs/tensorboard')
    """

    folder: str = "runs/tensorboard"
    _writers: dict[TrackedTrial, SummaryWriter] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        _check_installed("tensorboard", "tensorboard")
        self.folder = str(expanded(self.folder))

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_writers": {}}

    def begin(self, trial: TrackedTrial) -> None:
        """Begin a trial's folder, or write its epochs anew: what TensorBoard has of it before is
        void."""
        self._check_room(trial)
        writer = self._open(trial, 0)
        if not trial.past:
            settings = json.dumps(dict(trial.settings), indent=2)
            writer.add_text("settings", "\n".join(f"    {line}" for line in settings.splitlines()))
        for epoch, numbers in trial.past.items():
            self.epoch(trial, epoch, numbers)

    def epoch(self, trial: TrackedTrial, epoch: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of an epoch."""
        try:
            self._check_room(trial)
            writer = self._writers.get(trial) or self._open(trial, epoch)
            for name, value in numbers.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()
        except Exception:
            self._writers.pop(trial, None)  # one whose disk was full writes nothing any more
            raise

    def end(self, trial: TrackedTrial, state: str, value: float | None) -> None:
        """Close a trial's folder."""
        self._check_room(trial)
        writer = self._writers.get(trial) or self._open(trial, len(trial.past) + 1)
        if state != WAITING:
            params = {key: _plain(value) for key, value in trial.params.items()}
            reached = {} if value is None else {"hparam/val_accuracy": value}
            # In the folder itself: by default, TensorBoard makes one inside of it.
            arm = {"arm": trial.arm} if trial.arm else {}
            writer.add_hparams({**params, **arm, "state": state}, reached, run_name=".")
        writer.close()
        self._writers.pop(trial, None)

    def _open(self, trial: TrackedTrial, purge_step: int) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        # Its files are read in the order of their names: a second, and then a process's number.
        while any(
            path.name.startswith(f"events.out.tfevents.{int(time.time())}.")
            and f".{os.getpid()}." not in path.name
            for path in self._place(trial).iterdir()
        ):
            time.sleep(0.05)
        self._writers[trial] = SummaryWriter(str(self._place(trial)), purge_step=purge_step)
        return self._writers[trial]

    def _place(self, trial: TrackedTrial) -> Path:
        return Path(self.folder) / trial.study.replace("/", "_") / f"trial-{trial.number}"

    def _check_room(self, trial: TrackedTrial) -> None:
        """Raise `OSError` where the disk is full: the thread of a writer would print its own."""
        probe = self._place(trial) / ".room"
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(ROOM))
        finally:
            probe.unlink(missing_ok=True)


@dataclass
class MLflowTracker:
    """Makes an MLflow run for each trial: parameters, numbers by epoch, and how it ended.

    A run is FINISHED, KILLED (pruned), FAILED, or SCHEDULED while its trial waits; tags that begin
    with "impon_hpo." say study, arm, trial and state. A trial that was interrupted goes on in its
    run. MLflow's global address and its active run are left alone.

    Args:
        uri: Address of the server or of a database, such as "http://localhost:5000" or
            "sqlite:///mlflow.db"; default: MLflow's own, `MLFLOW_TRACKING_URI`.
        experiment: Name of the experiment; default: that of the study.

    Raises:
        ConfigError: The package is missing, or the address is none of MLflow's.

    Example:
        >>> from impon_hpo import MLflowTracker
        >>> MLflowTracker(uri="./mlruns")
        Traceback (most recent call last):
        impon_hpo.errors.ConfigError: track.uri must be the address of a server or a database, such
        as http://localhost:5000 or sqlite:///mlflow.db, but got './mlruns'.
    """

    uri: str | None = None
    experiment: str | None = None
    _client: MlflowClient | None = field(default=None, init=False, repr=False, compare=False)
    _runs: dict[TrackedTrial, str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        _check_installed("mlflow", "mlflow")
        if self.uri is not None:
            scheme, slashes, path = self.uri.partition(":///")
            if path.startswith("~"):
                self.uri = scheme + slashes + str(expanded(path))
            self._check_address(self.uri)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None, "_runs": {}}

    def begin(self, trial: TrackedTrial) -> None:
        """Make a trial's run, or go on with it."""
        from mlflow.entities import Metric, Param

        client = self._connected()
        experiment = _experiment_id(client, self.experiment or trial.experiment)
        identity = f"{trial.uid or trial.study} {trial.number}".replace("'", "").replace('"', "")
        runs: Any = []
        if trial.uid or trial.past:  # else it may be another study of the same name
            query = f"tags.`impon_hpo.id` = '{identity}'"
            runs = client.search_runs([experiment], filter_string=query, max_results=1)
        if runs:
            run = runs[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            tags = {"study": trial.study, "arm": trial.arm, "trial": str(trial.number)}
            tags = {f"impon_hpo.{name}": value for name, value in tags.items() if value}
            run = client.create_run(
                experiment, run_name=trial.name, tags={**tags, "impon_hpo.id": identity}
            )
        if not run.data.params:
            params = [
                Param(name, _text(value))
                for name, value in {**trial.settings, **trial.params}.items()
            ]
            for at in range(0, len(params), PARAMS_AT_ONCE):
                client.log_batch(run.info.run_id, params=params[at : at + PARAMS_AT_ONCE])
        # A number that is logged twice stands there twice.
        history = client.get_metric_history(run.info.run_id, "cost") if runs else []
        logged = {metric.step for metric in history}
        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, epoch)
            for epoch, numbers in trial.past.items()
            for name, value in numbers.items()
            if epoch not in logged
        ]
        for at in range(0, len(metrics), 1000):
            client.log_batch(run.info.run_id, metrics=metrics[at : at + 1000])
        self._runs[trial] = run.info.run_id

    def epoch(self, trial: TrackedTrial, epoch: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of an epoch, all at once."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, epoch) for name, value in numbers.items()]
        self._connected().log_batch(self._runs[trial], metrics=metrics)

    def end(self, trial: TrackedTrial, state: str, value: float | None) -> None:
        """End a trial's run, or let it wait."""
        client, run_id = self._connected(), self._runs[trial]
        client.set_tag(run_id, "impon_hpo.state", state)
        if state == WAITING:
            client.update_run(run_id, status="SCHEDULED")
        else:
            status = {"complete": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
            client.set_terminated(run_id, status)
        del self._runs[trial]

    def _connected(self) -> MlflowClient:
        if self._client is None:
            from mlflow.tracking import MlflowClient

            with _alone(self.uri or os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")):
                self._client = MlflowClient(tracking_uri=self.uri)
        _reach(str(self._client.tracking_uri))
        return self._client

    def _check_address(self, uri: str) -> None:
        scheme = uri.partition(":")[0].partition("+")[0]
        if scheme == "file" or ("://" not in uri and not scheme.startswith("databricks")):
            raise ConfigError(
                "track.uri must be the address of a server or a database, such as "
                f"http://localhost:5000 or sqlite:///mlflow.db, but got '{uri}'."
            )
        if scheme in DATABASES:  # a client would connect at once
            return
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            MlflowClient(tracking_uri=uri)
        except MlflowException as error:
            shown = without_secrets(uri)
            reason = str(error).replace(uri, shown)
            raise ConfigError(f"track.uri = '{shown}' cannot be used: {reason}") from None


TRACKERS: dict[str, type[Any]] = {"tensorboard": TensorBoardTracker, "mlflow": MLflowTracker}


def check_track(table: Mapping[str, Any]) -> None:
    """Check `[track]` as far as that needs neither packages nor modules of the user's.

    Raises:
        ConfigError: A name or an option is wrong.
    """
    to = table.get("to")
    if not isinstance(to, str) or not to:
        raise ConfigError(
            '[track] must say where trials are shown: to = "tensorboard", "mlflow" or '
            f"'module:name' for your own, but got {dict(table)}."
        )
    if ":" in to:
        return
    known = inspect.signature(find(TRACKERS, to, "tracker")).parameters
    for key, value in table.items():
        if key == "to":
            continue
        if key not in known:
            raise ConfigError(
                f"Unknown key 'track.{key}'.{suggestion(key, known)} "
                f"'{to}' takes: {', '.join(known)}."
            )
        if not isinstance(value, str) or not value:
            raise ConfigError(f"track.{key} must be a text, but got {value!r}.")


def make_tracker(table: Mapping[str, Any], runs: Path) -> Tracker | None:
    """Make the tracker that `[track]` describes, or None where there is no such table.

    Args:
        table: `[track]`: where to, and options.
        runs: The study's own folder, where trackers write unless they are told otherwise.

    Raises:
        ConfigError: A package is missing, or an option does not fit.
    """
    if not table:
        return None
    check_track(table)
    to = table["to"]
    options = {key: value for key, value in table.items() if key != "to"}
    if to == "tensorboard":
        options = {"folder": str(runs / "tensorboard")} | options
    if to == "mlflow" and "MLFLOW_TRACKING_URI" not in os.environ:
        # MLflow keeps connections by address, in whatever folder it is asked next.
        options = {"uri": f"sqlite:///{(runs / 'mlflow.db').resolve()}"} | options
    cls = TRACKERS[to] if to in TRACKERS else load_object(to)
    try:
        tracker: Tracker = cls(**options)
    except ConfigError:
        raise
    except Exception as error:  # the class is the user's: anything can go wrong inside it
        raise ConfigError(
            f"[track] to = '{to}' cannot be made with {options}: {type(error).__name__}: {error}"
        ) from error
    check_tracker(tracker)
    return tracker


def _check_installed(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        pip = as_typed(f"pip install impon-hpo[{extra}]")
        raise ConfigError(f"Tracking to {extra} needs the package {package}: `{pip}`.")


def _alone(uri: str) -> AbstractContextManager[object]:
    """Keep others from making the tables of the same file at the same moment, which breaks it."""
    scheme, _, path = uri.partition(":///")
    if not scheme.startswith("sqlite") or not path:
        return nullcontext()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def _reach(uri: str) -> None:
    """Raise `OSError` where there is no server at a http address."""
    url = urlsplit(uri)
    proxies = urllib.request.getproxies()
    if url.scheme not in ("http", "https") or url.hostname is None:
        return
    if url.scheme in proxies and not urllib.request.proxy_bypass(url.hostname):
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    socket.create_connection((url.hostname, port), timeout=REACHED_SECONDS).close()


def _experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, which is made where there is none."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another worker was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:LETTERS]


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
