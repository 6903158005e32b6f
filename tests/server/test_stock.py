"""Stock MLflow behind `headrace serve`: started, restarted, and given what `mlflow server` would give it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from urllib.parse import urljoin

import psutil
import pytest
import requests

from tests.server.conftest import HEALTH, Serve, Serving
from tests.support import fork_server
from tests.support.databases import Databases
from tests.support.processes import PATIENCE_SECONDS, Process, free_port, wait_until
from tests.support.servers import PASSED_THROUGH


@pytest.fixture
def sqlite(databases: Databases) -> tuple[str, str]:
    return "--backend-store-uri", databases.migrated("sqlite").uri


def test_lazy_starts_it_with_the_first_request_that_needs_it_and_after_its_end_again(
    serve: Serve, sqlite: tuple[str, str]
) -> None:
    server = serve(*sqlite, "--stock-wait", "120", forks=False)
    assert server.get("/api/2.0/mlflow/experiments/get?experiment_id=0").status_code == 200
    assert server.children("headrace.stock.launch") == []
    assert server.get(PASSED_THROUGH, 2 * PATIENCE_SECONDS).status_code == 200
    assert f"stock MLflow starts: GET {PASSED_THROUGH.split('?')[0]} needs it" in server.log
    first = server.stock
    assert first is not None
    check_it_has_no_port_and_no_other_processes_and_is_small(server, first)
    first.kill()
    first.wait(PATIENCE_SECONDS)
    assert server.get(PASSED_THROUGH, 2 * PATIENCE_SECONDS).status_code == 200
    assert server.stock is not None
    assert server.stock.pid != first.pid
    assert "stock MLflow ended (SIGKILL); it starts again in 0.5 s" in server.log


def test_it_ends_when_nobody_needs_it_and_starts_again_when_somebody_does(
    serve: Serve, sqlite: tuple[str, str]
) -> None:
    server = serve(*sqlite, "--stock-idle", "1.5", "--stock-wait", "120", until=PASSED_THROUGH)
    first = server.stock
    assert first is not None
    wait_until(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE, "stock has ended")
    assert "no request has needed stock MLflow for 1.5 s; it ends" in server.log
    assert server.get("/api/2.0/mlflow/experiments/get?experiment_id=0").headers["headrace-answered-by"] == "native"
    assert server.get(PASSED_THROUGH, 2 * PATIENCE_SECONDS).status_code == 200
    assert server.stock is not None
    assert server.stock.pid != first.pid


def test_without_it_what_only_it_can_answer_is_501_and_says_which_option_turns_it_on(
    serve: Serve, sqlite: tuple[str, str]
) -> None:
    server = serve(*sqlite, "--stock", "never")
    refused = server.get(PASSED_THROUGH)
    assert (refused.status_code, refused.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert "--stock lazy" in refused.json()["message"]
    malformed = requests.post(f"{server.url}/api/2.0/mlflow/runs/search", data=b"{", timeout=60)
    assert malformed.status_code == 400
    check_what_stock_would_fail_at(server)
    assert server.get("/api/2.0/mlflow/experiments/get?experiment_id=0").status_code == 200
    assert "answered 501, for want of stock: GET 3.0/mlflow/mcp-servers" in server.log


@pytest.mark.parametrize(
    ("prefix", "options"),
    [("", ()), ("", ("--stock", "never")), ("/team", ("--static-prefix", "/team")), ("", ("--artifacts-only",))],
    ids=["as it comes", "never", "prefix", "artifacts only"],
)
def test_an_unknown_page_of_our_own_is_a_page_with_the_way_back_and_starts_no_stock(
    serve: Serve, sqlite: tuple[str, str], prefix: str, options: tuple[str, ...]
) -> None:
    stores = () if "--artifacts-only" in options else sqlite
    server = serve(*stores, *options, until=f"{prefix}{HEALTH}")
    for path in ("nothing", "deep/er/", "a%2Fb", "tokens", "sign-in?next=%2F"):
        url = f"{server.url}{prefix}/headrace/{path}"
        asked = requests.get(url, headers={"Accept": "application/json"}, timeout=60)
        assert (asked.status_code, asked.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST"), path
        assert asked.headers["headrace-answered-by"] == "native"
        assert requests.head(url, timeout=60).status_code == requests.post(url, timeout=60).status_code == 404
        page = requests.get(url, headers={"Accept": "text/html,*/*;q=0.8"}, timeout=60)
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
        assert '<p class="bad" role="alert">There is no page' in page.text
        links = [urljoin(url, each) for each in re.findall('href="(.*?)"', page.text)]
        own = [f"{server.url}{prefix}{each}" for each in ("/headrace/style.css", "/", "/headrace/")]
        assert links == own, path
    for path in ("favicon.ico", "robots.txt", "api/2.0/mlflow/nothing"):
        for send in (requests.get, requests.post):
            assert send(f"{server.url}{prefix}/{path}", timeout=60).status_code in (404, 501), path
    assert server.children("headrace.stock.launch") == []
    assert "stock MLflow starts" not in server.log
    assert "for want of stock" not in server.log


def check_what_stock_would_fail_at(server: Serving) -> None:
    """It is refused before it gets there, or its failure is told as a 400."""
    api = "/api/2.0/mlflow"
    bodies = {
        f"{api}/experiments/create": {"name": "a", "artifact_location": "s3://b/a\0"},
        "/api/3.0/mlflow/issues": {"experiment_id": "0", "name": "\ud800", "description": "d"},
        "/api/3.0/mlflow/label-schemas/create": json.loads("[" * 101 + "]" * 101),
    }
    for path, body in bodies.items():
        assert requests.post(server.url + path, json=body, timeout=60).status_code == 400, path
    for path in (
        f"{api}/artifacts/list?run_id=a%00",
        f"{api}/experiments/search?max_results=5&page_token=%C3%A9",
        "/graphql",
    ):
        assert server.get(path).status_code == 400, path
    assert "--enable-workspaces" in server.get("/api/3.0/mlflow/workspaces").json()["message"]
    for path in (
        f"{api}/experiments/search?max_results=5",
        f"{api}/artifacts/list?run_id=a",
        "/get-artifact?run_id=a&path=b",
    ):
        answer = requests.get(server.url + path, headers={"X-MLFLOW-WORKSPACE": "blue"}, timeout=60)
        assert answer.status_code == 501, path
        assert "--enable-workspaces" in answer.json()["message"], path
    info = requests.get(f"{server.url}/api/3.0/mlflow/server-info", headers={"X-MLFLOW-WORKSPACE": "blue"}, timeout=60)
    assert info.json()["workspaces_enabled"] is False


def check_it_has_no_port_and_no_other_processes_and_is_small(server: Serving, stock: psutil.Process) -> None:
    assert stock.net_connections("inet") == []
    tree = psutil.Process(server.process.pid).children(recursive=True)
    assert len(tree) == 2
    if sys.platform == "linux":
        everything = [psutil.Process(server.process.pid), *tree]
        assert sum(process.memory_full_info().pss for process in everything) < 350e6


IMPATIENT = """
from headrace.stock.probe import Probe
Probe.__init__.__kwdefaults__.update(pause=0.5, patience=1.5)
from headrace.cli.main import main
main()
"""


def test_one_that_hangs_is_started_again(sqlite: tuple[str, str], tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", IMPATIENT, "serve", "--port", str(port), "--stock-wait", "60", *sqlite]
    process = Process(command, tmp_path / "log", env=fork_server.environment(), cwd=tmp_path)
    server = Serving(f"http://127.0.0.1:{port}", process)
    try:
        process.wait_until(lambda: server.answers(PASSED_THROUGH), "stock answers")
        first = server.stock
        assert first is not None
        server.stock_itself.suspend()  # SIGSTOP
        assert server.get(PASSED_THROUGH).status_code == 200
        assert server.stock is not None
        assert server.stock.pid != first.pid
        assert "stock MLflow did not answer 3 times in a row; it is ended" in server.log
    finally:
        process.stop()


def test_while_it_is_away_the_answer_is_503_and_the_rest_works(serve: Serve, sqlite: tuple[str, str]) -> None:
    server = serve(*sqlite, "--stock-wait", "0", until=PASSED_THROUGH)
    server.stock_itself.kill()
    wait_until(lambda: server.answers(PASSED_THROUGH, 503), "503")
    answer = server.get(PASSED_THROUGH)
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert answer.headers["Retry-After"].isdecimal()
    assert server.get("/health").text == "OK"
    wait_until(lambda: server.answers(PASSED_THROUGH), "stock is back", 2 * PATIENCE_SECONDS)


def test_it_has_the_same_configuration(serve: Serve, sqlite: tuple[str, str], tmp_path: Path) -> None:
    server = serve(
        *sqlite,
        *("--static-prefix", "/team"),
        *("--artifacts-destination", str(tmp_path / "kept")),
        *("--allowed-hosts", "mlflow.example.com,127.0.0.1:*"),
        until="/team" + PASSED_THROUGH,
    )
    assert server.get(PASSED_THROUGH).status_code == 404
    url = server.url + "/team" + PASSED_THROUGH
    for host in ("mlflow.example.com", "mlflow.example.com:5000"):
        assert requests.get(url, headers={"Host": host}, timeout=60).status_code == 200
    refused = requests.get(url, headers={"Host": "evil.example.com"}, timeout=60)
    assert (refused.status_code, "DNS rebinding" in refused.text) == (403, True)
    path = "/api/2.0/mlflow-artifacts/artifacts/0/a%20b.txt"
    assert requests.put(server.url + path, data=b"abc", timeout=60).status_code == 200
    assert (tmp_path / "kept" / "0" / "a b.txt").read_bytes() == b"abc"
    assert "/team/static-files/" in server.get("/team/").text or "static-files/" in server.get("/team/").text


def test_a_store_that_is_stocks_alone(serve: Serve, tmp_path: Path) -> None:
    environment = {"MLFLOW_ALLOW_FILE_STORE": "true"}
    first = "/api/2.0/mlflow/experiments/get?experiment_id=0"  # which makes a file store's first experiment
    server = serve("--backend-store-uri", str(tmp_path / "mlruns"), env=environment, until=first)
    created = requests.post(f"{server.url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, timeout=60)
    assert created.status_code == 200
    assert created.headers["headrace-answered-by"] == "stock"
    assert (tmp_path / "mlruns" / "0" / created.json()["run"]["info"]["run_id"]).is_dir()
