"""The image's environment: stock MLflow without what only its clients need, and nothing that the server asks for.

Two servers work on one database: one in this environment, one in that of requirements/container.txt. Every route of
stock is called on both; a package that is missed shows as another answer, or in the log.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.container.data import Data, make_data
from tests.support import fork_server
from tests.support.databases import Database, Databases
from tests.support.processes import Process, free_port
from tests.support.servers import PASSED_THROUGH, STOCK_ENVIRONMENT, Server

ROOT = Path(__file__).resolve().parents[2]
SLIM = ROOT / ".venv-container" / "bin" / "python"
# Routes whose answer is never the same twice, or that would leave this machine.
VOLATILE = re.compile(r"/server-info$|/ui-telemetry$|/assistant/|/demo/|gateway/supported-")
READS = re.compile(r"search|get|list|query|history|graphql|metrics|download")
ROUTES = """
import json
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app
routes = [(r.path, sorted(r.methods)) for r in app.routes if getattr(r, "methods", None)]
routes += [(rule.rule, sorted(rule.methods)) for rule in flask_app.url_map.iter_rules()]
print(json.dumps(routes))
"""


@dataclass
class Servers:
    full: Server
    slim: Server
    data: Data


def start(python: Path, env: dict[str, str], database: Database, folder: Path, name: str) -> Server:
    """`headrace serve` under an interpreter, ready with its stock; the artifacts are the same for both."""
    port = free_port()
    command: list[str | Path] = [python, "-m", "headrace.cli.main", "serve", "--port", str(port)]
    command += ["--backend-store-uri", database.uri, "--artifacts-destination", str(folder / "artifacts")]
    process = Process(command, folder / f"{name}.log", env=STOCK_ENVIRONMENT | env, cwd=folder)
    server = Server(name, f"http://127.0.0.1:{port}", process)
    process.wait_until(lambda: server.answers(PASSED_THROUGH), f"{name} answers")
    return server


@pytest.fixture(scope="module")
def servers(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    assert SLIM.exists(), "run: make .venv-container/.ready"
    database, folder = databases.migrated("postgresql"), tmp_path_factory.mktemp("container")
    with ThreadPoolExecutor() as pool:
        starts = (
            pool.submit(start, Path(sys.executable), fork_server.environment(), database, folder, "full"),
            pool.submit(start, SLIM, {"PYTHONPATH": str(ROOT / "src")}, database, folder, "slim"),
        )
        full, slim = (each.result() for each in starts)
    try:
        yield Servers(full, slim, make_data(slim.url))
    finally:
        full.stop()
        slim.stop()


def test_every_route_answers_as_in_the_whole_environment(servers: Servers) -> None:
    different = []
    with requests.Session() as session:
        for method, path in calls(servers.data):
            answers = [call(session, server, method, path, servers.data) for server in (servers.full, servers.slim)]
            if answers[0] != answers[1]:
                different.append((method, path, *answers))
    assert different == []
    log = servers.slim.process.log.read_text(errors="replace")
    assert not re.findall(r".*(?:No module named|ImportError).*", log)


def test_what_the_ui_shows_is_there(servers: Servers) -> None:
    """So that the walk compares more than empty pages."""
    data = servers.data
    run = {"run_id": data.run_id}
    for path, query, expected in (
        ("/ajax-api/2.0/mlflow/runs/get", run, data.run_id),
        ("/ajax-api/2.0/mlflow/artifacts/list", run | {"path": "notes"}, data.artifact),
        ("/get-artifact", run | {"path": data.artifact}, "an artifact"),
        ("/ajax-api/2.0/mlflow/registered-models/get", {"name": data.model}, data.model),
        ("/ajax-api/3.0/mlflow/traces/" + data.trace_id, {}, data.trace_id),
        ("/ajax-api/2.0/mlflow/metrics/get-history", run | {"metric_key": "loss"}, "0.25"),
    ):
        answer = requests.get(servers.slim.url + path, params=query, timeout=60)
        assert answer.status_code == 200, (path, answer.text)
        assert expected in answer.text, path


def test_the_image_leaves_the_clients_packages_out() -> None:
    lock = (ROOT / "requirements" / "container.txt").read_text()
    server = (ROOT / "requirements" / "server.txt").read_text()
    pinned = re.findall(r"^[a-z0-9._-]+(?:\[[a-z,]+\])?==[^ ;]+", lock, re.M)
    assert [pin for pin in pinned if pin not in server] == []  # the same versions as are tested everywhere else
    left_out = (ROOT / "requirements" / "container-without.txt").read_text().splitlines()
    names = {pin.split("==")[0] for pin in pinned}
    assert names.isdisjoint(left_out)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split(r"[\[>=]", dependency)[0] for dependency in project["dependencies"]} <= names
    assert lock.count("--hash=sha256:") >= len(pinned) > 40


def calls(data: Data) -> list[tuple[str, str]]:
    """(method, path) of every route of stock that is safe to call; placeholders filled from the data."""
    env = fork_server.client_environment()
    done = subprocess.run([sys.executable, "-c", ROUTES], capture_output=True, text=True, env=env, check=True)
    found = []
    for path, methods in json.loads(done.stdout.splitlines()[-1]):
        for method in {"GET", "POST"} & set(methods):
            if not VOLATILE.search(path) and "static-files" not in path:
                found.append((method, fill(path, data)))
    assert len(found) > 150
    return sorted(set(found))


def fill(path: str, data: Data) -> str:
    def value(match: re.Match[str]) -> str:
        name = re.split(r"[:>]", match[1].replace("path:", "").replace("string:", ""))[0]
        return str(data.parameters.get(name, "0"))

    return re.sub(r"[<{]([^>}]+)[>}]", value, path)


def call(session: requests.Session, server: Server, method: str, path: str, data: Data) -> tuple[int, Any]:
    """Status and body; a call that would write has an empty body, which stock refuses."""
    url = server.url + path
    if method == "GET":
        answer = session.get(url, params=data.parameters, timeout=60)
    elif READS.search(path):
        answer = session.post(url, json=data.parameters, timeout=60)
    else:  # its message may hold what it made up, such as a run's name
        return session.post(url, json={}, timeout=60).status_code, None
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, answer.text
