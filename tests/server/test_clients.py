"""Unchanged clients, the newest and an old one, do through Headrace what a training script does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import BACKENDS, Backend, Databases
from tests.support.fork_server import client_environment
from tests.support.processes import clean_environment
from tests.support.servers import Server, start_headrace

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("client_script.py")
CLIENTS = {"newest": Path(sys.executable), "old": ROOT / ".venv-old-client" / "bin" / "python"}


@pytest.fixture(scope="module", params=BACKENDS)
def server(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    backend: Backend = request.param
    server = start_headrace(databases.migrated(backend), tmp_path_factory.mktemp("clients"), until="/health")
    yield server
    server.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_training_script_does(server: Server, client: str) -> None:
    environment = client_environment() if client == "newest" else clean_environment()
    done = subprocess.run(
        [CLIENTS[client], SCRIPT, server.url, f"by the {client}"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | {"MLFLOW_TRACKING_USERNAME": "", "GIT_PYTHON_REFRESH": "quiet", "USER": "me"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    major = int(found.pop("version").split(".")[0])
    assert (major == 2) == (client == "old")
    assert (
        found.pop("tags").items()
        >= {
            "team": "größe",
            "stage": "second",
            "batch": "yes",
            "mlflow.note.content": "A *note*.",
            "mlflow.runName": "renamed",
        }.items()
    )
    assert found == {
        "status": "FINISHED",
        "name": "renamed",
        "ended": True,
        "params": {"depth": "4", "rate": "0.005", "objective": "binary:logistic"}
        | {f"p{i}": str(i) for i in range(100)},
        "metrics": {
            "loss": "0.2",
            "nan": "nan",
            "inf": "1.7976931348623157e+308",
            "-inf": "-1.7976931348623157e+308",
            "F1": "0.5",
            "batch": "999.0",
        },
        "changed param": "INVALID_PARAMETER_VALUE",
        "losses": [[step, 1 / (step + 1)] for step in range(5)],
        "points": 1000,
        "parent": True,
        "inner": "FAILED",
        "found": 1,
    }
