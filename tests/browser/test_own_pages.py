"""Headrace's own pages in Chromium, light and dark, by keyboard: without a script, and with none that may run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS
from tests.server.guarded import ADMIN_TOKEN, PASSWORD, Guarded, start_guarded
from tests.support.databases import Databases
from tests.support.processes import wait_until

expect.set_options(timeout=TIMEOUT_MS)
NAME = "<b>vision</b>"
COUNT = count()
PAGES = ("", "best-values", "best-values?experiment_id=0", "storage", "state", "events", "audit")
FOR_ADMINISTRATORS = ("events", "audit")


@pytest.fixture(scope="module")
def guarded(browser: Browser, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("own-pages")
    options = ("--audit-table", "--events-allow-private")
    users = {"ada": "admin", "grace": "viewer"}
    started = start_guarded(databases.migrated("postgresql"), folder, *options, users=users)
    yield started
    started.server.stop()


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser, guarded: Guarded) -> Iterator[Page]:
    """An administrator's, in whose console nothing is said."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{guarded.server.url}/headrace/")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Headrace")).to_be_visible()
    yield page
    context.close()
    assert set(faults) <= {"Failed to load resource: the server responded with a status of 400 (Bad Request)"}


def call(guarded: Guarded, path: str, **message: object) -> Any:
    answer = guarded.request("POST", f"/api/2.0/mlflow/{path}", ADMIN_TOKEN, json=message)
    assert answer.status_code == 200, answer.text
    return answer.json()


def tab_to(page: Page, what: str) -> None:
    """To the element with this id, text or label."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(e => [e.id, e.textContent.trim(), e.getAttribute('aria-label')])(document.activeElement)"
        )
        if what in found:
            return
    raise AssertionError(f"Tab does not lead to {what}")


def follow(page: Page, guarded: Guarded, link: str) -> None:
    page.goto(f"{guarded.server.url}/headrace/")
    tab_to(page, link)
    page.keyboard.press("Enter")


def made(guarded: Guarded) -> str:
    """An experiment with two runs, each with a file."""
    number = str(call(guarded, "experiments/create", name=f"{NAME} {next(COUNT)}")["experiment_id"])
    for run_name, values in (("first", (0.9, 0.1, 0.4)), ("second", (0.8, 0.3, 0.2))):
        start = len(run_name)
        run = call(guarded, "runs/create", experiment_id=number, run_name=run_name, start_time=start)["run"]["info"]
        metrics = [{"key": "loss", "value": v, "timestamp": 1, "step": s} for s, v in enumerate(values)]
        metrics.append({"key": "acc", "value": "NaN", "timestamp": 1, "step": 0})
        call(guarded, "runs/log-batch", run_id=run["run_id"], metrics=metrics)
        artifact = f"/api/2.0/mlflow-artifacts/artifacts/{number}/{run['run_id']}/artifacts/a.txt"
        assert guarded.status("PUT", artifact, ADMIN_TOKEN, data=b"0123456789") == 200
    return number


def cells(page: Page, row: str) -> list[str]:
    return [cell.inner_text() for cell in page.get_by_role("row").filter(has_text=row).first.locator("th, td").all()]


def test_best_values(guarded: Guarded, page: Page) -> None:
    number = made(guarded)
    page.goto(f"{guarded.server.url}/headrace/")
    tab_to(page, "experiment_id")
    page.keyboard.type(number)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Best values of {NAME}")).to_be_visible()
    rows = [row.inner_text().split() for row in page.locator("tbody tr").all()]
    assert rows == [["loss", "0.1", "first", "0.9", "first", "0.2", "second", "2"]]


def test_what_is_stored_where(guarded: Guarded, page: Page) -> None:
    number = made(guarded)
    follow(page, guarded, "What is stored where")
    expect(page.get_by_role("heading", name="What is stored where")).to_be_visible()
    row = page.locator("tr", has=page.locator(f"a[href='../#/experiments/{number}']"))
    assert [cell.inner_text() for cell in row.locator("td").all()][:4] == ["2", "8", "0", "2"]
    tab_to(page, f"Count the files of {row.locator('th').inner_text()}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("has 2 files, 20 B.")


def test_state(guarded: Guarded, page: Page, tmp_path: Path) -> None:
    made = call(guarded, "experiments/create", name=f"counted {tmp_path}")
    run = call(guarded, "runs/create", experiment_id=made["experiment_id"])["run"]["info"]["run_id"]
    call(guarded, "runs/log-metric", run_id=run, key="m", value=1, timestamp=1)  # in a group of writes
    follow(page, guarded, "State of the server")
    expect(page.get_by_role("heading", name="State of the server")).to_be_visible()

    def plots() -> set[str]:
        return {each.get_attribute("aria-label") or "" for each in page.locator("figure svg").all()}

    assert {label.partition(":")[0] for label in plots()} == {
        "Requests by seconds to the answer",
        "Commits by writes that shared them",
        "Groups by seconds that their first write waited",
        "Groups by seconds to the commit",
    }

    def are_counted() -> bool:
        page.reload()
        return not [label for label in plots() if label.endswith("nothing yet")]

    wait_until(are_counted, "the worker has told its counts, as it does every few seconds")
    assert cells(page, "headrace_runs_newest")[1:] == ["runs", "ready"]
    assert int(cells(page, "headrace")[2]) >= 1
    text = page.locator("main").inner_text()
    assert "It does not run; it starts when it is wanted (--stock lazy)." in text
    assert "0 failed (status 500 and more)" in text
    assert guarded.database.name in text
    assert page.locator("section, tr", has_text="artifacts").locator("svg.share").count() == 1


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def receiver() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/a-secret-path"
        server.shutdown()


def test_events_are_set_up(guarded: Guarded, page: Page) -> None:
    follow(page, guarded, "Events")
    expect(page.get_by_text("Nobody is told anything yet.")).to_be_visible()
    with receiver() as url:
        tab_to(page, "name")
        page.keyboard.type(NAME)
        tab_to(page, "url")
        page.keyboard.type("nowhere")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The URL must be https:// and a host")
        expect(page.get_by_label("Name", exact=True)).to_have_value(NAME)
        tab_to(page, "url")
        page.keyboard.press("Control+A")
        page.keyboard.type(url)
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # run.finished
        tab_to(page, "experiment")
        page.keyboard.type("0")
        tab_to(page, "metric")
        page.keyboard.type("loss")
        page.keyboard.press("Tab")
        page.keyboard.type("below")
        page.keyboard.press("Tab")
        page.keyboard.type("0.5")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("The secret that signs its requests")
        secret = page.get_by_role("status").locator("pre").inner_text()
        assert len(secret) > 40
        assert cells(page, NAME)[2:8] == ["run.finished, metric.passed", "Default loss below 0.5", "0", "0", "0", ""]
        assert "a-secret-path" not in page.content()
        tab_to(page, f"Try {NAME}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text(f"{NAME} took it: 204")
        assert secret not in page.content()
    tab_to(page, f"Remove {NAME}")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nobody is told anything yet.")).to_be_visible()


def test_who_did_what(guarded: Guarded, page: Page, tmp_path: Path) -> None:
    made_here = call(guarded, "experiments/create", name=f"audited {tmp_path}")["experiment_id"]
    guarded.server.process.wait_until(
        lambda: f"experiment_id={made_here}" in guarded.request("GET", "/headrace/audit", ADMIN_TOKEN).text, "a row"
    )
    follow(page, guarded, "Who did what")
    expect(page.get_by_role("heading", name="Who did what")).to_be_visible()
    assert f"experiment_id={made_here}" in cells(page, "experiments/create")[6]
    tab_to(page, "user")
    page.keyboard.type("ada")
    page.keyboard.press("Enter")
    page.wait_for_url("**user=ada**")
    expect(page.locator("tbody tr").first).to_be_visible()
    assert {row.locator("td").first.inner_text() for row in page.locator("tbody tr").all()} == {"ada"}
    row = cells(page, "POST /headrace/events")
    assert row[5] in ("200", "303")
    assert f"name={NAME}" in row[6]
    assert "a-secret-path" not in page.content()


@pytest.mark.parametrize("path", PAGES)
def test_who_may_see_it(guarded: Guarded, path: str) -> None:
    address = f"/headrace/{path}"
    answer = guarded.request("GET", address, ADMIN_TOKEN)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert "<script" not in answer.text
    assert " style=" not in answer.text
    viewer = guarded.headrace("user", "token", "grace", "--name", path or "index")
    assert guarded.status("GET", address, viewer) == (403 if path in FOR_ADMINISTRATORS else 200)
    assert guarded.status("GET", address) == 401


def test_what_is_refused(guarded: Guarded) -> None:
    viewer = guarded.headrace("user", "token", "grace", "--name", "refused")
    for path, status, token in (
        ("best-values?experiment_id=99999", 404, ADMIN_TOKEN),
        ("best-values?experiment_id=x", 400, ADMIN_TOKEN),
        ("storage?experiment_id=99999", 404, ADMIN_TOKEN),
        ("storage?experiment_id=x", 400, ADMIN_TOKEN),
        ("audit?since=soon", 400, ADMIN_TOKEN),
        *((page, 403, viewer) for page in FOR_ADMINISTRATORS),
    ):
        answer = guarded.request("GET", f"/headrace/{path}", token, headers={"Accept": "text/html,*/*;q=0.8"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
        assert '<p class="bad" role="alert">' in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
        answer = guarded.request("GET", f"/headrace/{path}", token, headers={"Accept": "application/json"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), path
    form = {"action": "add", "name": "x", "url": "https://example.com/"}
    assert guarded.status("POST", "/headrace/events", ADMIN_TOKEN, json=form) == 400
    evil = {"Origin": "https://evil.example"}
    assert guarded.status("POST", "/headrace/events", ADMIN_TOKEN, data=form, headers=evil) == 403
    assert guarded.status("POST", "/headrace/events", viewer, data=form) == 403
    assert "Nobody is told anything yet." in guarded.request("GET", "/headrace/events", ADMIN_TOKEN).text


def test_without_the_slash(guarded: Guarded, page: Page) -> None:
    page.goto(f"{guarded.server.url}/headrace")
    assert page.url == f"{guarded.server.url}/headrace/"
    expect(page.get_by_role("heading", name="Headrace")).to_be_visible()


def test_every_page_fits_a_phone(page: Page, guarded: Guarded) -> None:
    """A table that is wider is moved by itself: the page stays where it is."""
    page.set_viewport_size({"width": 360, "height": 740})
    try:
        for path in PAGES:
            page.goto(f"{guarded.server.url}/headrace/{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_an_unknown_address_of_any_length_fits_a_phone(page: Page, guarded: Guarded) -> None:
    beside = page.context.new_page()  # in whose console is the 404
    try:
        beside.set_viewport_size({"width": 360, "height": 740})
        beside.goto(f"{guarded.server.url}/headrace/{'x' * 200}/y")
        assert beside.evaluate("document.documentElement.scrollWidth") <= 360
        beside.get_by_role("link", name="Headrace").click()
        expect(beside.get_by_role("heading", name="Headrace")).to_be_visible()
    finally:
        beside.close()
