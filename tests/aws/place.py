"""A deployment `lab` with a real PostgreSQL that asks for passwords, and a real server of two workers and stock.

Moto is Systems Manager's parameters. Run Command, the tunnel and Docker are stand-ins: the script that a host gets is
run by bash here, with a `docker` that leads to the server's process.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests

from headrace.aws import database as aws_database
from headrace.aws import execute, hosts
from headrace.aws.hosts import Host
from headrace.aws.stacks import Stack
from headrace.errors import AwsError
from headrace.server_role import create_server_role
from headrace.settings import Settings
from tests.aws.conftest import KEYS, Account
from tests.support import fork_server
from tests.support.databases import Databases
from tests.support.postgres import ROTATED, Postgres
from tests.support.processes import PATIENCE_SECONDS, Process, clean_environment, free_port, wait_until
from tests.support.rds import Rds
from tests.support.servers import SCRIPTS, STOCK_SECONDS, Server

FIRST, TOKEN = "first: password\\", "t" * 40
KEY = "alias/aws/ssm"
DATA = Stack("lab-data", "CREATE_COMPLETE", {}, {"KeyArn": KEY})
APP = Stack("lab-app", "CREATE_COMPLETE", {}, {})


class Place:
    """A deployment: the server, its role in the database, its parameters. `rds` stands before the database."""

    def __init__(
        self, account: Account, postgres: Postgres, databases: Databases, folder: Path, rds: Rds | None = None
    ) -> None:
        self.cloud, self.postgres, self.folder = account.cloud(), postgres, folder
        self.database = databases.migrated("postgresql")
        create_server_role(Settings(backend_store_uri=self.database.uri), ROTATED, FIRST)
        address, port = ("localhost", rds.port) if rds else ("127.0.0.1", postgres.port)
        host = {"DB_HOST": address, "DB_PORT": str(port), "DB_NAME": self.database.name, "DB_AUTH": "password"}
        for name, value in (host | {"DB_USER": ROTATED, "BUCKET": f"{folder}/artifacts"}).items():
            self.cloud.put_parameter(f"/lab/{name}", value.replace(f"{folder}", f"file://{folder}"), "a test's")
        for name, value in (("DB_PASS", FIRST), ("ADMIN_TOKEN", TOKEN)):
            self.cloud.put_secret(f"/lab/{name}", value, KEY)
        environment = {
            **KEYS,
            **fork_server.environment(),
            "AWS_ENDPOINT_URL": account.url,
            "HEADRACE_SSM_PREFIX": "/lab",
            "HEADRACE_AUTH": "true",
            "TMPDIR": str(folder),
            **({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(folder / "certificate")} if rds else {}),
        }
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--stock-wait", str(STOCK_SECONDS)]
        command: list[str | Path] = [SCRIPTS / "headrace", "serve", *options]
        self.environment = clean_environment() | environment
        process = Process(command, folder / "headrace.log", env=environment, cwd=folder)
        self.server = Server("headrace", f"http://127.0.0.1:{port}", process)
        process.wait_until(lambda: self.server.answers("/health"), "Headrace answers")
        (folder / "docker").write_text(
            f'#!/bin/bash\ncase $1 in exec) shift 2; exec "$@";; kill) kill -USR1 {process.pid};; esac\n'
        )
        (folder / "docker").chmod(0o755)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the stacks, Run Command and the tunnel."""
        monkeypatch.setattr(execute, "required", lambda _, name: {"lab-data": DATA, "lab-app": APP}[name])
        monkeypatch.setattr(hosts, "wait_online", lambda *_: [Host("i-1", "InService", "Healthy", True)])
        monkeypatch.setattr(hosts, "run", self.run)
        monkeypatch.setattr(aws_database, "as_master", self.as_master)

    def end(self) -> None:
        self.server.stop()
        self.database.execute(f"DROP OWNED BY {ROTATED}")
        self.postgres.execute(f"DROP ROLE {ROTATED}")

    def run(self, _cloud: Any, host: str, script: str, what: str, _say: Any) -> str:
        """Run Command."""
        environment = {**self.environment, "PATH": f"{self.folder}:{SCRIPTS}:/usr/bin:/bin"}
        done = subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise AwsError(f"{what} on {host}: {done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def as_master(self, *_: Any) -> Iterator[Settings]:
        yield Settings(backend_store_uri=self.database.uri)

    def password_works(self, password: str) -> bool:
        try:
            psycopg2.connect(
                host="127.0.0.1", port=self.postgres.port, user=ROTATED, password=password, dbname=self.database.name
            ).close()
        except psycopg2.OperationalError as error:
            return "password authentication failed" not in str(error)
        return True

    def status(self, token: str, path: str = "/api/2.0/mlflow/experiments/get?experiment_id=0") -> int:
        answer = requests.get(f"{self.server.url}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60)
        return answer.status_code

    def logged_in(self) -> set[int]:
        """The process ids of the role's connections."""
        rows = self.database.query("SELECT pid FROM pg_stat_activity WHERE usename = :role", role=ROTATED)
        return {row["pid"] for row in rows}


class Load:
    """Writes and reads all the time, while connections that rest are ended, so that others begin."""

    def __init__(self, place: Place) -> None:
        self.place, self.written, self.read = place, 0, 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._write, self._read, self._end_connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, writes: int = 50) -> None:
        """Wait for as many more; connections end and begin meanwhile."""
        enough = self.written + writes
        wait_until(lambda: self.written >= enough, f"{writes} more writes", 2 * PATIENCE_SECONDS)

    def _ask(self, session: requests.Session, method: str, path: str, **body: Any) -> Any:
        answer = session.request(method, f"{self.place.server.url}{path}", json=body or None, timeout=60)
        if answer.status_code != 200:
            self.failed.append(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        return session

    def _write(self) -> None:
        session = self._session()
        path = "/api/2.0/mlflow/runs"
        run = self._ask(session, "POST", f"{path}/create", experiment_id="0")["run"]["info"]["run_id"]
        while not self._stop.is_set():
            metric = {"run_id": run, "key": "m", "value": 1.0, "timestamp": 1, "step": self.written}
            self._ask(session, "POST", f"{path}/log-metric", **metric)
            self.written += 1

    def _read(self) -> None:
        session = self._session()
        while not self._stop.is_set():
            self._ask(session, "POST", "/api/2.0/mlflow/runs/search", experiment_ids=["0"])
            self.read += 1

    def _end_connections(self) -> None:
        written, read = -1, -1
        while not self._stop.wait(0.2):
            if written == self.written or read == self.read:
                continue  # who has met the last one has not yet begun another
            self.place.database.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role AND state = 'idle' "
                "ORDER BY random() LIMIT 1",  # one at a time: a read that meets it asks another
                role=ROTATED,
            )
            written, read = self.written, self.read
