"""The dashboard of a study just run, as a person sees it: note, graphs, images, arms."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from impon_hpo.cli.app import main
from tests.browser.conftest import Seen
from tests.studies import write_study

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run both arms of a small study and serve its dashboard; its address."""
    folder = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        patch.chdir(folder)
        write_study()
        for arm in ("impon", "uniform"):
            patch.setattr(sys, "argv", ["impon-hpo", "tune", "small", "--arm", arm])
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        command = [sys.executable, "-m", "impon_hpo", "dashboard", "small", "--port", port]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            yield address
            process.terminate()


def test_list_has_every_arm(dashboard: str, seen: Seen) -> None:
    seen.page.goto(dashboard)
    for arm in ("small-impon", "small-uniform"):
        seen.page.get_by_text(arm).wait_for()
    assert seen.errors == []


def test_study_has_its_graphs(dashboard: str, seen: Seen) -> None:
    seen.page.goto(dashboard)
    seen.page.get_by_text("small-impon").click()
    for title in (
        "Accuracy against cost, arm impon",
        "When each trial ended, arm impon",
        "The arms side by side: best so far",
        "Diagnostics: class balance, arm impon",
        "Diagnostics: share seen, arm impon",
    ):
        seen.page.get_by_text(title).wait_for()
    side_by_side = seen.page.locator("div.js-plotly-plot", has_text="The arms side by side")
    assert side_by_side.locator("g.legend text").all_text_contents() == ["impon", "uniform"]
    assert side_by_side.locator("g.trace path.js-line").count() == 2
    heading = side_by_side.locator("text.gtitle").bounding_box()
    legend = side_by_side.locator("g.legend").bounding_box()
    assert heading is not None
    assert legend is not None
    assert heading["y"] + heading["height"] <= legend["y"], "the legend covers the title"
    assert seen.errors == []


def test_note_leads_to_the_arms_side_by_side(dashboard: str, seen: Seen) -> None:
    seen.page.goto(f"{dashboard}/studies/1/note")
    seen.page.get_by_role("heading", name="small: arm impon").wait_for()
    seen.page.get_by_text("Does it run?").wait_for()
    seen.page.get_by_text(re.compile(r"% saved by pruning")).wait_for()
    seen.page.get_by_text("impon-hpo tune small --arm impon").wait_for()
    seen.page.get_by_role("link", name="Side by side").click()
    for arm in ("impon", "uniform"):
        seen.page.get_by_text(f"Best Value of small-{arm}").wait_for()
    assert seen.errors == []


def test_trial_has_its_files_and_images(dashboard: str, seen: Seen) -> None:
    seen.page.goto(f"{dashboard}/studies/1/trials?numbers=0")
    seen.page.get_by_role("heading", name="Trial 0").wait_for()
    for name in ("learning_curve.csv", "settings.txt", "class_picks.csv"):
        seen.page.get_by_text(name).wait_for()
    image = seen.page.get_by_role("img", name="which_images.png")
    image.wait_for()
    seen.page.wait_for_function(
        "image => image.complete && image.naturalWidth > 600", arg=image.element_handle()
    )
    assert seen.errors == []
