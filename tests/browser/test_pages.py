"""Every page of MLflow's UI that needs no provider of AI, on a server without stock: no request fails.

So none needs stock, which would be a 501 here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import TIMEOUT_MS, Visit, new_context
from tests.support.databases import Databases
from tests.support.processes import clean_environment
from tests.support.servers import Server, start_headrace

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
}


@pytest.fixture(scope="module")
def server(browser: Browser, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """After `browser`: without one nothing is started."""
    folder = tmp_path_factory.mktemp("pages")
    off = {"MLFLOW_ENABLE_AI_GATEWAY": "false"}
    server = start_headrace(databases.migrated("sqlite"), folder, "--stock", "never", until="/health", env=off)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ids(server: Server) -> dict[str, str]:
    command: list[str | Path] = [sys.executable, "-W", "ignore", Path(__file__).with_name("page_data.py"), server.url]
    environment = clean_environment() | {"GIT_PYTHON_REFRESH": "quiet"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def visit(server: Server) -> Visit:
    return Visit(server.url)


@pytest.fixture(scope="module")
def context(browser: Browser, visit: Visit) -> Iterator[BrowserContext]:
    """One browser for all pages, as a person has it."""
    context = new_context(browser, visit)
    yield context
    context.close()


@pytest.fixture(scope="module")
def page(context: BrowserContext, server: Server) -> Page:
    page = context.new_page()
    page.goto(server.url)
    return page


@pytest.mark.parametrize("path", PAGES)
def test_nothing_fails(page: Page, visit: Visit, server: Server, ids: dict[str, str], path: str) -> None:
    visit.faults.clear()
    to = re.sub(r"(?<!{){(\w+)}", lambda name: ids[name[1]], path)
    page.goto(f"{server.url}/#/{to}")
    expect(page.get_by_text(PAGES[path]).filter(visible=True).first).to_be_visible()
    seen = -1
    while seen != len(visit.requests):  # what the page asks for once it is there
        seen = len(visit.requests)
        page.wait_for_timeout(300)
    assert visit.faults == []


def test_features_that_are_off_are_not_offered(page: Page, server: Server, ids: dict[str, str]) -> None:
    """The assistant has not opened by itself, and nothing leads to it or to the gateway."""
    page.goto(f"{server.url}/#/")
    expect(page.get_by_role("link", name="Experiments").first).to_be_visible()
    for name in ("Assistant", "Gateway"):
        expect(page.get_by_text(name).filter(visible=True)).to_have_count(0)


def test_nor_did_what_the_pages_asked_behind_them(page: Page, server: Server) -> None:
    """The UI's telemetry runs in a shared worker, whose requests no page sees: the server has counted them."""
    metrics = requests.get(f"{server.url}/metrics", timeout=60).text
    asked = re.findall(r'^headrace_requests_total{.*endpoint="([^"]+)",.*status="(\d+)"', metrics, re.M)
    assert ("3.0/mlflow/ui-telemetry", "200") in asked
    assert [each for each in asked if each[1] >= "500"] == []
