"""The report of a comparison, opened from the disk: offline, on a phone, in the dark, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from impon_hpo.reporting.comparison_charts import comparison_charts
from impon_hpo.reporting.comparison_page import write_report
from tests.browser.conftest import Seen
from tests.reporting.comparison import summary_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

pytestmark = pytest.mark.browser

PHONE: ViewportSize = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """Write a report; its address and the titles of its charts."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        summary = summary_of('compare.epoch_fractions=[1, "1/2"]')
    page: Path = write_report(folder / "report", summary)
    return page.as_uri(), [chart.title for chart in comparison_charts(summary)]


def shades(page: Page, selector: str) -> tuple[int, int]:
    """Return the brightness (0 … 255) of a text and of what is behind it."""
    text, ground = page.evaluate(
        """selector => {
            const style = getComputedStyle(document.querySelector(selector));
            return [style.color, getComputedStyle(document.documentElement).backgroundColor];
        }""",
        selector,
    )
    red, other = (int(colour.split("(")[1].split(",")[0]) for colour in (text, ground))
    return red, other


def test_report_opens_from_disk_without_network(report: tuple[str, list[str]], seen: Seen) -> None:
    address, titles = report
    seen.page.goto(address)
    assert "Supported: under SuccessiveHalvingPruner" in seen.page.inner_text("body")
    seen.page.get_by_role("heading", name="The arms").wait_for()
    for title in titles:
        seen.page.locator("figure", has_text=title).locator("svg.main-svg").first.wait_for()
    assert seen.errors == []
    assert {request.partition(":")[0] for request in seen.requests} <= {"file", "data", "blob"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_reads_on_a_phone_in_light_and_dark(
    report: tuple[str, list[str]], browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    with browser.new_context(
        viewport=PHONE, color_scheme=scheme, device_scale_factor=2, is_mobile=True
    ) as context:
        page = context.new_page()
        page.goto(report[0])
        page.locator("svg.main-svg").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        drawn = "[...document.querySelectorAll('svg.main-svg')].map(svg => svg.clientWidth)"
        assert max(page.evaluate(drawn)) <= PHONE["width"]
        text, ground = shades(page, "h1")
        assert (text < 64 and ground > 240) if scheme == "light" else (text > 190 and ground < 40)


def test_reader_chooses_the_arms_that_are_drawn(report: tuple[str, list[str]], seen: Seen) -> None:
    seen.page.goto(report[0])
    legend = seen.page.locator("#accuracy-against-cost g.legend text")
    legend.first.wait_for()
    halved = ["uniform", "uniform-fraction@1/2", "uniform-short@1/2", "placebo@1/2", "impon@1/2"]
    assert legend.all_text_contents() == halved
    seen.page.get_by_label("Arms drawn").select_option("full epochs (cosine, last)")
    legend.get_by_text("uniform-short@1/2").wait_for(state="detached")
    assert legend.all_text_contents() == ["uniform", "placebo", "impon"]
    assert seen.errors == []


def test_report_prints_with_everything_on_the_paper(
    report: tuple[str, list[str]], browser: Browser
) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(report[0])
        page.locator("svg.main-svg").first.wait_for()
        page.emulate_media(media="print")
        text, ground = shades(page, "h1")
        assert text < 64, "ink is dark, whatever the screen was"
        assert ground > 240
        paper = page.evaluate("document.documentElement.clientWidth")
        tables = page.evaluate("[...document.querySelectorAll('table')].map(e => e.scrollWidth)")
        assert max(tables) <= paper
        assert len(page.pdf(format="A4")) > 10_000
