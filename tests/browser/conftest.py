"""A headless Chromium, and pages that tell what went wrong in them and what they asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REQUIRED = "IMPON_HPO_BROWSER_REQUIRED"
"""Environment variable under which a missing browser fails these tests; `.ci/run` sets it."""


@dataclass
class Seen:
    """A page with what it has complained about and asked for.

    Args:
        page: Playwright's page.
        errors: Errors of its console and its scripts.
        requests: Addresses it has asked for.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def _unavailable(why: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        _unavailable("there is no Chromium: `apt-get install chromium`")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("there is no Playwright: `uv sync`")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        found = Seen(context.new_page())
        found.page.set_default_timeout(20_000)
        found.page.on("pageerror", lambda error: found.errors.append(str(error)))
        found.page.on(
            "console",
            lambda said: found.errors.append(said.text) if said.type == "error" else None,
        )
        found.page.on("request", lambda request: found.requests.append(request.url))
        yield found
