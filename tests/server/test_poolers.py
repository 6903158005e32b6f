"""Behind PgBouncer, in session and in transaction mode, whatever it makes of parameters: all native, nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import requests

from headrace.database_url import PostgresURL, parse
from headrace.db import postgres_indexes
from headrace.db.connections import READING, WRITING, Connection, PooledConnection, connect
from headrace.db.indexes import HISTORIES, INDEXES
from headrace.db.postgres import PostgresDatabase
from headrace.db.query import Query
from headrace.errors import Unavailable
from tests.server.conftest import Serve
from tests.support.databases import Databases
from tests.support.load import assert_all_there, load
from tests.support.pgbouncer import PROGRAM, Mode, PgBouncer, version
from tests.support.postgres import Postgres

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed")
MODES: tuple[Mode, ...] = ("session", "transaction")
IGNORED = "ignore_startup_parameters"
SETTINGS = {
    "none": {},
    "usual": {IGNORED: "extra_float_digits"},
    "all that Headrace could send": {
        IGNORED: "extra_float_digits,jit,lock_timeout,idle_in_transaction_session_timeout,statement_timeout,"
        "enable_seqscan,plan_cache_mode"
    },
    "prepared": {"max_prepared_statements": "3"},  # fewer than there are: it gives some up
    "reset": {"server_reset_query": "DISCARD ALL", "server_reset_query_always": "1"},
    "short-lived": {"server_lifetime": "1", "server_idle_timeout": "1", "server_round_robin": "1"},
}
Start = Callable[..., PgBouncer]


@pytest.fixture
def start(postgres: Postgres) -> Iterator[Start]:
    started: list[PgBouncer] = []

    def start(mode: Mode, settings: Mapping[str, str] | None = None, server_connections: int = 20) -> PgBouncer:
        started.append(PgBouncer(postgres, mode, server_connections=server_connections, settings=settings))
        started[-1].start()
        return started[-1]

    yield start
    for pooler in started:
        pooler.remove()


def url_of(uri: str) -> PostgresURL:
    url = parse(uri, {})
    assert isinstance(url, PostgresURL)
    return url


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("mode", MODES)
async def test_it_is_found_out_and_settings_come_with_each_transaction(
    mode: Mode, settings: str, start: Start, databases: Databases
) -> None:
    if settings == "prepared" and version() < (1, 21):
        pytest.skip("PgBouncer 1.21 was the first with max_prepared_statements")
    database = databases.empty("postgresql")
    pooler = start(mode, SETTINGS[settings], server_connections=2)
    url = url_of(pooler.uri(database.name) + "?options=-csearch_path%3Dmine,public%20-cwork_mem%3D5MB")
    database.execute("CREATE SCHEMA mine")

    async def ask(connection: Connection, rounds: int) -> None:
        for number in range(rounds):
            row = await connection.fetchrow(
                "SELECT $1::int, current_setting('lock_timeout'), current_setting('search_path'), "
                "current_setting('work_mem'), current_setting('jit')",
                number,
            )
            assert tuple(row) == (number, "5s", "mine, public", "5MB", "off")
            async with connection.transaction():
                assert await connection.fetchval("SELECT current_setting('enable_seqscan')") == "off"
                assert await connection.fetchval("SELECT $1::text", "two") == "two"
            assert await connection.fetch_replanned("SELECT $1::text", "plan") == [("plan",)]

    connections = [await connect(url, WRITING) for _ in range(2 if mode == "session" else 8)]
    try:
        assert all(isinstance(connection, PooledConnection) for connection in connections)
        await asyncio.gather(*(ask(connection, 20) for connection in connections))
    finally:
        for connection in connections:
            await connection.close()


async def test_a_direct_connection_is_found_out_too(databases: Databases) -> None:
    connection = await connect(databases.empty("postgresql").url, READING)
    assert not connection.pooled
    assert await connection.fetchval("SELECT current_setting('statement_timeout')") == "1min"
    await connection.close()


async def test_one_without_transactions_is_said(start: Start, databases: Databases) -> None:
    url = url_of(start("statement").uri(databases.migrated("postgresql").name))
    db = PostgresDatabase(url, queue_limit=10, builds_indexes=False)
    await db.connect()
    try:
        one = Query("SELECT 1", [])
        assert [tuple(row) for row in await db.rows(one)] == [(1,)]
        with pytest.raises(Unavailable, match="pool_mode = statement allows no transactions"):
            await db.transact([one, one])
    finally:
        await db.close()


async def test_indexes_are_built_and_no_lock_stays(start: Start, databases: Databases) -> None:
    database = databases.migrated("postgresql")
    url = url_of(start("transaction").uri(database.name))
    await asyncio.gather(*(postgres_indexes.build(url) for _ in range(2)))
    await postgres_indexes.build_or_fail(url)
    assert await postgres_indexes.existing(url) == {index.name: True for index in (*INDEXES, HISTORIES)}
    assert not database.query("SELECT * FROM pg_locks WHERE locktype = 'advisory'")


@pytest.mark.parametrize("mode", MODES)
def test_a_server_behind_it(mode: Mode, start: Start, databases: Databases, serve: Serve) -> None:
    """Everything is native under load, stock works, a restart of the pooler loses nothing, a second start is quick."""
    database = databases.migrated("postgresql")
    pooler = start(mode, SETTINGS["usual"])
    options = ["--backend-store-uri", pooler.uri(database.name), "--workers", "2", "--stock", "lazy"]
    server = serve(*options)
    with load(server.url) as running:
        running.wait_for_progress()
        answer = server.get(f"/api/2.0/mlflow/runs/get?run_id={running.clients[0].run_id}")
        assert (answer.status_code, answer.headers["headrace-answered-by"]) == (200, "native")
        body = {"experiment_ids": ["0"], "filter": "metrics.m > 0", "max_results": 5}
        for _ in range(10):  # from its sixth use on a statement would be kept
            answer = requests.post(f"{server.url}/api/2.0/mlflow/runs/search", json=body, timeout=60)
            assert (answer.status_code, answer.headers["headrace-answered-by"]) == (200, "native")
        pooler.stop()
        pooler.start()
        running.wait_for_progress()
    assert not any(client.failure for client in running.clients)
    assert_all_there(database, running)
    assert "is stock's alone" not in server.log
    second = serve(*options)
    assert second.get("/api/2.0/mlflow/experiments/search?max_results=1").status_code == 200
    assert not database.query("SELECT * FROM pg_locks WHERE locktype = 'advisory'")
