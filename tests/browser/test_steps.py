"""What a person does with the user guide's run, step by step, in MLflow's UI; and who answers what the UI asks.

`make screenshots` writes the pictures of docs/ui.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import psutil
import pytest
import requests
from bench.page import visits
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS, Guide, Visit, cleared
from tests.support.fork_server import NO_FORK
from tests.support.processes import wait_until
from tests.support.servers import PASSED_THROUGH, Server, answered_by_stock, start_headrace

expect.set_options(timeout=TIMEOUT_MS)
Screenshot = Callable[[str], None]
PREFIX = "/a/prefix"
FIRST_VISIT_BYTES = 2_300_000
SECOND_VISIT_BYTES = 100_000


def see_runs(page: Page, guide: Guide) -> None:
    page.goto(guide.runs_page())
    expect(page.get_by_role("link", name="first", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="second", exact=True)).to_be_visible()


def test_experiments(page: Page, visit: Visit, guide: Guide, screenshot: Screenshot) -> None:
    page.goto(f"{guide.url}/#/experiments")
    expect(page.get_by_role("link", name="churn-me").first).to_be_visible()
    screenshot("experiments")
    see_runs(page, guide)
    screenshot("runs")
    assert visit.answered_by("stock") == set()
    assert visit.answered_by("native") >= {
        "POST /graphql",
        "POST 2.0/mlflow/runs/search",
        "GET 2.0/mlflow/experiments/search",
    }


def test_run(page: Page, visit: Visit, guide: Guide, screenshot: Screenshot) -> None:
    page.set_viewport_size({"width": 1280, "height": 1150})
    page.goto(guide.run_page())
    for text in ("learning_rate", "0.005", "n_estimators", "Balanced Accuracy", "Validation LogLoss", "Finished"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    screenshot("run")
    assert visit.answered_by("stock") == set()
    assert visit.answered_by("native") >= {"POST /graphql", "GET 2.0/mlflow/model-versions/search"}


def test_metric_chart(page: Page, visit: Visit, guide: Guide, screenshot: Screenshot) -> None:
    page.goto(guide.run_page("/model-metrics"))
    page.get_by_placeholder("Search metric charts").fill("LogLoss")
    lines = page.locator(".js-plotly-plot .scatterlayer path.js-line")
    expect(lines.first).to_be_visible()
    # a point an epoch: the line's path has a command for each
    commands = re.findall("[MLVHC]", lines.first.get_attribute("d") or "")
    assert len(commands) >= 10
    screenshot("metric")
    assert visit.answered_by("stock") == set()
    assert visit.answered_by("native") >= {"GET 2.0/mlflow/metrics/get-history-bulk-interval"}


def test_picture(page: Page, visit: Visit, guide: Guide, screenshot: Screenshot) -> None:
    page.goto(guide.run_page("/artifacts"))
    page.get_by_text("SHAP_Xgboost.png").first.click()
    picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
    expect(picture).to_be_visible()
    page.wait_for_function("image => image.naturalWidth > 300", arg=picture.element_handle())
    screenshot("artifact")
    assert visit.answered_by("stock") == set()
    assert visit.answered_by("native") >= {"GET 2.0/mlflow/artifacts/list", "GET /get-artifact"}


def test_html_artifact(page: Page, guide: Guide) -> None:
    """Its scripts run, in a frame without rights, under the page's Content-Security-Policy."""
    opened = page.goto(guide.runs_page(f"/{guide.runs['second']}/artifacts/page.html"))
    assert opened is not None
    policy = opened.headers["content-security-policy"]
    assert {"default-src 'self'", "base-uri 'self'", "frame-ancestors 'self'"} <= set(policy.split("; "))
    expect(page.frame_locator("iframe").get_by_text("by a script")).to_be_visible()
    frames = page.frames[1:]
    assert frames
    assert all(frame.evaluate("self.origin") == "null" for frame in frames)


def test_traces(page: Page, guide: Guide) -> None:
    info = {
        "trace_id": "tr-" + "0" * 32,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": guide.experiment_id},
        },
        "request_time": "2026-11-24T00:00:00Z",
        "request_preview": "a question",
        "state": "OK",
    }
    made = requests.post(f"{guide.url}/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}, timeout=60)
    assert made.status_code == 200, made.text
    page.goto(f"{guide.url}/#/experiments/{guide.experiment_id}/traces?startTimeLabel=ALL")
    expect(page.get_by_text("a question").first).to_be_visible()


def test_search(page: Page, guide: Guide, screenshot: Screenshot) -> None:
    see_runs(page, guide)
    box = page.get_by_placeholder("metrics.rmse")
    box.fill('params.learning_rate = "0.02" and metrics.Recall > 0.1')
    box.press("Enter")
    expect(page.get_by_role("link", name="first", exact=True)).to_be_hidden()
    expect(page.get_by_role("link", name="second", exact=True)).to_be_visible()
    screenshot("search")


def test_compare(page: Page, guide: Guide, screenshot: Screenshot) -> None:
    see_runs(page, guide)
    page.get_by_label("Select all runs").first.check(force=True)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment").first).to_be_visible()
    expect(page.get_by_role("link", name=guide.runs["first"])).to_be_visible()
    expect(page.get_by_text("Parameters", exact=True).first).to_be_visible()
    screenshot("compare")


def test_model(page: Page, guide: Guide, screenshot: Screenshot) -> None:
    """Its files; it is registered; its version is there, and the run says so."""
    page.goto(guide.run_page())
    # the link opens a tab of its own
    page.goto(f"{guide.url}/{page.get_by_role('link', name='XGboost').first.get_attribute('href')}")
    expect(page.get_by_role("heading", name="XGboost")).to_be_visible()
    page.get_by_role("link", name="Artifacts").or_(page.get_by_role("tab", name="Artifacts")).first.click()
    for file in ("MLmodel", "model.ubj", "requirements.txt"):
        expect(page.get_by_text(file, exact=True).first).to_be_visible()
    screenshot("model")
    page.get_by_role("button", name="Register model").click()
    page.locator("#selectedModel").click()
    page.get_by_text("Create New Model", exact=True).click()
    page.get_by_placeholder("Input a model name").fill("churn")
    with page.expect_response("**/model-versions/create") as registered:
        page.get_by_role("button", name="Register", exact=True).click()
    assert registered.value.ok
    page.goto(f"{guide.url}/#/models/churn/versions/1")
    expect(page.get_by_text("Version 1").first).to_be_visible()
    screenshot("version")
    page.goto(guide.run_page())
    expect(page.get_by_role("link", name="churn").first).to_be_visible()


def test_no_step_has_needed_stock(guide: Guide) -> None:
    """Nor a request of the UI that no page sees: its telemetry's worker, for one."""
    assert answered_by_stock(guide.url) == set()


def test_weight(browser: Browser, guide: Guide) -> None:
    """The first page over the wire, and the second visit."""
    first, second = visits(browser, guide.runs_page(), run="first")
    assert 500_000 < first.bytes <= FIRST_VISIT_BYTES
    assert second.bytes < SECOND_VISIT_BYTES


@pytest.fixture(scope="module")
def without_stock(guide: Guide, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Headrace below a prefix on the guide's data, whose stock has begun to start and does not go on."""
    folder = tmp_path_factory.mktemp("without-stock")
    options = (*guide.options, "--static-prefix", PREFIX, "--stock", "lazy", "--stock-wait", "300")
    server = start_headrace(guide.database, folder, *options, env=guide.environment | NO_FORK, until=f"{PREFIX}/health")
    try:
        with pytest.raises(requests.Timeout):
            requests.get(f"{server.url}{PREFIX}{PASSED_THROUGH}", timeout=0.5)

        def stock() -> list[psutil.Process]:
            children = psutil.Process(server.process.pid).children()
            return [child for child in children if "headrace.stock.launch" in child.cmdline()]

        wait_until(lambda: bool(stock()), "stock starts")
        [stopped] = stock()
        stopped.suspend()
        yield server
        stopped.kill()  # it could not follow its parent's end
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("below", "content"),
    [
        (None, "text=first"),
        ("", "text=learning_rate"),
        ("/model-metrics", ".js-plotly-plot path.js-line"),
        ("/artifacts/SHAP_Xgboost.png", "img[src^='blob:']"),
    ],
)
def test_nothing_waits_for_stock(
    tab: Page, guide: Guide, without_stock: Server, below: str | None, content: str
) -> None:
    """The first content is there while stock is still starting, and the UI works below a prefix."""
    url = f"{without_stock.url}{PREFIX}"
    visit = Visit(url)
    with cleared(tab, visit) as page:
        page.goto(guide.runs_page(url=url) if below is None else guide.run_page(below, url))
        expect(page.locator(content).first).to_be_visible()
        assert visit.answered_by("stock") == set()
