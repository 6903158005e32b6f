"""Behind PgBouncer, in session and in transaction mode, whatever it makes of parameters: all native, nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import asyncpg
import pytest
import requests

from headrace.database_url import PostgresURL, parse
from headrace.db import postgres_indexes
from headrace.db.connections import READING, WRITING, Connection, connect
from headrace.db.indexes import ON_POSTGRESQL
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
KEEPS_NAMES = {"max_prepared_statements": "200"} if PROGRAM and version() >= (1, 21) else {}
INSERT = "INSERT INTO rows SELECT * FROM unnest($1::int[], $2::text[]) RETURNING id"
COUNT = "SELECT count(*) FROM rows"
Start = Callable[..., PgBouncer]
Clients = Callable[..., Awaitable[Connection]]


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
            assert tuple(row) == (number, "5s", "mine,public", "5MB", "off")
            async with connection.transaction():
                assert await connection.fetchval("SELECT current_setting('enable_seqscan')") == "off"
                assert await connection.fetchval("SELECT $1::text", "two") == "two"
            assert await connection.fetch_replanned("SELECT $1::text", "plan") == [("plan",)]

    connections = [await connect(url, WRITING) for _ in range(2 if mode == "session" else 8)]
    try:
        assert all(connection.pooled for connection in connections)
        await asyncio.gather(*(ask(connection, 20) for connection in connections))
    finally:
        for connection in connections:
            await connection.close()


@pytest.fixture
async def clients(start: Start, databases: Databases) -> AsyncIterator[Clients]:
    """Connections for writes to a database with a table, which share one of PgBouncer's unless it is told otherwise."""
    database = databases.empty("postgresql")
    database.execute("CREATE TABLE rows (id int PRIMARY KEY, said text)")
    poolers: dict[str, PgBouncer] = {}
    made: list[Connection] = []

    async def client(settings: str = "shared", options: str = "", **limits: str) -> Connection:
        if settings not in poolers:
            poolers[settings] = start("transaction", {**KEEPS_NAMES, **SETTINGS.get(settings, {})}, 1)
        url = url_of(poolers[settings].uri(database.name) + options)
        made.append(await connect(url, WRITING._replace(settings=WRITING.settings | limits)))
        return made[-1]

    yield client
    for connection in made:
        await connection.close()


async def test_a_statement_is_prepared_once_for_all(clients: Clients) -> None:
    """And planned for any number of rows, as its settings have it; a transaction may be the first that uses it."""
    one, two = await clients(), await clients()
    async with one.transaction():
        await one.fetch(INSERT, [1], ["x"])
    for number in range(12):
        await (one, two)[number % 2].fetch(INSERT, [10 + number, 30 + number], ["x", "x"])
    used = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1"
    # the second client gives its text to the connection anew, of which PgBouncer from 1.21 on says nothing
    assert await one.fetchrow(used, INSERT) == ((13, 0) if KEEPS_NAMES else (11, 0))
    assert await one.fetchval(COUNT) == 25


@pytest.mark.parametrize("settings", ["shared", "reset"])
async def test_what_is_not_there_is_prepared_and_nothing_is_done_twice(clients: Clients, settings: str) -> None:
    one, two, other = [await clients(settings) for _ in range(3)]
    for number in range(250):  # more than it is given the benefit of the doubt
        if settings == "shared" and number % 10 == 0:
            await other.execute("DISCARD ALL")
        assert await two.fetch(INSERT, [number], ["x"]) == [(number,)]
        assert await one.execute("UPDATE rows SET said = said || $1", "y") == f"UPDATE {number + 1}"
    said = await one.fetch("SELECT id, length(said) FROM rows ORDER BY id")
    assert [tuple(row) for row in said] == [(number, 251 - number) for number in range(250)]


async def test_a_value_that_cannot_be_sent_leaves_nothing_behind(clients: Clients) -> None:
    one = await clients()
    for _ in range(3):
        with pytest.raises(asyncpg.DataError):
            await one.fetch(INSERT, ["no number"], ["x"])
        await one.execute("SELECT 1")
        async with one.transaction():
            with pytest.raises(asyncpg.DataError):
                await one.fetch(INSERT, ["no number"], ["x"])
            await one.execute("SELECT 1")
    assert await one.fetchval(COUNT) == 0


async def test_limits_hold_for_a_statement_alone(clients: Clients) -> None:
    """A row that another holds is waited for in vain, and what was given up is not done later."""
    holder, waiter, slow = await asyncio.gather(
        clients("apart"), clients(lock_timeout="100ms"), clients(statement_timeout="100ms")
    )
    await holder.fetch(INSERT, [1, 2], ["a", "a"])
    change = "UPDATE rows SET said = $2 WHERE id = $1"
    async with holder.transaction():
        await holder.execute(change, 1, "held")
        for _ in range(3):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await waiter.execute(change, 1, "late")
            with pytest.raises(asyncpg.QueryCanceledError):
                await slow.execute(change, 1, "late")
            await waiter.execute(change, 2, "own")
    rows = await waiter.fetch("SELECT said FROM rows ORDER BY id")
    assert [row["said"] for row in rows] == ["held", "own"]


async def test_schemas_behind_one_connection(clients: Clients) -> None:
    both = [await clients(options=f"?options=-csearch_path%3D{name}") for name in ("first", "second")]
    for number, connection in enumerate(both):
        name = ("first", "second")[number]
        await connection.execute(f"CREATE SCHEMA {name}")
        await connection.execute(f"CREATE TABLE {name}.own (id int); INSERT INTO {name}.own VALUES ({number})")
    for _ in range(3):
        assert [await connection.fetchval("SELECT id FROM own") for connection in both] == [0, 1]


async def test_what_a_statement_answers_has_changed(clients: Clients) -> None:
    one, two = await clients(), await clients()
    await one.fetch(INSERT, [1], ["7"])
    ask = "SELECT said FROM rows"
    assert [await each.fetchval(ask) for each in (one, two, one)] == ["7"] * 3
    await one.execute("ALTER TABLE rows ALTER said TYPE int USING said::int")
    assert [await each.fetchval(ask) for each in (one, two, one, two)] == [7] * 4


async def test_rows_come_by_a_cursor(clients: Clients) -> None:
    one = await clients()
    await one.fetch(INSERT, [1, 2, 3], ["a", "b", "c"])
    for _ in range(2):
        async with one.transaction():
            rows = await one.cursor("SELECT id FROM rows WHERE id > $1 ORDER BY id", 1)
            assert [tuple(row) for row in (*await rows.fetch(1), *await rows.fetch(5))] == [(2,), (3,)]


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
    assert await postgres_indexes.existing(url) == {index.name: True for index in ON_POSTGRESQL}
    assert not database.query("SELECT * FROM pg_locks WHERE locktype = 'advisory'")


@pytest.mark.parametrize("mode", MODES)
def test_a_server_behind_it(mode: Mode, start: Start, databases: Databases, serve: Serve) -> None:
    """Everything is native under load, stock works, a second start is quick.

    Neither a restart of the pooler nor the end of its connections loses anything.
    """
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
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        database.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        running.wait_for_progress()
    assert not any(client.failure for client in running.clients)
    assert_all_there(database, running)
    assert "is stock's alone" not in server.log
    second = serve(*options)
    assert second.get("/api/2.0/mlflow/experiments/search?max_results=1").status_code == 200
    assert not database.query("SELECT * FROM pg_locks WHERE locktype = 'advisory'")
