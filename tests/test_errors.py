"""How a message names the command to type next, and the rule for what only describes a result."""

from __future__ import annotations

import pytest

from impon_hpo.errors import StorageError, as_typed, describing


def test_command_begins_as_the_reader_began(monkeypatch: pytest.MonkeyPatch) -> None:
    # What uvx and an activated environment set, too.
    monkeypatch.setenv("UV", "/usr/bin/uv")
    monkeypatch.setenv("VIRTUAL_ENV", "/home/someone/.venv")
    assert as_typed("impon-hpo status small") == "impon-hpo status small"
    assert as_typed("pip install torch") == "pip install torch"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert as_typed("impon-hpo status small") == "uv run impon-hpo status small"
    assert as_typed("pip install torch") == "uv pip install torch"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (StorageError("'a.csv' cannot be written."), "'a.csv' cannot be written"),
        (ValueError("Expected\n  end of text."), "ValueError: Expected end of text"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_error_is_a_line_and_what_follows_is_done(
    error: Exception, reason: str, said: list[str]
) -> None:
    done = []
    for name in ("first", "second"):
        with describing(f"{name}.png of trial 3 could not be drawn"):
            if name == "first":
                raise error
            done.append(name)
    assert done == ["second"]
    assert said == [f"first.png of trial 3 could not be drawn: {reason}. The trial's value stands."]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_passes_through(stop: type[BaseException], said: list[str]) -> None:
    with pytest.raises(stop), describing("a picture could not be drawn"):
        raise stop
    assert said == []
