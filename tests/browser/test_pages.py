"""Every page of MLflow's UI, on a server with everything off and without stock, and on one with `--enable-all`.

No request fails, and no console has an error. (Stock's own have: a 404 for who is signed in, a video that mlflow.org
may not send.) Without stock, which would be a 501, no page but those of ASK_STOCK needs it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS, Visit, new_context
from tests.support.databases import Database, Databases
from tests.support.fork_server import client_environment
from tests.support.servers import STOCK_ENVIRONMENT, Server, start_headrace

expect.set_options(timeout=TIMEOUT_MS)
GENAI, TRAINING = "?workflowType=genai", "?workflowType=machine_learning"
# below /#/, with the ids of page_data.py -> what shows that the page is there
PAGES = {
    "": "Welcome to MLflow",
    "experiments": "pages",
    "experiments/{experiment}/overview/usage": "Usage",
    "experiments/{experiment}/overview/quality": "good",
    "experiments/{experiment}/overview/tool-calls": "Tool calls",
    f"experiments/{{experiment}}/runs{TRAINING}": "second",
    f"experiments/{{experiment}}/runs{TRAINING}&compareRunsMode=CHART": "loss",
    'compare-runs?runs={runs}&experiments=["{experiment}"]': "Comparing 2 Runs from 1 Experiment",
    f"experiments/{{experiment}}/runs/{{run}}{TRAINING}": "depth",
    f"experiments/{{experiment}}/runs/{{run}}/model-metrics{TRAINING}": "loss",
    f"experiments/{{experiment}}/runs/{{run}}/system-metrics{TRAINING}": "No charts in this section",
    f"experiments/{{experiment}}/runs/{{run}}/artifacts/table.json{TRAINING}": "an answer",
    f"experiments/{{experiment}}/runs/{{run}}/traces{TRAINING}": "within second",
    f"experiments/{{experiment}}/models{TRAINING}": "echo",
    f"experiments/{{experiment}}/models/{{model}}{TRAINING}": "accuracy",
    f"experiments/{{experiment}}/models/{{model}}/artifacts{TRAINING}": "MLmodel",
    "models": "pages-model",
    "models/pages-model": "champion",
    "models/pages-model/versions/1": "Source Run",
    "prompts": "pages-prompt",
    "prompts/pages-prompt": "Say {{word}} twice.",
    f"experiments/{{experiment}}/prompts{GENAI}": "pages-prompt",
    f"experiments/{{experiment}}/traces{GENAI}&startTimeLabel=ALL": "within first",
    f"experiments/{{experiment}}/traces{GENAI}&startTimeLabel=ALL&selectedEvaluationId={{trace}}": "Inputs / Outputs",
    f"experiments/{{experiment}}/chat-sessions{GENAI}": "Sessions",
    f"experiments/{{experiment}}/chat-sessions/a-session{GENAI}": "WITHIN FIRST",
    f"experiments/{{experiment}}/evaluation-runs{GENAI}": "first",
    f"experiments/{{experiment}}/datasets{GENAI}": "pages-questions",
    f"experiments/{{experiment}}/datasets/{{dataset}}{GENAI}": "of a record",
    f"experiments/{{experiment}}/judges{GENAI}": "judges",
    "settings/general": "Demo data",
    "settings/llm-connections": "No API keys created",
    "settings/webhooks": "No webhooks configured",
    f"experiments/{{experiment}}/evaluation-runs/{{run}}{GENAI}": "Detection progress",
    f"experiments/{{experiment}}/traces/{{trace}}{GENAI}": "Inputs / Outputs",
    "experiments/0/traces?workflowType=genai": "Start tracing your LLM application",
    f"experiments/{{experiment}}/playground{GENAI}": "Playground",
}
# Those that are not there, or are stock's alone: on the server with everything turned on.
ASK_STOCK = {
    "gateway": "Get started with AI Gateway",
    "gateway/usage": "No usage data available",
    "gateway/budgets": "No budget policies created",
    "gateway/api-keys": "No API keys created",
    "gateway/endpoints/create": "Create endpoint",
    "mcp-registry": "Create MCP server",
    f"experiments/{{experiment}}/review-queue{GENAI}": "No traces in this queue yet",
}
OFF, ALL = "everything off", "--enable-all"
BETWEEN = "settings/webhooks"
# What a feature is offered by, as a selector of Playwright's -> the page where.
OFFERED = {
    'a[href="#/gateway"]': "",
    "[data-assistant-ui]": "",
    'a[href="#/mcp-registry"]': "",
    'a[href*="/review-queue"]': f"experiments/{{experiment}}/prompts{GENAI}",
    'a[href*="/judges"]': f"experiments/{{experiment}}/prompts{GENAI}",
    'a[href*="/playground"]': f"experiments/{{experiment}}/prompts{GENAI}",
    'text="Analyze trace"': f"experiments/{{experiment}}/traces/{{trace}}{GENAI}",
    '[role=tab]:has-text("MLflow assistant")': "experiments/0/traces?workflowType=genai",
    'text="LLM Connections"': "settings/general",
    'text="Webhooks"': "settings/general",
    'text="Create"': "settings/llm-connections",
    'text="Create webhook"': "settings/webhooks",
}


@dataclass(frozen=True)
class World:
    """A database with something for every page, and the server with everything off that it was logged to."""

    database: Database
    folder: Path
    server: Server
    ids: dict[str, str]


@pytest.fixture(scope="module")
def world(browser: Browser, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After `browser`: without one nothing is started."""
    database, folder = databases.migrated("sqlite"), tmp_path_factory.mktemp("pages")
    off = {"MLFLOW_ENABLE_AI_GATEWAY": "false"}
    server = start_headrace(database, folder, "--stock", "never", until="/health", env=off)
    try:
        yield World(database, folder, server, log_to(server.url))
    finally:
        server.stop()


def log_to(url: str, **environment: str) -> dict[str, str]:
    """Something for every page; the ids by kind."""
    command: list[str | Path] = [sys.executable, Path(__file__).with_name("page_data.py"), url]
    environment = client_environment() | {"GIT_PYTHON_REFRESH": "quiet"} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, world: World) -> Iterator[Server]:
    """The server with everything off, or another one on the same database with all that stock has."""
    if request.param == OFF:
        yield world.server
        return
    # the job runner's processes would take the browser's share of the processor: tests/server/test_jobs.py has them
    server = start_headrace(world.database, world.folder, "--enable-all", until="/health", env=STOCK_ENVIRONMENT)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def visit(server: Server) -> Visit:
    return Visit(server.url)


@pytest.fixture(scope="module")
def page(browser: Browser, visit: Visit) -> Iterator[Page]:
    """One browser for all pages, as a person has it."""
    context = new_context(browser)
    with visit.of(context):
        yield context.new_page()
    context.close()


# A server has a decorator of its own everywhere: one that names another argument, too, would start it for each test.
@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("server", [OFF, ALL], indirect=True)
def test_nothing_fails_and_what_is_off_is_not_offered(
    page: Page, visit: Visit, server: Server, world: World, path: str
) -> None:
    """Each page is loaded whole from the one server. From the other a person goes on from the page before, which costs
    half as much: what else a load asks for is the same for all pages. Where the text is there before, that is a page
    without it; where even that one has it, the page is loaded."""
    text = PAGES[path]
    whole, shown = server is world.server, page.get_by_text(text).filter(visible=True)
    if not whole and shown.count():
        page.goto(f"{server.url}/#/{BETWEEN}")
        expect(page.get_by_text(PAGES[BETWEEN])).to_be_visible()
        whole = shown.count() > 0
    show_without_fault(page, visit, server, world, path, text, whole=whole)
    offers = [page.locator(selector).filter(visible=True) for selector, where in OFFERED.items() if where == path]
    for offer in offers:
        if server is world.server:
            assert offer.count() == 0
        else:
            expect(offer.first).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Information about UI telemetry")).to_be_hidden()  # which is off here


@pytest.mark.parametrize("path", ASK_STOCK)
@pytest.mark.parametrize("server", [ALL], indirect=True)
def test_nothing_fails_that_asks_stock(page: Page, visit: Visit, server: Server, world: World, path: str) -> None:
    show_without_fault(page, visit, server, world, path, ASK_STOCK[path], whole=True)


def show_without_fault(
    page: Page, visit: Visit, server: Server, world: World, path: str, text: str, *, whole: bool
) -> None:
    """Open a page, with the ids of the world; the text shows that it is there."""
    visit.faults.clear()
    if whole:
        page.goto("about:blank")
    to = re.sub(r"(?<!{){(\w+)}", lambda name: world.ids[name[1]], path)
    page.goto(f"{server.url}/#/{to}")
    expect(page.get_by_text(text).filter(visible=True).first).to_be_visible()
    seen = -1
    while seen != len(visit.requests):  # what the page asks for once it is there
        seen = len(visit.requests)
        page.wait_for_timeout(300)
    assert visit.faults == []


@pytest.mark.parametrize("server", [OFF, ALL], indirect=True)
def test_nor_did_what_the_pages_asked_behind_them(page: Page, server: Server) -> None:
    """The UI's telemetry runs in a shared worker, whose requests no page sees: the server has counted them."""
    metrics = requests.get(f"{server.url}/metrics", timeout=60).text
    asked = re.findall(r'^headrace_requests_total{.*endpoint="([^"]+)",.*status="(\d+)"', metrics, re.M)
    assert ("3.0/mlflow/ui-telemetry", "200") in asked
    assert [each for each in asked if each[1] >= "500"] == []
