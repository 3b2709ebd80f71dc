"""Tests of watching a study that others run: every change is told once, and it ends with them."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from impon_hpo.reporting.watch import watch
from impon_hpo.storage.trials import StudyRecord, read_study
from tests.reporting.running import add_epochs, begun_study, finish

LINES = [
    "impon  trial 0 running  epoch 0/9",
    "impon  trial 0 running  epoch 1/9  val accuracy 0.1000",
    "impon  trial 0 running  epoch 2/9  val accuracy 0.4000",
    "impon  trial 0 complete  epoch 2/9  val accuracy 0.4000",
]


def watched(monkeypatch: pytest.MonkeyPatch, console: Console) -> int:
    """Watch a study whose trial moves on between looks; return the looks it took."""
    study = begun_study()
    trial = study.ask()

    def move_on(seconds: float) -> None:
        if looks == 1:
            add_epochs(trial, 0.1)
        elif looks == 3:
            add_epochs(trial, 0.1, 0.4)
        elif looks == 4:
            finish(study, trial, 0.4)

    looks = 0

    def read() -> list[StudyRecord]:
        nonlocal looks
        looks += 1
        return [read_study(study)]

    monkeypatch.setattr("impon_hpo.reporting.watch.time.sleep", move_on)
    (record,) = watch(read, n_trials=1, console=console, interval=2.0)
    assert record.n_finished == 1
    return looks


def test_every_change_is_a_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = io.StringIO()
    assert watched(monkeypatch, Console(file=said, width=120)) == 5
    assert said.getvalue().splitlines() == LINES


def test_terminal_gets_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    watched(monkeypatch, Console(file=said, width=120, force_terminal=True))
    assert "finished 0/1" in said.getvalue()
    assert "▁█" in said.getvalue()
    assert "finished 1/1" in said.getvalue()


def test_notebook_gets_the_lines_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    front = SimpleNamespace(display=lambda drawn: shown.append(drawn.text.strip()))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=front))
    monkeypatch.setitem(sys.modules, "IPython.display", front)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # it is not there
    watched(monkeypatch, Console(width=120, force_jupyter=True))
    assert shown == LINES
