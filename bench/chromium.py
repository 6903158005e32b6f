"""Debian's Chromium under Playwright, and what a page weighs on the wire."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# A browser that calls nobody but the server, in a machine without a display.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """The browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def launch(program: str) -> Iterator[Browser]:
    """A browser with nothing in its cache, closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Meter:
    """Counts what a page gets over the wire, heads and bodies, as Chromium's network log has it."""

    def __init__(self, page: Page, encodings: tuple[str, ...] = ()) -> None:
        """`encodings`: what the browser shall accept; by default what it does."""
        self.bytes = 0
        self.requests = 0
        self._session: CDPSession = page.context.new_cdp_session(page)
        self._session.send("Network.enable")
        self._session.on("Network.loadingFinished", self._finished)
        if encodings:
            self._session.send("Network.setAcceptedEncodings", {"encodings": list(encodings)})

    def throttle(self, megabits: float, milliseconds: float) -> None:
        """Let the network be so fast in both directions, with such a latency."""
        rate = megabits * 1e6 / 8
        conditions = {"offline": False, "latency": milliseconds, "downloadThroughput": rate, "uploadThroughput": rate}
        self._session.send("Network.emulateNetworkConditions", conditions)

    def settle(self, page: Page, quiet: float = 1.5) -> None:
        """Wait until nothing has come for so many seconds. (The UI asks again every half minute.)"""
        last = -1
        while last != self.requests:
            last = self.requests
            page.wait_for_timeout(quiet * 1000)

    def _finished(self, event: dict[str, float]) -> None:
        self.bytes += int(event["encodedDataLength"])
        self.requests += 1
