"""`headrace aws rotate` with a real PostgreSQL that asks for passwords, and a real server of two workers and stock.

Moto is Systems Manager's parameters. Run Command, the tunnel and Docker are stand-ins: the script that a host gets is
run by bash here, with a `docker` that leads to the server's process.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests

from headrace.aws import database as aws_database
from headrace.aws import execute, hosts, rotate
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.aws.stacks import Stack
from headrace.errors import AwsError
from headrace.server_role import create_server_role
from headrace.settings import Settings
from tests.aws.conftest import KEYS, Account
from tests.support.databases import Databases
from tests.support.postgres import ROTATED, Postgres
from tests.support.processes import Process, free_port
from tests.support.servers import PASSED_THROUGH, SCRIPTS, STOCK_SECONDS, Server

FIRST, TOKEN = "first: password\\", "t" * 40
KEY = "alias/aws/ssm"
DATA = Stack("lab-data", "CREATE_COMPLETE", {}, {"KeyArn": KEY})
APP = Stack("lab-app", "CREATE_COMPLETE", {}, {})


class Place:
    """A deployment: the server, its role in the database, its parameters."""

    def __init__(self, account: Account, postgres: Postgres, databases: Databases, folder: Path) -> None:
        self.cloud, self.postgres, self.folder = account.cloud(), postgres, folder
        self.database = databases.migrated("postgresql")
        create_server_role(Settings(backend_store_uri=self.database.uri), ROTATED, FIRST)
        host = {"DB_HOST": "127.0.0.1", "DB_PORT": str(postgres.port), "DB_NAME": self.database.name}
        for name, value in (host | {"DB_USER": ROTATED, "BUCKET": f"{folder}/artifacts"}).items():
            self.cloud.put_parameter(f"/lab/{name}", value.replace(f"{folder}", f"file://{folder}"), "a test's")
        for name, value in (("DB_PASS", FIRST), ("ADMIN_TOKEN", TOKEN)):
            self.cloud.put_secret(f"/lab/{name}", value, KEY)
        environment = {
            **KEYS,
            "AWS_ENDPOINT_URL": account.url,
            "HEADRACE_SSM_PREFIX": "/lab",
            "HEADRACE_AUTH": "true",
            "TMPDIR": str(folder),
        }
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--stock-wait", str(STOCK_SECONDS)]
        command: list[str | Path] = [SCRIPTS / "headrace", "serve", *options]
        process = Process(command, folder / "headrace.log", env=environment, cwd=folder)
        self.server = Server("headrace", f"http://127.0.0.1:{port}", process)
        process.wait_until(lambda: self.server.answers("/health"), "Headrace answers")
        (folder / "docker").write_text(
            f'#!/bin/bash\ncase $1 in exec) shift 2; exec "$@";; kill) kill -USR1 {process.pid};; esac\n'
        )
        (folder / "docker").chmod(0o755)

    def run(self, _cloud: Any, host: str, script: str, what: str, _say: Any) -> str:
        """Run Command."""
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "TMPDIR": str(self.folder)}
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


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: where a socket's would be longer than it may be, the server keeps its files elsewhere."""
    with tempfile.TemporaryDirectory(prefix="rotate-") as name:
        yield Path(name)


@pytest.fixture
def place(
    account: Account, postgres: Postgres, databases: Databases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    made = Place(account, postgres, databases, folder)
    monkeypatch.setattr(execute, "required", lambda _, name: {"lab-data": DATA, "lab-app": APP}[name])
    monkeypatch.setattr(hosts, "wait_online", lambda *_: [Host("i-1", "InService", "Healthy", True)])
    monkeypatch.setattr(hosts, "run", made.run)
    monkeypatch.setattr(aws_database, "as_master", made.as_master)
    yield made
    made.server.stop()
    made.database.execute(f"DROP OWNED BY {ROTATED}")
    postgres.execute(f"DROP ROLE {ROTATED}")


class Load:
    """Writes and reads all the time, while connections that rest are ended, so that others begin."""

    def __init__(self, place: Place) -> None:
        self.place, self.failed, self.written = place, [], 0  # type: tuple[Place, list[str], int]
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

    def _end_connections(self) -> None:
        while not self._stop.wait(0.2):
            self.place.database.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role AND state = 'idle' "
                "ORDER BY random() LIMIT 1",  # one at a time: a read that meets it asks another
                role=ROTATED,
            )


def test_no_request_fails_while_the_password_is_replaced(place: Place, said: list[str]) -> None:
    with Load(place) as load:
        for _ in range(2):
            before = load.written
            rotate.password(place.cloud, "lab", said.append)
            deadline = time.monotonic() + 30
            while load.written < before + 50 and time.monotonic() < deadline:
                time.sleep(0.05)
    assert load.failed == []
    assert load.written > 100
    now = place.cloud.secret("/lab/DB_PASS")
    assert now is not None
    assert (place.password_works(now), place.password_works(FIRST)) == (True, False)
    assert place.cloud.secret("/lab/DB_PASS_OLD") is None
    text = "".join(said) + place.server.process.tail(100_000)
    assert FIRST not in text
    assert now not in text
    for file in place.folder.glob("headrace-*/passfile"):
        assert file.stat().st_mode & 0o077 == 0


def test_broken_off_it_continues_with_the_same_password(
    place: Place, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off at each of its commands on a host: what is open lives on, what begins gets in, and so at its end.

    Of stock too, which tries anew where its connection has ended.
    """
    left = 0

    def breaks(*arguments: Any) -> str:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return place.run(*arguments)

    assert place.status(TOKEN, PASSED_THROUGH) == 200
    assert place.database.query(
        "SELECT 1 FROM pg_stat_activity WHERE usename = :role AND application_name = ''", role=ROTATED
    )
    for after in (1, 2, 3):
        assert place.status(TOKEN) == 200
        open_before = place.logged_in()
        left = after
        monkeypatch.setattr(hosts, "run", breaks)
        with pytest.raises(KeyboardInterrupt):
            rotate.password(place.cloud, "lab", said.append)
        assert place.status(TOKEN) == 200
        place.database.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role AND application_name = ''",
            role=ROTATED,
        )
        assert place.status(TOKEN, PASSED_THROUGH) == 200
        kept = place.cloud.secret("/lab/DB_PASS")
        monkeypatch.setattr(hosts, "run", place.run)
        rotate.password(place.cloud, "lab", said.append)
        now = place.cloud.secret("/lab/DB_PASS")
        assert now is not None
        assert (now == kept) is (after < 3), "only its last step was missing then: this is another rotation"
        assert place.password_works(now)
        assert open_before & place.logged_in()
        assert place.status(TOKEN) == 200


def test_the_administrators_old_token_works_until_it_is_ended(place: Place, said: list[str]) -> None:
    rotate.token(place.cloud, "lab", said.append)
    new = place.cloud.secret("/lab/ADMIN_TOKEN")
    assert new is not None
    assert new != TOKEN
    _until(lambda: place.status(new) == 200)
    assert place.status(TOKEN) == 200
    rotate.token(place.cloud, "lab", said.append)  # once more, since it was broken off
    assert place.cloud.secret("/lab/ADMIN_TOKEN") == new
    rotate.drop_old(place.cloud, "lab", rotate.TOKEN, said.append)
    _until(lambda: place.status(TOKEN) == 401)
    assert place.status(new) == 200


def test_a_server_of_before_is_told_and_nothing_is_changed(place: Place, said: list[str]) -> None:
    for file in place.folder.glob("headrace-*/secrets"):
        file.unlink()
    with pytest.raises(AwsError, match="`headrace aws upgrade` first"):
        rotate.password(place.cloud, "lab", said.append)
    assert place.password_works(FIRST)


def test_what_is_not_there_can_not_be_replaced(cloud: Cloud, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "required", lambda *_: DATA)
    monkeypatch.setattr(aws_database, "login", lambda *_: ("mlflow", "a password"))
    monkeypatch.setattr(Cloud, "secret", lambda *_: None)
    with pytest.raises(AwsError, match="`headrace aws up` makes it"):
        rotate.password(cloud, "lab", said.append)


def _until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
