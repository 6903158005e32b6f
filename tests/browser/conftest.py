"""The user guide's run on a Headrace with PostgreSQL and S3, and a browser to look at it.

Playwright's event loop stays in this process while a browser is open: it is closed with this folder's last test, before
others run that have a loop of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from bench import chromium
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, ViewportSize, WebError

from tests.support.databases import Database, Databases
from tests.support.fork_server import client_environment
from tests.support.processes import GUESSED_REQUIREMENTS
from tests.support.servers import Server, start_headrace

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "churn_xgboost.py"
IMAGES = ROOT / "docs" / "images" / "ui"
# Set (`make screenshots`) to write docs/images/ui anew.
SCREENSHOTS = "HEADRACE_SCREENSHOTS"
BUCKET = "browser-artifacts"
TREES = 60
AS_IT_COMES = {"MLFLOW_ENABLE_AI_GATEWAY": "false"}  # the tests' servers have the gateway otherwise, as stock
TIMEOUT_MS = 60_000
SIZE: ViewportSize = {"width": 1280, "height": 800}


@dataclass(frozen=True)
class Guide:
    """The user guide's run "first", and a run "second" beside it. `options`: how their server was started."""

    url: str
    experiment_id: str
    runs: dict[str, str]
    database: Database
    options: tuple[str, ...]
    environment: dict[str, str]

    def runs_page(self, tab: str = "", url: str = "") -> str:
        """The experiment's runs, or what is below them, in the UI's mode for training (the other one is for GenAI)."""
        return f"{url or self.url}/#/experiments/{self.experiment_id}/runs{tab}?workflowType=machine_learning"

    def run_page(self, tab: str = "", url: str = "") -> str:
        return self.runs_page(f"/{self.runs['first']}{tab}", url)


@dataclass
class Visit:
    """What one test's browser asked for, and what went wrong."""

    url: str
    others: tuple[str, ...] = ()  # servers that may be asked, too
    expected: tuple[str, ...] = ()  # ends of addresses that are refused on purpose
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, context: BrowserContext) -> Iterator[None]:
        """Listen to the browser meanwhile."""
        listeners: dict[Any, Any] = {
            "response": self.on_response,
            "console": self.on_console,
            "weberror": self.on_web_error,
        }
        for event, listener in listeners.items():
            context.on(event, listener)
        try:
            yield
        finally:
            for event, listener in listeners.items():
                context.remove_listener(event, listener)

    def on_response(self, response: Response) -> None:
        if not response.url.startswith(("http:", "https:")):
            return  # blob: and data:, which no server is asked for
        path = urlsplit(response.url).path
        what = f"{response.request.method} {path.removeprefix('/ajax-api/')}"
        by = response.headers.get("headrace-answered-by", "nobody")
        if response.url.startswith(self.others):
            return
        if not response.url.startswith(self.url):
            self.faults.append(f"another server was asked: {response.url}")
        elif re.fullmatch(r"/[0-9a-f-]{36}", path):
            pass  # an object URL that the page has made for a picture
        else:
            self.requests.append((by, re.sub(r"\bm-[0-9a-f]{32}\b", "{model_id}", what)))
            if response.status >= 500 or by == "nobody":  # the console tells of the others
                self.faults.append(f"{what}: {response.status} by {by}")

    def on_console(self, message: ConsoleMessage) -> None:
        where = message.location["url"].partition("#")[0]
        if message.type == "error" and not where.endswith(self.expected) and not where.startswith(self.others):
            if "ResizeObserver loop completed" in message.text:
                return  # a busy browser, whose next frame does the rest
            self.faults.append(f"console: {message.text} {message.location}")

    def on_web_error(self, error: WebError) -> None:
        self.faults.append(f"an exception in the page: {error.error}")

    def answered_by(self, who: str) -> set[str]:
        """The endpoints that "native" or "stock" has answered: "METHOD 2.0/mlflow/..."."""
        return {what for by, what in self.requests if by == who}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = chromium.find()
    if program is None:
        reason = f"no browser: none of {', '.join(chromium.PROGRAMS)} is in PATH (apt-get install chromium)"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    with chromium.launch(program) as browser:
        yield browser


@pytest.fixture
def visit(guide: Guide) -> Visit:
    return Visit(guide.url)


@pytest.fixture(scope="package")
def tab(browser: Browser) -> Iterator[Page]:
    """One for all tests: it keeps what it has compiled of the UI's scripts, 3 s of processor time of 5 for a page."""
    context = new_context(browser)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab: Page, visit: Visit) -> Iterator[Page]:
    with cleared(tab, visit) as page:
        yield page


@contextmanager
def cleared(tab: Page, visit: Visit) -> Iterator[Page]:
    """The tab as a new one, which nothing may go wrong on; what is left in its storage is cleared."""
    tab.set_viewport_size(SIZE)
    tab.emulate_media(color_scheme="light")
    with visit.of(tab.context):
        try:
            yield tab
        finally:
            tab.evaluate("sessionStorage.clear()")
            tab.goto("about:blank")  # whose scripts write no more
    tab.context.clear_cookies()
    devtools = tab.context.new_cdp_session(tab)
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(visit.url))
    devtools.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "local_storage,indexeddb"})
    devtools.detach()
    assert visit.faults == []


def new_context(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
    context.set_default_timeout(TIMEOUT_MS)
    return context


@pytest.fixture
def screenshot(page: Page) -> Callable[[str], None]:
    """Writes docs/images/ui/NAME.png, if asked for."""

    def write(name: str) -> None:
        if os.environ.get(SCREENSHOTS):
            IMAGES.mkdir(parents=True, exist_ok=True)
            page.wait_for_timeout(1000)  # for what fades in
            picture = Image.open(BytesIO(page.screenshot(animations="disabled", caret="hide")))
            picture.convert("RGB").quantize(256).save(IMAGES / f"{name}.png", optimize=True)

    return write


@pytest.fixture(scope="package")
def guide(
    browser: Browser, databases: Databases, s3: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guide]:
    """After `browser`: without one nothing is started."""
    aws = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.url,
        "MLFLOW_S3_ENDPOINT_URL": s3.url,
    }
    session = boto3.Session("test", "test", region_name="us-east-1")
    session.client("s3", endpoint_url=s3.url).create_bucket(Bucket=BUCKET)
    aws |= AS_IT_COMES
    options = ("--artifacts-destination", f"s3://{BUCKET}")
    database = databases.migrated("postgresql")
    server = start_headrace(database, tmp_path_factory.mktemp("browser"), *options, env=aws, until="/health")
    try:
        yield Guide(server.url, *_follow(server.url), database, options, aws)
    finally:
        server.stop()


def _follow(url: str) -> tuple[str, dict[str, str]]:
    """The user guide by MLflow's own client, and a run to compare with. The experiment's id, and the runs' by name."""
    from mlflow import MlflowClient

    options = ["--run-name", "first", "--trees", str(TREES), "--customers", "800", "--project", "churn", "--user", "me"]
    environment = client_environment() | GUESSED_REQUIREMENTS | {"MLFLOW_TRACKING_URI": url}
    command = [sys.executable, str(EXAMPLE), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(url)
    experiment = client.get_experiment_by_name("churn-me")
    assert experiment is not None
    [first] = client.search_runs([experiment.experiment_id])
    second = client.create_run(experiment.experiment_id, run_name="second").info.run_id
    for key, value in first.data.params.items():
        client.log_param(second, key, "0.02" if key == "learning_rate" else value)
    for key, metric in first.data.metrics.items():
        client.log_metric(second, key, round(metric * 0.97, 4), step=TREES - 1)
    client.log_text(second, "as the first, but faster", "note.txt")  # the UI fails to compare a run without artifacts
    client.log_text(second, "<script>document.write('by a' + ' script')</script>", "page.html")
    client.set_terminated(second)
    return experiment.experiment_id, {"first": first.info.run_id, "second": second}
