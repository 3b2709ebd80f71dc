"""How a message names the command to type next."""

from __future__ import annotations

import pytest

from impon_hpo.errors import as_typed


def test_command_begins_as_the_reader_began(monkeypatch: pytest.MonkeyPatch) -> None:
    # What uvx and an activated environment set, too.
    monkeypatch.setenv("UV", "/usr/bin/uv")
    monkeypatch.setenv("VIRTUAL_ENV", "/home/someone/.venv")
    assert as_typed("impon-hpo status small") == "impon-hpo status small"
    assert as_typed("pip install torch") == "pip install torch"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert as_typed("impon-hpo status small") == "uv run impon-hpo status small"
    assert as_typed("pip install torch") == "uv pip install torch"
