"""Tests of the rule for what only describes a result: it is logged, and the next step is done."""

from __future__ import annotations

import pytest

from impon_hpo.describing import describing
from impon_hpo.errors import StorageError


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
