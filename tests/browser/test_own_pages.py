"""Headrace's own pages in Chromium, light and dark, by keyboard: without a script, and with none that may run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, expect

from tests.browser.conftest import TIMEOUT_MS
from tests.support.databases import Databases
from tests.support.servers import Server, start_headrace

expect.set_options(timeout=TIMEOUT_MS)
NAME = "<b>vision</b>"


@pytest.fixture(scope="module")
def server(browser: Browser, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = start_headrace(databases.migrated("sqlite"), tmp_path_factory.mktemp("own-pages"), until="/ready")
    yield started
    started.stop()


def call(server: Server, path: str, **message: object) -> dict[str, dict[str, dict[str, str]]]:
    answer = requests.post(f"{server.url}/api/2.0/mlflow/{path}", json=message, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, dict[str, dict[str, str]]] = answer.json()
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_best_values(server: Server, browser: Browser, tmp_path: Path, scheme: str) -> None:
    number = str(call(server, "experiments/create", name=f"{NAME} {scheme}")["experiment_id"])
    for name, values in (("first", (0.9, 0.1, 0.4)), ("second", (0.8, 0.3, 0.2))):
        run = call(server, "runs/create", experiment_id=number, run_name=name, start_time=len(name))["run"]["info"]
        metrics = [{"key": "loss", "value": v, "timestamp": 1, "step": s} for s, v in enumerate(values)]
        metrics.append({"key": "acc", "value": "NaN", "timestamp": 1, "step": 0})
        call(server, "runs/log-batch", run_id=run["run_id"], metrics=metrics)
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{server.url}/headrace/")
    for _ in range(10):
        if page.evaluate("document.activeElement.id") == "experiment_id":
            break
        page.keyboard.press("Tab")
    page.keyboard.type(number)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Best values of {NAME} {scheme}")).to_be_visible()
    rows = [row.inner_text().split() for row in page.locator("tbody tr").all()]
    assert rows == [["loss", "0.1", "first", "0.9", "first", "0.2", "second", "2"]]
    page.screenshot(path=tmp_path.parent / f"best-{scheme}.png")
    answer = requests.get(f"{server.url}/headrace/best-values?experiment_id={number}", timeout=30)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert "script" not in answer.text
    assert requests.get(f"{server.url}/headrace/best-values?experiment_id=99999", timeout=30).status_code == 404
    assert requests.get(f"{server.url}/headrace/best-values?experiment_id=x", timeout=30).status_code == 400
    assert faults == []
    context.close()
