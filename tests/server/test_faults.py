"""What dies while 32 clients log takes no acknowledged metric with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.server.conftest import HEALTH, Serve, wait_until_gone
from tests.support.databases import BACKENDS, Backend, Database, Databases
from tests.support.load import assert_all_there, load
from tests.support.postgres import Postgres
from tests.support.processes import wait_until
from tests.support.servers import start_headrace

pytestmark = pytest.mark.timeout(150)
# SQLite takes one.
WORKERS: Mapping[Backend, int] = {"postgresql": 2, "sqlite": 1}


def options(database: Database) -> list[str]:
    return ["--backend-store-uri", database.uri, "--workers", str(WORKERS[database.backend]), "--stock", "lazy"]


@pytest.fixture(scope="module")
def spare_postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def own_postgres(spare_postgres: Postgres) -> Iterator[Postgres]:
    """A server that the test may stop."""
    spare_postgres.start()
    yield spare_postgres
    spare_postgres.stop()


@pytest.fixture(scope="module")
def on_own_postgres(
    spare_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, made_by_stock: Path
) -> Callable[[], Database]:
    databases = Databases(spare_postgres, tmp_path_factory.mktemp("own"), made_by_stock)
    return lambda: databases.migrated("postgresql")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_worker(backend: Backend, databases: Databases, serve: Serve) -> None:
    database = databases.migrated(backend)
    server = serve(*options(database))
    with load(server.url) as running:
        running.wait_for_progress()
        killed = server.workers
        for _ in range(2):
            server.workers[0].kill()
            running.wait_for_progress()
    wait_until(lambda: len(server.workers) == WORKERS[backend], "there are as many workers again")
    assert {worker.pid for worker in server.workers} != {worker.pid for worker in killed}
    assert_all_there(database, running)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_server(backend: Backend, databases: Databases, serve: Serve, tmp_path: Path) -> None:
    database = databases.migrated(backend)
    server = serve(*options(database))
    children = psutil.Process(server.process.pid).children(recursive=True)
    port = int(server.url.rsplit(":", 1)[1])
    with ExitStack() as stack, load(server.url) as running:
        running.wait_for_progress()
        os.kill(server.process.pid, signal.SIGKILL)
        # its children notice by themselves; what they had begun they end
        wait_until_gone(children)
        again = start_headrace(database, tmp_path, *options(database)[2:], port=port, until=HEALTH)
        stack.callback(again.stop)
        running.wait_for_progress()
    assert_all_there(database, running)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["in order", "like a crash"])
def test_postgresql_stopped_and_started(
    how: signal.Signals, own_postgres: Postgres, on_own_postgres: Callable[[], Database], serve: Serve
) -> None:
    """A short outage: logging waits for the database, reading says at once that it is away."""
    database = on_own_postgres()
    server = serve(*options(database))
    with load(server.url) as running:
        running.wait_for_progress()
        own_postgres.stop(how)
        a_run = f"/api/2.0/mlflow/runs/get?run_id={running.clients[0].run_id}"
        wait_until(lambda: server.answers(a_run, status=503), "the outage is noticed")
        assert server.get(HEALTH).status_code == 200
        own_postgres.start()
        running.wait_for_progress()
    assert not any(client.refusals for client in running.clients)
    assert_all_there(database, running)


def test_postgresql_away_for_longer(
    own_postgres: Postgres, on_own_postgres: Callable[[], Database], serve: Serve
) -> None:
    """A long outage: clients are told to come back, and nothing is doubled when they do."""
    database = on_own_postgres()
    server = serve(*options(database))
    with load(server.url) as running:
        running.wait_for_progress()
        own_postgres.stop()
        wait_until(lambda: all(client.refusals for client in running.clients), "every client is told to wait")
        own_postgres.start()
        running.wait_for_progress()
    assert {refusal for client in running.clients for refusal in client.refusals} == {(503, "1")}
    assert_all_there(database, running)
