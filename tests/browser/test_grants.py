"""MLflow's UI for who sees no more than what is granted to them: its pages are there, with that and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import AS_IT_COMES, TIMEOUT_MS, Visit
from tests.browser.test_pages import PAGES, World, log_to, show_without_fault
from tests.server.guarded import ADMIN_TOKEN, PASSWORD, Guarded, start_guarded
from tests.support.databases import Databases

expect.set_options(timeout=TIMEOUT_MS)
NOT_THEIRS = ("settings/", "experiments/0/")
AS_OTHERS = (  # what they ask for, pages before them have asked for
    "system-metrics", "model-metrics", "/tool-calls", "/quality", "{run}/traces", "{model}/artifacts", "a-session",
    "evaluation-runs/{run}", "traces/{trace}", "datasets/{dataset}", "versions/1", "{experiment}/prompts",
)  # fmt: skip
SHOWN = [path for path in PAGES if not path.startswith(NOT_THEIRS) and not any(part in path for part in AS_OTHERS)]


@pytest.fixture(scope="module")
def guarded(browser: Browser, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = start_guarded(
        databases.migrated("sqlite"), tmp_path_factory.mktemp("grants"), "--grants", "--stock", "never",
        users={"grace": "viewer"}, env=AS_IT_COMES,
    )  # fmt: skip
    yield guarded
    guarded.server.stop()


@pytest.fixture(scope="module")
def world(guarded: Guarded) -> World:
    ids = log_to(guarded.server.url, MLFLOW_TRACKING_TOKEN=ADMIN_TOKEN)
    guarded.request("POST", "/api/2.0/mlflow/experiments/create", ADMIN_TOKEN, json={"name": "of others"})
    guarded.request("POST", "/api/2.0/mlflow/registered-models/create", ADMIN_TOKEN, json={"name": "of others, too"})
    guarded.headrace("user", "grant", "grace", "read", "--experiment", "pages")
    for name in ("pages-model", "pages-prompt"):
        guarded.headrace("user", "grant", "grace", "read", "--model", name)
    return World(guarded.database, guarded.folder, guarded.server, ids)


@pytest.fixture
def visit(guarded: Guarded) -> Visit:
    return Visit(guarded.server.url)


def test_pages(page: Page, visit: Visit, guarded: Guarded, world: World) -> None:
    page.goto(guarded.server.url)
    page.get_by_label("User name").fill("grace")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    for path in SHOWN:
        show_without_fault(page, visit, guarded.server, world, path, PAGES[path], whole=False)
        expect(page.get_by_text("of others")).to_have_count(0)
