"""From names to objects: "resnet18" by a table, or "my_nets:wide" by an import."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from impon_hpo.errors import ConfigError

T = TypeVar("T")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'lr'?" where a known name is close to `name`, else ""."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def find_modules_in(*folders: Path) -> None:
    """Let "module:name" be found in these folders, too, in this process from now on.

    Commands call this. A program that uses the library decides on `sys.path` itself.
    """
    for folder in folders:
        place = str(folder.resolve())
        if place not in sys.path:
            sys.path.append(place)


def load_object(spec: str) -> Any:
    """Import what "module:name" or "module:Class.method" stands for.

    Raises:
        ConfigError: The module cannot be imported, or does not have the name.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"Expected 'module:name', but got '{spec}'.")
    try:
        module: Any = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's: anything can go wrong inside it
        raise ConfigError(
            f"'{spec}' cannot be imported: {type(error).__name__}: {error}. "
            "The module must be installed, or be in the working directory, beside study.toml or in "
            "the folder above it."
        ) from error
    found, where = module, f"Module '{module_name}'"
    for name in attribute.split("."):
        if not hasattr(found, name):
            known = [known for known in dir(found) if not known.startswith("_")]
            raise ConfigError(f"{where} has no '{name}'.{suggestion(name, known)}")
        found, where = getattr(found, name), f"'{name}'"
    return found


def find(table: Mapping[str, T], name: str, kind: str) -> T:
    """Return what `name` stands for in `table`; a name with a colon is imported instead.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones) or cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" in name:
        return load_object(name)  # type: ignore[no-any-return]
    raise ConfigError(
        f"Unknown {kind} '{name}'.{suggestion(name, table)} "
        f"Known: {', '.join(sorted(table))}, or 'module:name' for your own."
    )
