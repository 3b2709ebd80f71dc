"""Looking things up: names, "module:function", and what a mistake is told."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find, find_modules_in, load_object, suggestion

KNOWN: dict[str, object] = {"uniform": 1, "impon": 2, "impon-low": 3}


@pytest.mark.parametrize(
    ("given", "meant"), [("unifrom", "uniform"), ("impom", "impon"), ("imponlow", "impon-low")]
)
def test_near_miss_gets_a_suggestion(given: str, meant: str) -> None:
    assert f"'{meant}'" in suggestion(given, KNOWN)


def test_far_miss_gets_none() -> None:
    assert suggestion("zzz", KNOWN) == ""


def test_name_of_the_table_is_found() -> None:
    assert find(KNOWN, "impon", "batch sampler") == 2


def test_unknown_name_lists_all_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"Unknown batch sampler 'impom'.*'impon'") as caught:
        find(KNOWN, "impom", "batch sampler")
    assert all(name in str(caught.value) for name in KNOWN)


def test_name_with_a_colon_is_imported() -> None:
    assert find(KNOWN, "math:hypot", "batch sampler") is math.hypot
    assert load_object("math:hypot") is math.hypot
    assert load_object("pathlib:Path.home") == Path.home


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("no_such_module:f", "no_such_module"),
        ("math:hypo", "hypot"),
        ("pathlib:Path.hme", "'Path' has no 'hme'.*'home'"),
        (":f", "module:"),
        ("math:", "module:"),
    ],
)
def test_path_that_leads_nowhere_says_where_it_ends(path: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_object(path)


def test_error_inside_the_module_is_told_and_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="division by zero"):
        load_object("broken_module:f")
    assert "broken_module" not in sys.modules


def test_module_in_a_folder_that_was_named_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder").mkdir()
    Path("folder/module_beside_me.py").write_text("def f():\n    return 7\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    find_modules_in(Path("folder"), Path())
    find_modules_in(Path("folder"))
    assert sys.path[-2:] == [str(Path("folder").resolve()), str(Path().resolve())]
    assert load_object("module_beside_me:f")() == 7


def test_looking_up_a_name_leaves_the_path_of_modules_as_it_is() -> None:
    before = list(sys.path)
    with pytest.raises(ConfigError, match="must be installed, or be in the working directory"):
        load_object("no_such_module:f")
    assert sys.path == before
