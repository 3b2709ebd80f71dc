"""The options of a batch sampler: those it takes beside the common ones, and their check."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, get_type_hints

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import suggestion
from impon_hpo.sampling.base import BatchSampler, Common


def options_of(kind: type[BatchSampler]) -> dict[str, Any]:
    """Return the options that a batch sampler takes beside those of all, with their types."""
    common = {"self", "rows", *Common.__annotations__}
    types = get_type_hints(kind.__init__)
    own = inspect.signature(kind.__init__).parameters
    return {
        name: types.get(name, Any)
        for name, parameter in own.items()
        if name not in common and parameter.kind is not parameter.VAR_KEYWORD
    }


def check_known(name: str, kind: type[BatchSampler], options: Iterable[str]) -> None:
    """Raise `ConfigError` if batch sampler `name` has not one of the options."""
    known = options_of(kind)
    for option in options:
        if option not in known:
            listed = f"Its options: {', '.join(known)}." if known else "It has no options."
            raise ConfigError(
                f"Batch sampler '{name}' has no option '{option}'."
                f"{suggestion(option, known)} {listed}"
            )


def check_sampler(name: str, found: Any) -> type[BatchSampler]:
    """Return what a name was found to stand for, or raise `ConfigError` if it is no sampler."""
    if not (inspect.isclass(found) and issubclass(found, BatchSampler)):
        raise ConfigError(f"'{name}' must be a subclass of BatchSampler, but is {found!r}.")
    return found
