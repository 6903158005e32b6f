"""Thirteen flows of MLflow's client, on both databases: which of them need stock, and for which requests."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import psutil
import pytest

from tests.support.databases import BACKENDS, Backend, Databases
from tests.support.processes import clean_environment, wait_until
from tests.support.servers import Server, start_headrace

SCRIPT = Path(__file__).with_name("flows.py")
# What still wakes stock, by flow: the endpoints that have no native handler yet. Every row that goes is a step.
LOGGED_MODELS = {
    "POST 2.0/mlflow/logged-models",
    "POST 2.0/mlflow/logged-models/search",
    "GET 2.0/mlflow/logged-models/{model_id}",
    "PATCH 2.0/mlflow/logged-models/{model_id}",
    "PATCH 2.0/mlflow/logged-models/{model_id}/tags",
    "DELETE 2.0/mlflow/logged-models/{model_id}/tags/{tag_key}",
    "POST 2.0/mlflow/runs/log-batch",  # a metric of a logged model
    "POST 2.0/mlflow/runs/log-metric",
}
WAKES: dict[str, set[str]] = {
    "log_a_run": {"POST 2.0/mlflow/logged-models/search"},  # whose artifacts a run's path may mean
    "autolog": LOGGED_MODELS,
    "log_model": LOGGED_MODELS,
    "registry": LOGGED_MODELS,
    "load_by_alias": LOGGED_MODELS,
    "searches": LOGGED_MODELS,
    "datasets": {"POST 2.0/mlflow/logged-models/search"},
}
MOST_MB = 75
_ANSWER = re.compile(r"stock answers (\S+ \S+): ")


@pytest.fixture(scope="module", params=BACKENDS)
def server(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    backend: Backend = request.param
    options = ("--log-level", "debug", "--stock-idle", "20")
    server = start_headrace(databases.migrated(backend), tmp_path_factory.mktemp("flows"), *options, until="/health")
    yield server
    server.stop()


def test_what_wakes_stock_in_thirteen_flows(server: Server, tmp_path: Path) -> None:
    woke: defaultdict[str, set[str]] = defaultdict(set)
    errors = (tmp_path / "errors").open("w")
    process = Popen(
        [sys.executable, "-W", "ignore", SCRIPT, server.url, "new"],
        stdin=PIPE,
        stdout=PIPE,
        stderr=errors,
        text=True,
        cwd=tmp_path,
        env=clean_environment() | {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_TRACKING_USERNAME": ""},
    )
    with errors, process:
        assert process.stdin is not None
        assert process.stdout is not None
        flow, read = "", 0
        for line in process.stdout:
            said = server.process.log.read_text(errors="replace")
            woke[flow] |= set(_ANSWER.findall(said[read:]))
            read = len(said)
            if line.startswith("begins: "):
                flow = line.split()[1]
                process.stdin.write("\n")
                process.stdin.flush()
    assert process.returncode == 0, f"{flow}: {(tmp_path / 'errors').read_text()[-3000:]}"
    assert len(woke) == 14  # with what went before the first
    more = {name: routes - WAKES.get(name, set()) for name, routes in woke.items()}
    assert {name: routes for name, routes in more.items() if routes} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the proportional set size")
def test_afterwards_the_server_is_small(server: Server) -> None:
    supervisor = psutil.Process(server.process.pid)
    wait_until(lambda: len(supervisor.children(recursive=True)) == 1, "stock has ended")
    processes = [supervisor, *supervisor.children(recursive=True)]
    sizes = [process.memory_full_info().pss / 1e6 for process in processes]
    print("proportional set sizes after the flows, in MB:", [round(size, 1) for size in sizes])
    assert sum(sizes) < MOST_MB
