"""The picture of a grid: its lines worked by hand, and a page that fetches nothing."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impon_hpo.comparing.curves import Curves
from impon_hpo.comparing.picture import accuracy_against_cost, write_picture
from impon_hpo.errors import StorageError


def curves(arm: str, accuracy: list[list[float]], cost: list[float]) -> Curves:
    return Curves(
        arm=arm,
        accuracy=np.array(accuracy),
        cost=np.array(cost),
        reference_cost=0.0,
        step_seconds=1.0,
        rank_correlation=math.nan,
        n_ended=0,
    )


def by_name(*arms: Curves) -> dict[str, Curves]:
    return {arm.arm: arm for arm in arms}


UNIFORM = curves("uniform", [[0.1, 0.4], [0.3, 0.4]], [200, 400])
NEW = curves("new", [[0.5, 0.8], [0.7, 0.8]], [300, 600])


class Page(HTMLParser):
    """What a page would fetch, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def figure(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the lines and the layout that the last script draws."""
        call = self.scripts[-1].partition("Plotly.newPlot(")[2]
        decoder = json.JSONDecoder()
        lines, end = decoder.raw_decode(call, call.index("["))
        layout, _ = decoder.raw_decode(call, call.index("{", end))
        return lines, layout


def drawn(arms: dict[str, Curves], title: str = "t") -> Page:
    path = Path("deep") / "picture.html"
    write_picture(path, arms, control="uniform", title=title)
    return Page(path.read_text(encoding="utf-8"))


def test_lines_are_means_against_cost_in_epochs_of_the_control() -> None:
    uniform, new = accuracy_against_cost(by_name(UNIFORM, NEW), control="uniform")
    assert (uniform["arm"], new["arm"]) == ("uniform", "new")
    assert uniform["x"] == [1.0, 2.0]
    assert new["x"] == [1.5, 3.0]
    assert uniform["y"] == pytest.approx([0.2, 0.4])
    assert new["y"] == pytest.approx([0.6, 0.8])


def test_interval_is_that_of_the_mean_over_runs() -> None:
    (line,) = accuracy_against_cost(by_name(UNIFORM), control="uniform")
    # 0.1 and 0.3 deviate by √0.02, and their mean by 1/√2 of that: 0.1.
    assert line["half"] == pytest.approx([1.96 * 0.1, 0.0])


def test_single_run_has_no_interval() -> None:
    one = curves("uniform", [[0.1, 0.4, 0.5]], [200, 400, 600])
    (line,) = accuracy_against_cost(by_name(one), control="uniform")
    assert line["half"] == [0.0, 0.0, 0.0]


def test_page_holds_every_line_and_fetches_nothing() -> None:
    page = drawn(by_name(UNIFORM, NEW), title="my grid")
    assert page.fetched == []
    assert max(map(len, page.scripts)) > 1_000_000  # plotly itself is inside
    lines, layout = page.figure()
    assert [line["name"] for line in lines] == ["uniform", "new"]
    assert lines[1]["x"] == [1.5, 3.0]
    assert lines[1]["y"] == pytest.approx([0.6, 0.8])
    assert layout["title"]["text"] == "my grid"
    assert layout["xaxis"]["title"]["text"].startswith("cost (epochs of uniform")
    assert layout["yaxis"]["title"]["text"].startswith("validation accuracy")


def test_control_alone_is_black_and_no_two_arms_look_alike() -> None:
    others = [curves(f"arm {i}", [[0.1]], [100]) for i in range(20)]
    control = curves("uniform", [[0.1]], [100])
    lines, _ = drawn(by_name(*others[:3], control, *others[3:])).figure()
    looks = {line["name"]: (line["line"]["color"], line["line"].get("dash")) for line in lines}
    assert looks["uniform"] == ("black", None)
    assert sum(colour == "black" for colour, _ in looks.values()) == 1
    assert len(set(looks.values())) == 21


def test_arm_that_never_ended_a_run_leaves_the_others_in_the_picture() -> None:
    diverged = curves("broken", [[0.0, 0.0], [0.0, 0.0]], [math.nan, math.nan])
    lines, _ = drawn(by_name(UNIFORM, diverged)).figure()
    assert lines[0]["x"] == [1.0, 2.0]
    assert lines[1]["x"] == [None, None]


def test_name_cannot_end_the_script() -> None:
    name = "</script><img src='http://example.org/x.png'>"
    page = drawn(by_name(UNIFORM, curves(name, [[0.5, 0.5]], [100, 200])), title=name)
    assert page.fetched == []
    lines, layout = page.figure()
    assert lines[1]["name"] == layout["title"]["text"] == name


def test_folder_that_cannot_be_made_is_told() -> None:
    Path("file").write_text("in the way")
    with pytest.raises(StorageError, match=r"'file/picture\.html' cannot be written"):
        write_picture(Path("file/picture.html"), by_name(UNIFORM), control="uniform", title="t")
