"""The slim image's environment: Headrace without stock. MLflow's tables are made with its own migrations all the same,
and what needs no stock works."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import BACKENDS, Backend, Databases
from tests.support.fork_server import client_environment
from tests.support.processes import GUESSED_REQUIREMENTS, Process, free_port
from tests.support.servers import Server

ROOT = Path(__file__).resolve().parents[2]
SLIM = ROOT / ".venv-slim" / "bin" / "python"


@pytest.fixture(scope="module", params=BACKENDS)
def server(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """On a database without tables."""
    assert SLIM.exists(), "run: make .venv-slim/.ready"
    backend: Backend = request.param
    folder, port = tmp_path_factory.mktemp("slim"), free_port()
    command: list[str | Path] = [SLIM, "-m", "headrace.cli.main", "serve", "--port", str(port), "--stock", "never"]
    command += ["--backend-store-uri", databases.empty(backend).uri]
    process = Process(command, folder / "log", env={"PYTHONPATH": str(ROOT / "src")}, cwd=folder)
    server = Server("headrace", f"http://127.0.0.1:{port}", process)
    process.wait_until(lambda: server.answers("/health"), "Headrace answers")
    yield server
    server.stop()


def test_the_fourteen_flows(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "server" / "flows.py", server.url, "new"],
        input="\n" * 14,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=client_environment()
        | GUESSED_REQUIREMENTS
        | {"GIT_PYTHON_REFRESH": "quiet", "MLFLOW_TRACKING_USERNAME": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("begins: ") == 14
    log = server.process.log.read_text(errors="replace")
    assert "answered 501" not in log
    assert not re.findall(r".*(?:No module named|ImportError).*", log)


def test_the_page_is_there(server: Server) -> None:
    assert server.answers("/")
    assert server.answers("/api/3.0/mlflow/server-info")


def test_the_slim_lock_is_the_images_and_less() -> None:
    slim, whole = ((ROOT / "requirements" / f"{name}.txt").read_text() for name in ("slim", "container"))
    pins = [set(re.findall(r"^[a-z0-9._-]+(?:\[[a-z,]+\])?==[^ ;]+", lock, re.M)) for lock in (slim, whole)]
    assert pins[0] < pins[1]
    left_out = (ROOT / "requirements" / "slim-without.txt").read_text().splitlines()
    assert {pin.split("==")[0] for pin in pins[0]}.isdisjoint(left_out)
