"""Tests of what a record says of a study in words."""

from __future__ import annotations

import pytest

from impon_hpo.storage.trials import space_words
from impon_hpo.tuning.space_syntax import parse_space


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"low": 1e-3, "high": 0.5, "log": True}, "float low 0.001, high 0.5, log True"),
        ({"low": 0.0, "high": 0.9, "step": 0.3}, "float step 0.3, low 0.0, high 0.9"),
        (range(4, 9, 4), "int step 4, low 4, high 8"),
        (["sgd", "adam"], "categorical choices ['sgd', 'adam']"),
        (
            {"choices": [0.1], "when": {"optimizer": ["sgd", "adam"], "nesterov": False}},
            "categorical choices [0.1], when nesterov is False, when optimizer is adam or sgd",
        ),
    ],
)
def test_what_is_searched_over_is_told_in_words(entry: object, words: str) -> None:
    assert space_words(parse_space({"lr": entry}).identity()["lr"]) == words
