"""Fourteen flows of MLflow's client, on both databases: none needs stock, and none was started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import psutil
import pytest

from tests.support.databases import BACKENDS, Backend, Databases
from tests.support.fork_server import client_environment
from tests.support.processes import GUESSED_REQUIREMENTS
from tests.support.servers import PASSED_THROUGH, Server, answered_by_stock, start_headrace

SCRIPT = Path(__file__).with_name("flows.py")
MOST_MB = 75


@pytest.fixture(scope="module", params=BACKENDS)
def server(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    backend: Backend = request.param
    server = start_headrace(databases.migrated(backend), tmp_path_factory.mktemp("flows"), until="/health")
    yield server
    server.stop()


def stocks(server: Server) -> list[psutil.Process]:
    """The stock process, if there is one."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "headrace.stock.launch" in child.cmdline()]


def test_fourteen_flows_wake_no_stock(server: Server, tmp_path: Path) -> None:
    woke: list[tuple[str, set[tuple[str, str]]]] = []
    errors = (tmp_path / "errors").open("w")
    process = Popen(
        [sys.executable, SCRIPT, server.url, "new"],
        stdin=PIPE,
        stdout=PIPE,
        stderr=errors,
        text=True,
        cwd=tmp_path,
        env=client_environment()
        | GUESSED_REQUIREMENTS
        | {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_TRACKING_USERNAME": ""},
    )
    with errors, process:
        assert process.stdin is not None
        assert process.stdout is not None
        flow = ""
        for line in process.stdout:
            if not line.startswith(("begins: ", "ends: ")):
                continue  # the client's own
            woke.append((flow, answered_by_stock(server.url)))
            if line.startswith("begins: "):
                flow = line.split()[1]
                process.stdin.write("\n")
                process.stdin.flush()
    assert process.returncode == 0, f"{flow}: {(tmp_path / 'errors').read_text()[-3000:]}"
    assert len(woke) == 15  # with what went before the first
    assert [(flow, endpoints) for flow, endpoints in woke if endpoints] == []
    assert stocks(server) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the proportional set size")
def test_afterwards_the_server_is_small(server: Server) -> None:
    supervisor = psutil.Process(server.process.pid)
    assert len(supervisor.children()) == 1
    processes = [supervisor, *supervisor.children(recursive=True)]
    sizes = [process.memory_full_info().pss / 1e6 for process in processes]
    print("proportional set sizes after the flows, in MB:", [round(size, 1) for size in sizes])
    assert sum(sizes) < MOST_MB


def test_what_needs_stock_is_counted(server: Server) -> None:
    """Or the flows would pass with a count that never counts."""
    server.process.wait_until(lambda: server.answers(PASSED_THROUGH), "stock answers")
    counted = {("3.0/mlflow/mcp-servers", "GET")}
    server.process.wait_until(lambda: answered_by_stock(server.url) == counted, "it is counted")
    assert len(stocks(server)) == 1
