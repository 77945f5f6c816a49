"""Headless Chromium for the tests of pages, and a visit that notes whatever should not happen on one."""

import contextlib
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def running_browser():
    """A browser, or a skip where there is none."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium: the page is not looked at in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="no Chromium: playwright is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield running
        running.close()


class Visit:
    """An opened page, and everything on it that should not happen."""

    def __init__(self, browser, path, *, width=1280, scheme="light", address=""):
        self.incidents = []
        self.context = browser.new_context(
            offline=True,
            color_scheme=scheme,
            reduced_motion="reduce",  # else the mouse is put where a mark was before the page had scrolled
            viewport={"width": width, "height": 900},
            accept_downloads=True,
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.incidents.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.incidents.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.incidents.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._requested)
        self.page.goto(path.as_uri() + address)
        for plot in self.page.locator(".plot").all():
            plot.locator("svg").first.wait_for(state="attached")

    def _requested(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.incidents.append(f"request: {request.url}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
