"""What dies while 32 clients log takes no acknowledged metric with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.server.conftest import HEALTH, Serve, wait_until_gone
from tests.support.databases import BACKENDS, Backend, Database, Databases
from tests.support.load import assert_all_there, load
from tests.support.postgres import Postgres
from tests.support.processes import wait_until
from tests.support.servers import start_headrace
from tests.unit.traces.spans import body, span

pytestmark = pytest.mark.timeout(600)
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
def test_a_killed_worker_takes_no_span(backend: Backend, databases: Databases, serve: Serve) -> None:
    """Twelve traces in pieces, from clients that repeat what was not acknowledged: all there, the sums right."""
    database = databases.migrated(backend)
    database.execute(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)"
        " VALUES (7, 'traced', 'mlflow-artifacts:/7', 'active', 'default')"
    )
    server = serve(*options(database))
    traces, pieces = [bytes([number]) * 16 for number in range(1, 13)], 40
    headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "7"}
    done: list[int] = []

    def send(number: int) -> None:
        usage = {"mlflow.chat.tokenUsage": '{"input_tokens": 1}'} if number else {}
        parent = bytes([1]) * 8 if number else b""
        for trace_id in traces:
            content = body(span(usage, trace_id=trace_id, span_id=bytes([number + 1]) * 8, parent_id=parent))
            status = 0
            while status != 200:
                with suppress(requests.ConnectionError):
                    status = requests.post(f"{server.url}/v1/traces", content, headers=headers, timeout=60).status_code
                assert status in (0, 200, 502, 503)
            done.append(number)

    def kill_after(acknowledged: int) -> None:
        wait_until(lambda: len(done) > acknowledged, "spans were acknowledged")
        server.workers[0].kill()

    with ThreadPoolExecutor(6) as pool:
        sent = [pool.submit(send, number) for number in range(pieces)]
        kill_after(120)
        kill_after(240)
        for each in sent:
            each.result()
    found = database.query("SELECT status, input_tokens FROM trace_info")
    assert found == [{"status": "OK", "input_tokens": pieces - 1}] * len(traces)
    assert database.query("SELECT count(*) AS spans FROM spans") == [{"spans": pieces * len(traces)}]


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
