"""`--read-replica-backend-store-uri`: a real standby answers searches and histories, never without what was written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from headrace.db.connections import READ_SECONDS
from headrace.db.replica import BEHIND_SECONDS
from tests.server.conftest import Serve, Serving, run_headrace
from tests.support.databases import Database, Databases
from tests.support.faults import TcpProxy
from tests.support.load import create_run
from tests.support.postgres import Postgres
from tests.support.processes import wait_until

API = "/api/2.0/mlflow/"
USED = "a read replica answers"


@pytest.fixture(scope="module")
def database(databases: Databases) -> Database:
    return databases.migrated("postgresql")


@pytest.fixture(scope="module")
def standby(postgres: Postgres, database: Database) -> Iterator[Postgres]:
    standby = Postgres(primary=postgres)
    standby.start(log_statement="all")
    yield standby
    standby.remove()


@contextmanager
def paused(standby: Postgres) -> Iterator[None]:
    """It goes on to answer, as it was."""
    standby.execute("SELECT pg_wal_replay_pause()")
    yield
    standby.execute("SELECT pg_wal_replay_resume()")


class Client:
    def __init__(self, server: Serving) -> None:
        self.url, self.session = server.url + API, requests.Session()
        self.run_id, self.count = create_run(server.url), 0

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.session.request(method, self.url + path, timeout=60, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["headrace-answered-by"] == "native"
        return answer.json()

    def write(self) -> None:
        self.count += 1
        point = {"run_id": self.run_id, "key": "m", "value": self.count, "timestamp": self.count, "step": self.count}
        self.ask("POST", "runs/log-metric", json=point)

    def read(self) -> tuple[int, int]:
        """How many points there are, by the history and by the search."""
        history = self.ask("GET", "metrics/get-history", params={"run_id": self.run_id, "metric_key": "m"})
        search = {"experiment_ids": ["0"], "filter": f"attributes.run_id = '{self.run_id}'"}
        (run,) = self.ask("POST", "runs/search", json=search)["runs"]
        return len(history.get("metrics", ())), int(run["data"]["metrics"][0]["value"])


def served(serve: Serve, database: Database, port: int) -> tuple[Serving, Client]:
    replica = f"postgresql://postgres@127.0.0.1:{port}/{database.name}"
    server = serve("--backend-store-uri", database.uri, "--read-replica-backend-store-uri", replica, until="/ready")
    return server, Client(server)


def quickest_read(client: Client) -> float:
    """Its seconds, of ten after a write each: what keeps one waiting keeps them all, and a busy machine some."""
    seconds = []
    for _ in range(10):
        client.write()
        since = time.monotonic()
        assert client.read() == (client.count, client.count)
        seconds.append(time.monotonic() - since)
    return min(seconds)


def answered_by(standby: Postgres) -> int:
    """Searches and histories that it has answered."""
    return sum("FROM metrics" in line or "FROM runs" in line for line in standby.log.splitlines())


def test_what_was_written_is_read_back_wherever_the_replica_is(
    serve: Serve, database: Database, standby: Postgres
) -> None:
    server, client = served(serve, database, standby.port)
    wait_until(lambda: USED in server.log, "the replica is used")
    before = answered_by(standby)
    for _ in range(100):
        client.write()
        assert client.read() == (client.count, client.count)
    assert answered_by(standby) - before > 100, "the replica has answered most of it"

    with paused(standby):
        client.write()
        assert client.read() == (client.count, client.count)
        before = answered_by(standby)
        assert quickest_read(client) < BEHIND_SECONDS, "only the first search waits for a replica that is behind"
        assert answered_by(standby) == before

    def used_again() -> bool:
        client.read()
        return answered_by(standby) > before

    wait_until(used_again, "the replica has caught up and is used")
    assert server.stock is None


def test_a_replica_that_is_lost_is_missed_by_nobody(serve: Serve, database: Database, standby: Postgres) -> None:
    way = TcpProxy(standby.port)
    server, client = served(serve, database, way.port)
    wait_until(lambda: USED in server.log, "the replica is used")
    client.write()
    for fault in (way.reset, way.swallow):
        before = server.log.count(USED)
        way.silent = fault == way.swallow  # new connections, too
        fault()
        since = time.monotonic()
        assert client.read() == (client.count, client.count)
        assert time.monotonic() - since < READ_SECONDS
        client.write()
        assert client.read() == (client.count, client.count)
        if way.silent:
            wait_until(lambda: "the primary answers" in server.log, "the log says so")
            assert quickest_read(client) < BEHIND_SECONDS, "nobody waits for a replica that is known to be away"
            way.silent = False
            way.reset()
            wait_until(lambda: server.log.count(USED) > before, "it is used again")  # noqa: B023
    way.stop()
    assert client.read() == (client.count, client.count)


def test_a_server_starts_without_its_replica_and_uses_no_stranger(
    serve: Serve, databases: Databases, database: Database, postgres: Postgres
) -> None:
    """The primary itself is no standby, and another cluster would answer with other runs."""
    for port, why in ((1, "Connection refused"), (postgres.port, "is no standby that says how far it is")):
        server, client = served(serve, database, port)
        client.write()
        assert client.read() == (1, 1)
        wait_until(lambda: why in server.log, "the log says why")  # noqa: B023
        assert USED not in server.log


def test_a_standby_of_another_cluster_is_not_used(serve: Serve, databases: Databases, standby: Postgres) -> None:
    other = Postgres()
    try:
        other.start()
        name = other.create_database()
        uri = f"postgresql://postgres@127.0.0.1:{other.port}/{name}"
        replica = f"postgresql://postgres@127.0.0.1:{standby.port}/postgres"
        server = serve("--backend-store-uri", uri, "--read-replica-backend-store-uri", replica, until="/ready")
        wait_until(lambda: "is of another cluster than --backend-store-uri" in server.log, "the log says why")
        client = Client(server)
        client.write()
        assert client.read() == (1, 1)
        assert USED not in server.log
    finally:
        other.remove()


def test_one_that_was_promoted_is_no_replica_any_more(serve: Serve, database: Database, postgres: Postgres) -> None:
    standby = Postgres(primary=postgres)
    try:
        standby.start()
        server, client = served(serve, database, standby.port)
        wait_until(lambda: USED in server.log, "the replica is used")
        standby.execute("SELECT pg_promote()")
        client.write()
        assert client.read() == (client.count, client.count)
        wait_until(lambda: "is no standby" in server.log, "the log says why")
    finally:
        standby.remove()


def test_sqlite_has_no_replicas(tmp_path: Any) -> None:
    done = run_headrace("serve", "--read-replica-backend-store-uri", "postgresql://u@h/d", cwd=tmp_path)
    assert done.returncode == 2
    assert "both must be postgresql://" in done.stderr
