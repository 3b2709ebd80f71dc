"""Trials in TensorBoard and MLflow, read back with their tools; how `[track]` names a tracker."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.testing.pruners import DeterministicPruner

from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning import tracking
from impon_hpo.tuning.trackers import MLflowTracker, TensorBoardTracker, make_tracker
from impon_hpo.tuning.tracking import PatientTracker, TrackedTrial, Tracking
from tests.command import run
from tests.studies import SMALL, small_study, write_study
from tests.tuning.forks import fork
from tests.tuning.notebook import tried
from tests.tuning.test_recovery import kill_at

pytestmark = [
    # Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    # MLflow asks SQLAlchemy for what that will drop.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
PROMOTE = SMALL.replace(HALVING, 'name = "promote"\nreduction_factor = 2')


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow, which takes seconds to make."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database: Path) -> str:
    """The address of an empty database of MLflow in the working directory."""
    return address(Path(shutil.copy(empty_database, "mlflow.db")))


def address(path: Path) -> str:
    # MLflow keeps connections by address: a relative one would be another test's file.
    return f"sqlite:///{path.resolve()}"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def assert_told_once(written: list[tuple[int, float]], trial: optuna.trial.FrozenTrial) -> None:
    """Each epoch of a trial is there, once; TensorBoard keeps floats of four bytes."""
    assert [step for step, _ in written] == list(trial.intermediate_values)
    assert dict(written) == pytest.approx(trial.intermediate_values)


def runs_of(uri: str, experiment: str = "small") -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    stored = client.get_experiment_by_name(experiment)
    assert stored is not None
    runs = client.search_runs([stored.experiment_id])
    return sorted(runs, key=lambda run: int(run.data.tags["impon_hpo.trial"]))


def history(uri: str, run: Any) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    metrics = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, "val_accuracy")
    return [(metric.step, metric.value) for metric in metrics]


def test_tensorboard_has_a_folder_a_trial_with_its_epochs_and_parameters(
    tiny_config: TrainingConfig, tiny_splits: Splits
) -> None:
    tracker = TensorBoardTracker("board")
    study = tried(tracker, tiny_config, tiny_splits, n_trials=2, lr=FloatDistribution(0.01, 0.1))
    assert [path.name for path in sorted(Path("board/by-hand").iterdir())] == ["trial-0", "trial-1"]
    for trial in study.trials:
        folder = Path(f"board/by-hand/trial-{trial.number}")
        written = scalars(folder)
        assert_told_once(written["val_accuracy"], trial)
        assert written["hparam/val_accuracy"] == [pytest.approx((0, trial.value))]
        assert not [path for path in folder.iterdir() if path.is_dir()]
        assert _hyperparameters(folder) == pytest.approx(trial.params)


def test_a_disk_that_was_full_for_a_while_costs_a_line_and_no_epoch(
    capfd: pytest.CaptureFixture[str],
) -> None:
    trial = TrackedTrial("one trial 0", "one", 0, {"lr": 0.1}, {}, {}, "one")

    def track() -> None:
        # A command that another test has run in this process left a handler of its own.
        log = logging.getLogger("impon_hpo")
        log.handlers, log.propagate = [logging.StreamHandler(sys.stderr)], False
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        tracking.FAILING_SHARE = 1.0
        _, no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        told = Tracking(PatientTracker(TensorBoardTracker("board")), trial)
        for epoch in range(1, 7):
            room = 300 if epoch in (3, 4) else no_limit
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, no_limit))
            told.epoch(epoch, {"epoch": epoch, "val_accuracy": epoch / 10, "diagnostics": {}})
            time.sleep(0.2)
        told.end("complete", 0.6)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(track), 0)[1]) == 0
    err = capfd.readouterr().err
    assert err.count("Trial 0 could not be tracked: OSError") == 1
    assert "Traceback" not in err
    written = scalars(Path("board/one/trial-0"))["val_accuracy"]
    assert [step for step, _ in written] == [1, 2, 3, 4, 5, 6]


def _hyperparameters(folder: Path) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    numbers = {key: value.number_value for key, value in info.hparams.items() if key != "state"}
    assert info.hparams["state"].string_value == "complete"
    return numbers


def test_mlflow_has_a_run_a_trial_with_parameters_epochs_tags_and_status(
    tiny_config: TrainingConfig, tiny_splits: Splits, database: str
) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    tracker = MLflowTracker(uri=database)
    lr = FloatDistribution(0.01, 0.1)
    study = tried(tracker, tiny_config, tiny_splits, n_trials=1, lr=lr)
    tried(tracker, tiny_config, tiny_splits, DeterministicPruner(True), lr=lr)
    complete, pruned = sorted(
        runs_of(database, experiment="by-hand"), key=lambda run: run.info.status
    )
    trial = study.trials[0]
    assert (complete.info.status, pruned.info.status) == ("FINISHED", "KILLED")
    assert history(database, complete) == list(trial.intermediate_values.items())
    assert len(history(database, pruned)) == 1
    assert float(complete.data.params["lr"]) == trial.params["lr"]
    assert complete.data.params["epochs"] == "3"
    tags = {key: value for key, value in complete.data.tags.items() if "impon" in key}
    assert tags["impon_hpo.study"] == "by-hand"
    assert (tags["impon_hpo.trial"], tags["impon_hpo.state"]) == ("0", "complete")
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


@pytest.mark.parametrize("to", [pytest.param("tensorboard", marks=pytest.mark.slow), "mlflow"])
def test_trials_that_are_killed_and_wait_go_on_in_their_run_without_doubled_epochs(
    to: str, empty_database: Path
) -> None:
    write_study(PROMOTE + f'\n[track]\nto = "{to}"\n')
    Path("runs/small").mkdir(parents=True)
    shutil.copy(empty_database, "runs/small/mlflow.db")
    words = ["tune", "small", "--arm", "uniform"]
    for n in (3, 12, 25):
        kill_at((TrainingRun, "step", False), n, lambda: run(*words))
    assert run(*words) == 0
    study = optuna.load_study(study_name="small-uniform", storage="sqlite:///runs/small/study.db")
    assert any(len(trial.intermediate_values) == 3 for trial in study.trials)
    for trial in study.trials:
        if to == "tensorboard":
            folder = Path(f"runs/small/tensorboard/small-uniform/trial-{trial.number}")
            assert_told_once(scalars(folder)["val_accuracy"], trial)
    if to == "mlflow":
        uri = address(Path("runs/small/mlflow.db"))
        runs = runs_of(uri)
        assert [int(run.data.tags["impon_hpo.trial"]) for run in runs] == [0, 1, 2]
        for stored, trial in zip(runs, study.trials, strict=True):
            assert history(uri, stored) == list(trial.intermediate_values.items())
            pruned = trial.state.name == "PRUNED"
            assert stored.info.status == ("KILLED" if pruned else "FINISHED")
            assert stored.data.tags["impon_hpo.arm"] == "uniform"


def test_a_run_waits_while_its_trial_does(database: str) -> None:
    settings = f'to = "mlflow"\nexperiment = "ours"\nuri = "{database}"\n'
    write_study(PROMOTE + f"\n[track]\n{settings}")
    assert run("tune", "small", "--arm", "uniform", "--max-epochs", "2") == 0
    statuses = {run.info.status for run in runs_of(database, experiment="ours")}
    assert statuses == {"SCHEDULED"}


def test_another_study_of_the_same_name_has_runs_of_its_own(database: str) -> None:
    write_study(SMALL + f'\n[track]\nto = "mlflow"\nuri = "{database}"\n')
    for storage in ("one.journal", "two.journal"):
        words = ["tune", "small", "--arm", "uniform", "--trials", "1", "--storage", storage]
        assert run(*words) == 0
    assert len(runs_of(database)) == 2


@pytest.mark.slow
def test_two_workers_make_the_database_and_share_the_runs_of_a_study() -> None:
    write_study(SMALL.replace("n_trials = 3", "n_trials = 4") + '\n[track]\nto = "mlflow"\n')

    def work() -> None:
        raise SystemExit(run("tune", "small", "--arm", "uniform"))

    workers = [fork(work) for _ in range(2)]
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
    study = optuna.load_study(study_name="small-uniform", storage="sqlite:///runs/small/study.db")
    uri = address(Path("runs/small/mlflow.db"))
    for stored, trial in zip(runs_of(uri), study.trials, strict=True):
        assert history(uri, stored) == list(trial.intermediate_values.items())


def test_a_server_of_mlflow_that_is_away_delays_nobody(
    tiny_config: TrainingConfig, tiny_splits: Splits, said: list[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    study = tried(MLflowTracker(uri=f"http://127.0.0.1:{port}"), tiny_config, tiny_splits)
    assert study.trials[0].state.name == "COMPLETE"
    (line,) = [line for line in said if "tracked" in line]
    assert "Trial 0 could not be tracked" in line


def test_a_class_beside_the_study_file_gets_the_options() -> None:
    folder = write_study(
        SMALL + '\n[track]\nto = "my_tracker_of_a_test:Lines"\npath = "lines.txt"\n'
    )
    (folder / "my_tracker_of_a_test.py").write_text(
        "class Lines:\n"
        "    def __init__(self, path):\n"
        "        self.path = path\n"
        "    def _write(self, *words):\n"
        "        with open(self.path, 'a') as file:\n"
        "            print(*words, file=file)\n"
        "    def begin(self, trial):\n"
        "        self._write('begin', trial.name, trial.arm)\n"
        "    def epoch(self, trial, epoch, numbers):\n"
        "        self._write('epoch', epoch)\n"
        "    def end(self, trial, state, value):\n"
        "        self._write('end', state)\n"
    )
    assert run("tune", "small", "--arm", "uniform", "--trials", "1") == 0
    lines = Path("lines.txt").read_text().splitlines()
    assert lines[0] == "begin small-uniform trial 0 uniform"
    assert lines[1:] == ["epoch 1", "epoch 2", "epoch 3", "end complete"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["track.to=tensorbord"], "Unknown tracker 'tensorbord'. Did you mean 'tensorboard'?"),
        (["track.to=tensorboard", "track.foldr=x"], "Unknown key 'track.foldr'. Did you mean"),
        (["track.to=mlflow", "track.uri=3"], "track.uri must be a text, but got 3"),
        (["track.folder=x"], "[track] must say where trials are shown"),
        (["track.to=mlflow", "track.uri=./mlruns"], "must be the address of a server"),
        (["track.to=mlflow", "track.uri=ftp://x"], "cannot be used"),
        (["track.to=no_such:Tracker"], "'no_such:Tracker' cannot be imported"),
        (["track.to=builtins:dict", "track.x=1"], "with the methods begin, epoch and end"),
        (["track.to=builtins:int", "track.x=1"], "cannot be made with"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_wrong_tracker_is_refused_before_training(
    settings: list[str], message: str, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study()
    words = [word for setting in settings for word in ("--set", setting)]
    assert run("tune", "small", *words, *(["--dry-run"] if dry else [])) == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert "Traceback" not in said
    assert not Path("runs/small/study.db").exists()


@pytest.mark.parametrize(("to", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_package_that_is_missing_is_named_with_the_line_to_type(
    to: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file = small_study(f"track.to={to}")  # a file can be read all the same
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    places = [entry for entry in sys.path if not (Path(entry) / package).is_dir()]
    monkeypatch.setattr(sys, "path", places)
    with pytest.raises(ConfigError, match=rf"`pip install impon-hpo\[{to}\]`"):
        make_tracker(study_file.track, study_file.runs)


def test_a_tracker_is_no_part_of_a_study() -> None:
    tracked = small_study("track.to=tensorboard")
    assert tracked.identity("impon") == small_study().identity("impon")
    assert make_tracker(small_study().track, tracked.runs) is None


def test_trackers_travel_to_other_processes_also_while_they_track(database: str) -> None:
    trial = TrackedTrial("one trial 0", "one", 0, {}, {}, {}, "one")
    for tracker in (TensorBoardTracker("board"), MLflowTracker(uri=database)):
        tracker.begin(trial)
        for copied in (pickle.loads(pickle.dumps(tracker)), copy.deepcopy(PatientTracker(tracker))):
            assert copied == tracker or copied.tracker == tracker
        tracker.end(trial, "failed", None)


def test_nothing_is_imported_before_it_is_used_and_nothing_global_changes() -> None:
    code = (
        "import sys, logging\n"
        "from impon_hpo.tuning.study_file import read_study_file\n"
        "read_study_file('small', ['track.to=mlflow'], check_samplers=False)\n"
        "read_study_file('small', ['track.to=tensorboard'], check_samplers=False)\n"
        "loaded = {'torch', 'tensorboard', 'mlflow'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)\n"
    )
    write_study()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_users_own_folder_is_no_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TensorBoardTracker("~/board").folder == str(tmp_path / "board")
    assert MLflowTracker("sqlite:///~/flow.db").uri == f"sqlite:///{tmp_path}/flow.db"
