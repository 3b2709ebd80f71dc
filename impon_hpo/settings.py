"""Tables of settings, as a study file has them, and how a mistake in one is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion


class Settings(BaseModel):
    """Base of all tables of settings. A mistake raises a `ConfigError` with a line for each key."""

    # Before 2.10, pydantic warns of names that begin with "model_".
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    def __init__(self, /, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError("\n".join(explain(error.errors(), type(self)))) from None

    # So that pydantic does not call it for tables inside of tables, whose keys it would lose.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def checked(
        cls,
        settings: Mapping[str, Any],
        *,
        prefix: str = "",
        context: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the settings of a mapping; messages put `prefix` before a key.

        Args:
            settings: The settings by name.
            prefix: The table that they come from, such as "run.".
            context: See the class.

        Raises:
            ConfigError: A key is unknown or a value does not fit; the message has a line for each.
        """
        try:
            return cls.model_validate(dict(settings), context=context)
        except ValidationError as error:
            raise ConfigError("\n".join(explain(error.errors(), cls, prefix))) from None


def metric_words(metric: str) -> str:
    """Return what the numbers of a `metric` are called: higher is better in all of them."""
    return "minus loss" if metric == "loss" else metric.replace("-", " ")


def report_words(identity: Mapping[str, Any]) -> str:
    """Return what the pruner of a study sees after each epoch, from the study's identity."""
    metric = f"validation {metric_words(identity['run'].get('metric', 'accuracy'))}"
    words = {
        "metric": metric,
        "ema": f"{metric} of averaged weights",
        "last": f"{metric} of the last weights",
        "train-loss": "minus the training loss",
        "val-loss": "minus the validation loss",
    }[identity.get("report", "metric")]
    smoothing = identity.get("report_smoothing", 0.0)
    return words + (f", smoothed by {smoothing:g} over the epochs" if smoothing else "")


def explain(mistakes: list[ErrorDetails], model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return a line for each mistake that pydantic reports: the key, what was given, what fits.

    Args:
        mistakes: `ValidationError.errors()`.
        model: The table that was checked; an unknown key is compared with its keys.
        prefix: Put before each key.
    """
    lines: dict[str, str] = {}
    meant: dict[str, str] = {}
    for mistake in mistakes:
        path = [str(part) for part in mistake["loc"] if not _is_branch(str(part))]
        key = prefix + ".".join(path)
        message = WORDS.get(mistake["type"], mistake["msg"])
        meant[key] = meant.get(key, "") or choice_meant(mistake)
        if any(known.startswith(f"{key}.") for known in lines):
            continue  # of a list, pydantic finds the rest too short where an entry is wrong
        if mistake["type"] == "extra_forbidden":
            lines[key] = f"Unknown key '{key}'.{suggestion(path[-1], _keys_beside(path, model))}"
        elif mistake["type"] == "missing":
            lines[key] = f"'{key}' is missing."
        elif mistake["type"] == "value_error":
            lines[key] = (f"{key}: " if path else "") + str(mistake["ctx"]["error"])
        elif key in lines:  # another branch of a union
            lines[key] = f"{lines[key].removesuffix('.')}, or: {message}."
        else:
            lines[key] = f"{key} = {mistake['input']!r}: {message}."
    return [line + meant[key] for key, line in lines.items()]


def choice_meant(mistake: ErrorDetails) -> str:
    """Return " Did you mean 'cosine'?" where what was given is close to a choice of a `Literal`."""
    if mistake["type"] != "literal_error" or not isinstance(mistake["input"], str):
        return ""
    return suggestion(mistake["input"], re.findall(r"'([^']*)'", mistake["ctx"]["expected"]))


WORDS = {
    "dict_type": "Input should be a table",
    "model_type": "Input should be a table",
    "tuple_type": "Input should be a list",
}
"""What pydantic says of a type, as a study file calls it."""


def _keys_beside(path: list[str], model: type[BaseModel]) -> list[str]:
    """Return the keys of the table that the last key of `path` stands in."""
    for part in path[:-1]:
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field is not None else None
        model = model if inner is None else inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in get_args(annotation) if (inner := _model_in(part))), None)


def _is_branch(part: str) -> bool:
    # pydantic's location names the branch of a union ("constrained-int"), which is not a key.
    return part in ("int", "float", "bool", "str") or part.startswith(
        ("constrained-", "literal[", "function-")
    )
