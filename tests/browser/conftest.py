"""A headless Chromium, and pages that keep their errors and their requests."""

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
    """A page with its errors and its requests.

    Args:
        page: Playwright's page.
        errors: Errors of its console and its scripts.
        requests: Addresses that it requested.
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
        _unavailable("Chromium is missing: `apt-get install chromium`")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("Playwright is missing: `uv sync`")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        opened = Seen(context.new_page())
        opened.page.set_default_timeout(20_000)
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on(
            "console",
            lambda message: opened.errors.append(message.text) if message.type == "error" else None,
        )
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        yield opened
