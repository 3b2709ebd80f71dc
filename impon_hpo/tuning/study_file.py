"""The study file, study.toml: the question, what is searched, and the arms under comparison."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.training.config import TrainingConfig, explain, training_config
from impon_hpo.tuning.algorithms import make_pruner, make_study_sampler
from impon_hpo.tuning.find_study_file import find_study_file
from impon_hpo.tuning.protocol import Protocol, parse_protocol
from impon_hpo.tuning.setting import parse_setting
from impon_hpo.tuning.space import check_space, parse_space

NAME = re.compile(r"\w[\w.-]*")


class _Tables(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(min_length=1)
    storage: str | None = None
    artifacts: str | None = None
    n_trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    pruner: dict[str, Any] = {"name": "NopPruner"}
    study_sampler: dict[str, Any] = {"name": "TPESampler"}
    run: dict[str, Any] = {}
    space: dict[str, Any] = {}
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    compare: dict[str, Any] = {}


@dataclass(frozen=True)
class StudyFile:
    """A study as its file describes it, checked.

    Args:
        name: The name of its folder.
        folder: Its folder.
        question: What the study is to answer.
        storage: URL or journal path of the storage.
        artifacts: Folder or `s3://bucket` of what trials leave beside their numbers.
        n_trials: Finished trials wanted in each arm.
        seed: Seed of the study sampler (and of `[run]`, where that is silent).
        pruner: `[pruner]`: name and arguments.
        study_sampler: `[study_sampler]`: name and arguments.
        run: `[run]`: what all arms have in common.
        space: Settings searched over, as Optuna distributions.
        arms: The training configuration of each arm, by name, in the order of the file.
        compare: `[compare]`; see `protocol`.
    """

    name: str
    folder: Path
    question: str
    storage: str
    artifacts: str
    n_trials: int
    seed: int
    pruner: dict[str, Any]
    study_sampler: dict[str, Any]
    run: TrainingConfig
    space: dict[str, BaseDistribution]
    arms: dict[str, TrainingConfig]
    compare: dict[str, Any]

    @property
    def protocol(self) -> Protocol:
        """What a comparison of the arms fixes beforehand.

        Raises:
            ConfigError: `[compare]` has a mistake, or the file has no arm beside the controls.
        """
        return parse_protocol(self.compare, n_trials=self.n_trials, run=self.run, arms=self.arms)

    @property
    def runs(self) -> Path:
        """The folder of what running the study leaves: runs/<study> in the working directory."""
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

    def warnings(self) -> list[str]:
        """Return what is allowed but rarely meant."""
        if self.pruner.get("name") == "HyperbandPruner" and len(self.arms) > 1:
            return [
                "HyperbandPruner takes a trial's bracket from the study's name, so the arms of "
                "this study are not pruned alike. To compare them, use SuccessiveHalvingPruner."
            ]
        return []

    def identity(self, arm: str) -> dict[str, Any]:
        """Return what must be the same when an arm is continued, as plain JSON values."""
        return {
            "study": self.name,
            "arm": arm,
            "seed": self.seed,
            "pruner": self.pruner,
            "study_sampler": self.study_sampler,
            "run": self.arms[arm].identity(),
            "space": {key: distribution_to_json(value) for key, value in self.space.items()},
        }


def read_study_file(study: str, settings: Sequence[str] = ()) -> StudyFile:
    """Read the study file of `study` and change it by `settings`.

    Args:
        study: A folder with a study.toml, the file itself, or the name of a folder in studies/.
        settings: "key=value" for a setting of `[run]`, or "table.key=value" for any other; the
            value as TOML writes it, or a plain word.

    Raises:
        ConfigError: The file is not there or a key, a value, an arm, a pruner … is wrong.
    """
    path = find_study_file(study)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error
    # Modules of the user's ("my_nets:wide") may lie beside the study file.
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))
    for setting in settings:
        _apply(document, setting)
    try:
        return _check(path, document)
    except ConfigError as error:
        lines = str(error).splitlines()
        given = f" with --set {' --set '.join(settings)}" if settings else ""
        raise ConfigError("\n".join(f"{path}{given}: {line}" for line in lines)) from error


def _apply(document: dict[str, Any], setting: str) -> None:
    """Change one key of the document in place."""
    key, value = parse_setting(setting, "--set")
    if "." in key:
        path = key.split(".")
    else:
        own = key in _Tables.model_fields and key not in TrainingConfig.model_fields
        path = [key] if own else ["run", key]
    table = document
    for at, part in enumerate(path[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting}: '{'.'.join(path[: at + 1])}' is no table.")
    table[path[-1]] = value


def _check(path: Path, document: dict[str, Any]) -> StudyFile:
    try:
        tables = _Tables(**document)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, list(_Tables.model_fields)))) from None
    folder = path.parent.resolve()
    for key in ("sampler", "sampler_options"):
        if key in tables.run:
            raise ConfigError(f"run.{key} belongs into an arm: [arms.NAME] sampler = …")
    run = {"seed": tables.seed} | tables.run
    # Its mistakes are reported once, and not as every arm's.
    common = training_config(run, prefix="run.")
    arms = {}
    for name, arm in tables.arms.items():
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"arms.{name}: an arm's name becomes that of files, so it consists of letters, "
                "digits, '_', '-' and '.', and begins with none of the last two."
            )
        try:
            arms[name] = _arm_config(run, arm)
        except ConfigError as error:
            lines = [f"arms.{name}: {line}" for line in str(error).splitlines()]
            raise ConfigError("\n".join(lines)) from error
    space = parse_space(tables.space)
    first = next(iter(arms.values()))
    for config in arms.values():
        check_space(config, space)
    make_pruner(tables.pruner, epochs=first.epochs)
    make_study_sampler(tables.study_sampler, seed=tables.seed, number=0)
    if tables.compare:
        parse_protocol(tables.compare, n_trials=tables.n_trials, run=common, arms=arms)
    storage = tables.storage or f"sqlite:///runs/{folder.name}/study.db"
    return StudyFile(
        name=folder.name,
        folder=folder,
        question=tables.question,
        storage=storage,
        artifacts=tables.artifacts or f"runs/{folder.name}/artifacts",
        n_trials=tables.n_trials,
        seed=tables.seed,
        pruner=tables.pruner,
        study_sampler=tables.study_sampler,
        run=common,
        space=space,
        arms=arms,
        compare=tables.compare,
    )


def _arm_config(run: dict[str, Any], arm: dict[str, Any]) -> TrainingConfig:
    """Make an arm's configuration: `[run]`, changed by the arm's own `run` table, its sampler."""
    options = {key: value for key, value in arm.items() if key not in ("sampler", "run")}
    if not isinstance(arm.get("sampler"), str):
        raise ConfigError(f"sampler must name a batch sampler, but got {arm.get('sampler')!r}.")
    own = arm.get("run", {})
    if not isinstance(own, dict):
        raise ConfigError(f"run must be a table of settings, but got {own!r}.")
    settings = run | own | {"sampler": arm["sampler"], "sampler_options": options}
    return training_config(settings)
