"""`/ready` says whether requests can be answered, `/health` only that the server runs; HEAD as GET."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from tests.server.conftest import Serve, Serving
from tests.support.databases import Databases
from tests.support.faults import TcpProxy
from tests.support.postgres import Postgres
from tests.support.processes import PATIENCE_SECONDS, wait_until

READY = "/ready"


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[TcpProxy]:
    proxy = TcpProxy(postgres.port)
    yield proxy
    with suppress(OSError):  # a test has done it
        proxy.stop()


def through(proxy: TcpProxy, name: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"


def test_it_is_not_ready_while_the_database_is_silent(databases: Databases, proxy: TcpProxy, serve: Serve) -> None:
    server = serve("--backend-store-uri", through(proxy, databases.migrated("postgresql").name), until=READY)
    assert server.get(READY).headers["headrace-answered-by"] == "native"
    proxy.silent = True
    proxy.swallow()
    wait_until(lambda: server.answers(READY, 503), "it is not ready any more")
    answer = answered_in_time(server)
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert re.search("PostgreSQL|database", answer.json()["message"])
    assert server.get("/health").status_code == 200
    proxy.silent = False
    proxy.reset()
    wait_until(lambda: server.answers(READY), "the database answers again")
    assert server.stock is None, "nothing of it is stock's"


def answered_in_time(server: Serving) -> requests.Response:
    """Balancers wait 5 s: once is enough, as a fault strikes each time, and a busy machine some."""
    for _ in range(5):
        with suppress(requests.Timeout):
            return server.get(READY, timeout=5)
    raise AssertionError("no answer within 5 s, five times")


def test_a_database_that_is_restored_under_it(databases: Databases, postgres: Postgres, serve: Serve) -> None:
    """While the tables are away clients are told to come back: stock would make new ones, amid the restore."""
    database = databases.migrated("postgresql")
    server = serve("--backend-store-uri", database.uri, "--stock", "lazy", until=READY)

    def sent(path: str, message: dict[str, object]) -> requests.Response:
        return requests.post(f"{server.url}/api/2.0/mlflow/{path}", json=message, timeout=60)

    run = sent("runs/create", {"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    everyday: list[tuple[str, dict[str, object]]] = [
        ("runs/search", {"experiment_ids": ["0"]}),
        ("runs/create", {"experiment_id": "0"}),
        ("runs/log-metric", {"run_id": run, "key": "m", "value": 1, "timestamp": 1}),
        ("experiments/set-experiment-tag", {"experiment_id": "0", "key": "k", "value": "v"}),
    ]
    assert [sent(*each).status_code for each in everyday] == [200] * 4
    dump = postgres.dump(database.name)
    database.execute("DROP SCHEMA public CASCADE")
    database.execute("CREATE SCHEMA public")
    for each in everyday:
        answer = sent(*each)
        assert (answer.status_code, "being restored" in answer.text) == (503, True), answer.text
        assert answer.headers["headrace-answered-by"] == "native"
    wait_until(lambda: server.answers(READY, 503), "it is not ready any more")
    assert server.stock is None
    postgres.load(database.name, dump)
    wait_until(lambda: server.answers(READY), "it is ready again")
    assert [sent(*each).status_code for each in everyday] == [200] * 4


def test_it_is_not_ready_while_the_database_refuses(databases: Databases, proxy: TcpProxy, serve: Serve) -> None:
    server = serve("--backend-store-uri", through(proxy, databases.migrated("postgresql").name), until=READY)
    proxy.stop()
    wait_until(lambda: server.answers(READY, 503), "it is not ready any more")
    assert server.answers("/health")


def test_told_to_stop_it_is_not_ready_first_and_drains_then(databases: Databases, serve: Serve) -> None:
    uri = databases.migrated("sqlite").uri
    server = serve("--backend-store-uri", uri, "--shutdown-delay", "600", "--shutdown-timeout", "600")
    assert server.answers(READY)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.answers(READY, 503), "it is not ready any more")
    assert created(server) == 200, "who comes all the same is answered, over a new connection"
    assert server.answers("/health")
    server.process.send_signal(signal.SIGTERM)  # does not wait
    assert server.process.wait(PATIENCE_SECONDS) == 0


def created(server: Serving) -> int:
    answer = requests.post(f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": "late"}, timeout=60)
    return answer.status_code


def test_without_a_delay_a_stop_is_as_quick_as_it_was(databases: Databases, serve: Serve) -> None:
    server = serve("--backend-store-uri", databases.migrated("sqlite").uri, "--shutdown-timeout", "600")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_SECONDS) == 0


def test_head_is_answered_as_get_without_the_body(databases: Databases, serve: Serve) -> None:
    server = serve("--backend-store-uri", databases.migrated("sqlite").uri, "--stock", "never")
    paths = ("/health", READY, "/version", "/", "/api/2.0/mlflow/experiments/get?experiment_id=0")
    for path in paths:
        got = server.get(path)
        address = server.url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            connection.request("HEAD", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b""), path
            assert answer.headers["headrace-answered-by"] == "native"
            assert answer.headers["content-length"] == str(len(got.content)) or path == "/"
