"""An AWS account for a test: moto's server with what it lacks, the plugin's stand-in, and the command as a process."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import requests

from headrace.aws import database
from headrace.aws.client import Cloud
from headrace.errors import SchemaOutOfDate
from tests.support import fork_server, session_manager_plugin
from tests.support.processes import Process, clean_environment, free_port
from tests.support.servers import SCRIPTS, Server

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": REGION}

# Each Cloud's clients would read AWS's descriptions of its services anew: 0.5 s of processor time, 0.1 s without.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)


class Account:
    """Moto's account, and how `headrace aws` is run against it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.tunnels: dict[str, int] = {}
        self._cloud: Cloud | None = None
        session_manager_plugin.install(folder)

    def environment(self, plugin: bool = True) -> dict[str, str]:
        clean = clean_environment()
        path = f"{self.folder}:{clean['PATH']}" if plugin else clean["PATH"]
        # the tests' PostgreSQL has no TLS
        given = {"AWS_ENDPOINT_URL": self.url, "TUNNELS": json.dumps(self.tunnels), "PGSSLMODE": "prefer"}
        return {**clean, **fork_server.environment("aws"), **KEYS, **given, "PATH": path}

    def run(self, *arguments: str, given: str = "", plugin: bool = True) -> subprocess.CompletedProcess[str]:
        """`headrace aws ...`, to its end."""
        return subprocess.run(
            [SCRIPTS / "headrace", "aws", *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            env=self.environment(plugin),
        )

    def cloud(self) -> Cloud:
        """One for all who ask, some again and again."""
        if self._cloud is None:
            self._cloud = Cloud(REGION, endpoint_url=self.url)
        return self._cloud


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """One that answers only what a Stubber of its client gives it, and waits for nothing."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr("headrace.aws.client.time.sleep", lambda _: None)
    return Cloud("us-east-1")


@pytest.fixture(scope="session")
def moto_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp("moto-aws") / "log"
    command = [sys.executable, "-m", "tests.support.moto_aws", "--host", "127.0.0.1", "--port", str(port)]
    server = Server("moto", f"http://127.0.0.1:{port}", Process(command, log, cwd=ROOT))
    server.process.wait_until(lambda: server.answers("/moto-api/"), "moto answers")
    yield server
    server.stop()


@pytest.fixture
def account(moto_aws: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An empty account."""
    requests.post(f"{moto_aws.url}/moto-api/reset", timeout=60)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return Account(moto_aws.url, tmp_path)


@pytest.fixture
def said() -> list[str]:
    """What the code under test tells people."""
    return []


@pytest.fixture
def say(said: list[str]) -> Callable[[str], None]:
    return said.append


@pytest.fixture
def older_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """The master reaches the deployment's database, whose schema is of an older MLflow."""

    @contextmanager
    def as_master(*_: Any) -> Iterator[None]:
        yield

    def prepare(*_: Any) -> None:
        raise SchemaOutOfDate("The schema is of an older MLflow.")

    monkeypatch.setattr(database, "login", lambda *_: ("headrace", "secret"))
    monkeypatch.setattr(database, "as_master", as_master)
    monkeypatch.setattr("headrace.database.prepare", prepare)
