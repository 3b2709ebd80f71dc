"""The picture of a grid: its numbers, and a page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from impon_hpo.comparing.curves import curves_of
from impon_hpo.comparing.picture import accuracy_against_cost, write_picture
from impon_hpo.errors import StorageError
from tests.comparing.test_curves import UNIFORM, run


def test_cost_is_in_epochs_of_the_control_and_intervals_are_of_the_mean() -> None:
    results = [
        run("uniform", [0.1, 0.2, 0.3, 0.4]),
        run("uniform", [0.3, 0.2, 0.3, 0.4], seed=1),
        run("dear", [0.2, 0.3, 0.4, 0.5], cost=150.0),
    ]
    uniform, dear = accuracy_against_cost(curves_of(results, chance=0.0), control="uniform")
    assert uniform["x"] == [1.0, 2.0, 3.0, 4.0]
    assert dear["x"] == [1.5, 3.0, 4.5, 6.0]
    assert uniform["y"] == pytest.approx([0.2, 0.2, 0.3, 0.4])
    # Spread of 0.1 and 0.3: √0.02; of the mean of two: 0.1.
    assert uniform["half"] == pytest.approx([0.196, 0.0, 0.0, 0.0])
    assert dear["half"] == [0.0] * 4


def test_page_holds_everything_it_needs(tmp_path: Path) -> None:
    curves = curves_of([UNIFORM, run("<new>", [0.1, 0.2, 0.3, 0.4])], chance=0.0)
    write_picture(tmp_path / "deep" / "p.html", curves, control="uniform", title="a study")
    page = (tmp_path / "deep" / "p.html").read_text()
    assert "a study" in page
    assert "<new>" not in page  # written into the page as data, not as markup
    assert 'src="http' not in page


def test_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_picture(
            tmp_path / "file" / "p.html",
            curves_of([UNIFORM], chance=0.0),
            control="uniform",
            title="",
        )
