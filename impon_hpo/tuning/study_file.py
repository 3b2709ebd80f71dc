"""The study file, study.toml: the question, what is searched, and the arms under comparison."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from impon_hpo.errors import ConfigError
from impon_hpo.files import expanded
from impon_hpo.lookup import suggestion
from impon_hpo.settings import Settings, explain
from impon_hpo.storage.connect import sqlite_address
from impon_hpo.training.config import FILES, TrainingConfig
from impon_hpo.tuning.algorithms import make_pruner, make_study_sampler
from impon_hpo.tuning.combinations import Combinations, combinations_of
from impon_hpo.tuning.protocol import Protocol, resolve_protocol
from impon_hpo.tuning.report_signal import LOSS_SETTINGS, ReportSignal, threshold_warnings
from impon_hpo.tuning.space import Space
from impon_hpo.tuning.space_check import check_conditions, check_space
from impon_hpo.tuning.space_syntax import parse_space
from impon_hpo.tuning.trackers import check_track

NAME = re.compile(r"\w[\w.-]*")


class StudyFile(Settings):
    """A study as its file describes it, checked.

    Args:
        question: What the study is to answer.
        storage: URL or journal path of the storage; default: SQLite in the folder `runs`.
        artifacts: Folder or `s3://bucket` for what trials leave beside their numbers.
        n_trials: Finished trials wanted in each arm.
        seed: Seed of the study sampler (and of `[run]`, unless it has its own).
        pruner: `[pruner]`: name and arguments of one of Optuna's, or "promote": see `Promotion`.
        study_sampler: `[study_sampler]`: name and arguments.
        report: What the pruner sees after each epoch: see `ReportSignal`.
        report_smoothing: Its smoothing over the epochs.
        track: `[track]`: where else trials are shown as `tune` trains them: `to` and options.
        run: `[run]`: what all arms have in common.
        space: `[space]`: settings searched over.
        arms: `[arms.NAME]`: the training configuration of each arm, by name, in the order of the
            file.
        compare: `[compare]` as it stands in the file; see `protocol`.
        folder: The folder of the file; not a key of it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    question: str = Field(min_length=1)
    storage: str
    artifacts: str
    n_trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    pruner: dict[str, Any] = Field(default_factory=lambda: {"name": "NopPruner"})
    study_sampler: dict[str, Any] = Field(default_factory=lambda: {"name": "TPESampler"})
    report: Literal["metric", "ema", "last", "train-loss", "val-loss"] = "metric"
    report_smoothing: float = Field(default=0.0, ge=0, lt=1)
    track: dict[str, Any] = Field(default={})
    run: TrainingConfig
    space: Space
    arms: dict[str, TrainingConfig] = Field(min_length=1)
    compare: Protocol = Protocol()
    folder: Path

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Fill in what depends on other keys, and turn each arm into settings."""
        folder = Path(document.get("folder", "")).name
        filled = document | {
            "storage": document.get("storage") or sqlite_address(f"runs/{folder}/study.db"),
            "artifacts": document.get("artifacts") or f"runs/{folder}/artifacts",
        }
        run, space, arms = (document.get(key, {}) for key in ("run", "space", "arms"))
        filled["space"] = parse_space(space) if isinstance(space, dict) else space
        if isinstance(run, dict):
            for key in ("sampler", "sampler_options"):
                if key in run:
                    raise ConfigError(f"run.{key} belongs in an arm: [arms.NAME] sampler = …")
            place = Path(document.get("folder", ""))
            filled["run"] = _with_paths({"seed": document.get("seed", 0)} | run, place)
            if isinstance(arms, dict) and arms:
                filled["arms"] = {
                    name: _with_paths(_arm_settings(name, filled["run"], arm), place)
                    for name, arm in arms.items()
                }
        return filled

    @model_validator(mode="after")
    def _check(self) -> Self:
        for config in self.arms.values():
            check_space(config, self.space)
            self.signal.check(config, self.space)
        check_conditions(list(self.arms.values()), self.space)
        for epochs in {config.epochs for config in self.arms.values()}:
            make_pruner(self.pruner, epochs=epochs)
        make_study_sampler(self.study_sampler, seed=self.seed, number=0)
        for name in self.arms:
            self.combinations(name)
        if self.track:
            check_track(self.track)
        if self.compare.model_fields_set:
            make_pruner(self.protocol.pruner, epochs=self.run.epochs)
        return self

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def signal(self) -> ReportSignal:
        """What the pruner sees."""
        return ReportSignal(report=self.report, report_smoothing=self.report_smoothing)

    @property
    def protocol(self) -> Protocol:
        """What a comparison of the arms fixes beforehand.

        Raises:
            ConfigError: `[compare]` has a mistake, or the file has no arm beside the controls.
        """
        return resolve_protocol(
            self.compare,
            n_trials=self.n_trials,
            pruner=self.pruner,
            run=self.run,
            arms=self.arms,
        )

    @property
    def runs(self) -> Path:
        """The folder for everything that running the study writes: runs/<study> in the working
        directory."""
        return Path("runs") / self.name

    def arm(self, name: str | None) -> str:
        """Return the arm `name`, or the first one.

        Raises:
            ConfigError: There is no such arm.
        """
        if name is None:
            return next(iter(self.arms))
        if name not in self.arms:
            raise ConfigError(
                f"Study '{self.name}' has no arm '{name}'.{suggestion(name, self.arms)} "
                f"Its arms: {', '.join(self.arms)}."
            )
        return name

    def combinations(self, arm: str) -> Combinations | None:
        """Return what the study sampler tries in an arm, each combination once; None: it has no
        such order.

        Raises:
            ConfigError: Its grid or what it fixes does not fit the space.
        """
        return combinations_of(self.study_sampler, self.space, self.arms[arm], seed=self.seed)

    def warnings(self) -> list[str]:
        """Return warnings about what is allowed but rarely intended."""
        warnings = []
        if self.pruner.get("name") == "HyperbandPruner" and len(self.arms) > 1:
            warnings.append(
                "HyperbandPruner takes a trial's bracket from the study's name, so the arms of "
                "this study are not pruned alike. To compare them, use SuccessiveHalvingPruner."
            )
        minus_loss = self.signal.minus_loss or self.run.metric == "loss"
        warnings += threshold_warnings(self.pruner, minus_loss=minus_loss)
        searched = [key for key in self.space if key.split(".")[0] in LOSS_SETTINGS]
        if self.report == "train-loss" and searched:
            warnings.append(
                f"report = 'train-loss', and {' and '.join(searched)} is searched over, which "
                "changes what a training loss is: the pruner compares what cannot be compared."
            )
        return warnings

    def identity(self, arm: str) -> dict[str, Any]:
        """Return what must be the same when an arm is continued, as plain JSON values."""
        return {
            "study": self.name,
            "arm": arm,
            "seed": self.seed,
            "pruner": self.pruner,
            "study_sampler": self.study_sampler,
            **self.signal.identity(),
            "run": self.arms[arm].identity(),
            "space": self.space.identity(),
        }


def find_study_file(study: str) -> Path:
    """Return the path of the study.toml that `study` means.

    Args:
        study: A folder with a study.toml, the file itself, or the name of a folder in studies/.

    Raises:
        ConfigError: There is none; the message lists the studies in studies/.
    """
    for place in (Path(study), Path("studies") / study):
        if place.is_file():
            return place
        if (place / "study.toml").is_file():
            return place / "study.toml"
    here = Path("studies")
    known = sorted(str(file.parent.relative_to(here)) for file in here.glob("**/study.toml"))
    listed = f" Studies here: {', '.join('studies/' + name for name in known)}." if known else ""
    close = suggestion(Path(study).name, known)
    raise ConfigError(
        f"There is no study '{study}': no such folder with a study.toml.{close}{listed}"
    )


def read_study_file(
    study: str, settings: Sequence[str] = (), *, check_samplers: bool = True
) -> StudyFile:
    """Read the study file of `study` and change it by `settings`.

    Args:
        study: A folder with a study.toml, the file itself, or the name of a folder in studies/.
        settings: "key=value" for a setting of `[run]`, or "table.key=value" for any other; the
            value as TOML writes it, or a plain word.
        check_samplers: Whether batch samplers and their options are checked. That imports torch,
            which a command that trains nothing can do without.

    Raises:
        ConfigError: The file does not exist, or a key, a value, an arm, a pruner … is wrong.
    """
    path = find_study_file(study)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for setting in settings:
        _apply(document, setting)
    overrides = f" with --set {' --set '.join(settings)}" if settings else ""
    if "folder" in document:
        raise ConfigError(f"{path}{overrides}: Unknown key 'folder'.")
    document["folder"] = path.parent.resolve()
    try:
        return StudyFile.model_validate(document, context={"check_samplers": check_samplers})
    except ValidationError as error:
        lines = explain(_causes(error.errors()), StudyFile)
        raise ConfigError(
            "\n".join(f"{path}{overrides}: {line}" for text in lines for line in text.splitlines())
        ) from None


def parse_setting(setting: str, option: str) -> tuple[str, Any]:
    """Return key and value of "key=value"; the value as TOML writes it, or a plain word.

    Raises:
        ConfigError: It has no key or no equals sign; the message names the `option` that it was
            given with.
    """
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not key or not equals:
        raise ConfigError(f"{option} takes key=value, but got '{setting}'.")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text


def _apply(document: dict[str, Any], setting: str) -> None:
    """Change one key of the document in place."""
    key, value = parse_setting(setting, "--set")
    path = key.split(".")
    of_run = path[0] in TrainingConfig.model_fields
    if of_run or (len(path) == 1 and key not in StudyFile.model_fields):
        path = ["run", *path]
    table = document
    for at, part in enumerate(path[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting}: '{'.'.join(path[: at + 1])}' is not a table.")
    table[path[-1]] = value


def _arm_settings(name: str, run: dict[str, Any], arm: Any) -> Any:
    """Return an arm's settings: `[run]`, changed by the arm's own `run` table, and its sampler."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"arms.{name}: an arm's name becomes part of file names, so it consists of letters, "
            "digits, '_', '-' and '.', and does not begin with '-' or '.'."
        )
    if not isinstance(arm, dict):
        return arm
    if not isinstance(arm.get("sampler"), str):
        raise ConfigError(
            f"arms.{name}: sampler must name a batch sampler, but got {arm.get('sampler')!r}."
        )
    changes = arm.get("run", {})
    if not isinstance(changes, dict):
        raise ConfigError(f"arms.{name}: run must be a table of settings, but got {changes!r}.")
    options = {key: value for key, value in arm.items() if key not in ("sampler", "run")}
    return run | changes | {"sampler": arm["sampler"], "sampler_options": options}


def _with_paths(settings: Any, folder: Path) -> Any:
    """Return settings in which a file that is not in the working directory, but beside the study
    file, is found there."""
    if not isinstance(settings, dict):
        return settings
    beside = {
        name: str(folder / settings[name])
        for name in FILES
        if isinstance(settings.get(name), str)
        and not expanded(settings[name]).exists()
        and (folder / settings[name]).exists()
    }
    return settings | beside


def _causes(mistakes: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return the mistakes that are not mere consequences of others, with the keys of the file.

    A wrong `seed` is a wrong `run.seed`, and a mistake in `[run]` is one in every arm.
    """
    for tables in ({"run", "arms"}, {"arms"}):
        causes = [mistake for mistake in mistakes if not {*mistake["loc"][:1]} & tables]
        if causes:
            return causes
    for mistake in mistakes:
        table, name, *key = mistake["loc"]
        if key:
            mistake["loc"] = (table, name, "run", *key)
    return mistakes
