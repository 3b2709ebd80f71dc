"""The command that draws small pictures: of what there is, and with a word where there is none."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from impon_hpo.cli.judge import pictures
from impon_hpo.errors import ConfigError, NothingYetError
from impon_hpo.storage.trials import COST, EPOCHS, IDENTITY
from tests.reporting.records import IDENTITY_OF_IT
from tests.studies import write_study


def _storage_of_a_study() -> None:
    Path("runs/small").mkdir(parents=True)
    study = optuna.create_study(storage="sqlite:///runs/small/study.db", direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    epochs = [{"epoch": 1, "val_accuracy": 0.5, "cost": 10, "diagnostics": {}}]
    attrs = {EPOCHS: epochs, COST: 10}
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs=attrs))


def test_nothing_to_draw_says_what_to_run_and_writes_nothing() -> None:
    write_study()
    with pytest.raises(NothingYetError, match="nothing of study 'small' to draw yet: run"):
        pictures("small")
    with pytest.raises(ConfigError, match="nobody"):
        pictures("small", arms=["nobody"])
    assert not Path("runs/small/pictures").exists()


def test_trials_are_drawn_where_one_wants_them(capsys: pytest.CaptureFixture[str]) -> None:
    write_study()
    _storage_of_a_study()
    pictures("small")
    drawn = {f"{name}.png" for name in ("accuracy-against-cost-impon", "pruned-when-impon")}
    drawn.add("best-so-far.png")
    said = {Path(line) for line in capsys.readouterr().out.splitlines()}
    assert said == {Path("runs/small/pictures") / name for name in drawn}
    assert all(path.is_file() for path in said)
    pictures("small", to=Path("elsewhere"), arms=["impon"])
    assert {path.name for path in Path("elsewhere").iterdir()} == drawn
    with pytest.raises(NothingYetError):
        pictures("small", arms=["uniform"])  # it has not been run
