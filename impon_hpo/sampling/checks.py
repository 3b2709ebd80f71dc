"""Checks of a batch sampler's options: what must hold, and what was given."""

from __future__ import annotations

from collections.abc import Collection

from impon_hpo.errors import ConfigError


def check_choice(name: str, value: str, known: Collection[str]) -> None:
    """Raise `ConfigError` unless `value` is one of `known`."""
    if value not in known:
        listed = ", ".join(f"'{one}'" for one in known)
        raise ConfigError(f"{name} must be one of {listed}, but got {name}='{value}'.")


def check_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is a finite number above 0."""
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be positive and finite, but got {name}={value}.")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless low ≤ value ≤ high."""
    if not low <= value <= high:
        raise ConfigError(f"{name} must be between {low:g} and {high:g}, but got {name}={value}.")


def check_share(name: str, value: float) -> None:
    """Raise `ConfigError` unless 0 < value ≤ 1."""
    if not 0 < value <= 1:
        raise ConfigError(f"{name} must be above 0 and at most 1, but got {name}={value}.")
