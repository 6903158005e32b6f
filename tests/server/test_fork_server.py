"""A stock server that is a fork (tests/support/fork_server.py) is what a new process would be."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from tests.support import fork_server
from tests.support.databases import Databases
from tests.support.fork_server import fork_of
from tests.support.processes import clean_environment, wait_until
from tests.support.servers import PASSED_THROUGH, SCRIPTS, Server, start_headrace, start_stock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks need Linux's prctl and pidfd_open")
ORIGIN = "https://pages.example.com"


def test_it_is_a_fork_and_ends_with_its_stand_in(databases: Databases, tmp_path: Path) -> None:
    server = start_stock(databases.migrated("sqlite"), tmp_path)
    fork = fork_of(psutil.Process(server.process.pid))
    assert fork is not None
    assert "fork_server" in " ".join(fork.cmdline())
    assert fork.cwd() == str(tmp_path)
    server.process.stop(signal.SIGKILL)
    wait_until(lambda: not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE, "the fork has ended")


def test_signals_reach_it_and_its_end_is_told(databases: Databases, tmp_path: Path) -> None:
    server = start_stock(databases.migrated("sqlite"), tmp_path)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait() == -signal.SIGTERM
    assert "Application shutdown complete" in server.process.tail()
    with pytest.raises(AssertionError, match="ended with 2 before"):
        start_stock(databases.migrated("sqlite"), tmp_path, "--no-such-option")


@pytest.mark.parametrize("start", [start_stock, start_headrace])
def test_what_mlflow_reads_when_imported_counts(
    start: Callable[..., Server], databases: Databases, tmp_path: Path
) -> None:
    """As this option, which ends up in a variable."""

    def allowed(*options: str) -> str | None:
        server = start(databases.migrated("sqlite"), tmp_path, *options)
        try:
            answer = requests.get(server.url + PASSED_THROUGH, headers={"Origin": ORIGIN}, timeout=60)
        finally:
            server.stop()
        return answer.headers.get("access-control-allow-origin")

    assert (allowed(), allowed("--cors-allowed-origins", ORIGIN)) == (None, ORIGIN)


def test_where_it_can_not_be_a_fork_it_is_a_new_process() -> None:
    """Whose children may be forks: it has the variable still."""
    env = clean_environment() | fork_server.environment("aws") | {"PYTHON_OF_NO_MEANING": "1"}
    command = [str(SCRIPTS / "headrace"), "aws", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: headrace aws")
