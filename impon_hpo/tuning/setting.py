"""A setting as it is typed: key=value."""

from __future__ import annotations

import tomllib
from typing import Any

from impon_hpo.errors import ConfigError


def parse_setting(setting: str, option: str) -> tuple[str, Any]:
    """Return key and value of "key=value"; the value as TOML writes it, or a plain word.

    Raises:
        ConfigError: It has no key or no equals sign; `option` is named as where it was given.
    """
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not key or not equals:
        raise ConfigError(f"{option} takes key=value, but got '{setting}'.")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text
