"""Each way in which a connection to PostgreSQL can die: what is written is there, and how long that took."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy

from headrace.database_url import DEFAULTS, PostgresURL, parse
from headrace.db import connections, postgres_indexes
from headrace.db.connection_errors import NotWritable, explain, is_temporary
from headrace.db.connections import ANSWER_SECONDS, READ_SECONDS, WRITING, Connector, connect
from headrace.db.postgres import READERS, PostgresDatabase
from headrace.db.query import Query
from headrace.errors import Unavailable
from headrace.resources.runs.reads import get_run
from headrace.stock.database_errors import tell_less
from tests.contract.test_writes import new_run
from tests.support.databases import Database, Databases
from tests.support.faults import TcpProxy
from tests.support.postgres import Postgres
from tests.support.processes import eventually, free_port

TOUCH = Query("UPDATE experiments SET last_update_time = 1 WHERE experiment_id = 0 RETURNING 1", [])


def url_of(text: str) -> PostgresURL:
    url = parse(text, {})
    assert isinstance(url, PostgresURL)
    return url


def of(database: Database, *ports: int, more: str = "") -> PostgresURL:
    """The database at other ports of this machine."""
    return url_of(f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in ports)}/{database.name}{more}")


@pytest.fixture(scope="module")
def database(databases: Databases) -> Database:
    return databases.migrated("postgresql")


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[TcpProxy]:
    proxy = TcpProxy(postgres.port)
    yield proxy
    proxy.stop()


@pytest_asyncio.fixture
async def store(database: Database, proxy: TcpProxy) -> AsyncIterator[PostgresDatabase]:
    """On its way through the proxy, with connections that have been used."""
    opened = PostgresDatabase(of(database, proxy.port), queue_limit=100, builds_indexes=False)
    await opened.start()
    await works(opened)
    yield opened
    await opened.close()


async def works(store: PostgresDatabase) -> None:
    """It writes, reads and changes."""
    write = new_run()
    await store.submit(write)
    assert await get_run(store, write.run_id) is not None
    assert await store.change(TOUCH)


async def test_reset(store: PostgresDatabase, proxy: TcpProxy) -> None:
    proxy.reset()
    since = time.monotonic()
    await works(store)
    assert time.monotonic() - since < ANSWER_SECONDS


async def test_all_connections_are_dead_and_none_says_so(store: PostgresDatabase, proxy: TcpProxy) -> None:
    """A read that finds one dead does not try the next of the old ones, but begins a new one."""
    assert store._pool is not None
    await asyncio.gather(*(store.rows(Query("SELECT 1 FROM pg_sleep(0.2)", [])) for _ in range(READERS)))
    assert store._pool.idle == READERS
    proxy.forget()
    for _ in range(3):
        assert [row[0] for row in await store.rows(Query("SELECT 7", []))] == [7]


async def test_silence(store: PostgresDatabase, proxy: TcpProxy) -> None:
    """A group of writes is sent again on a new connection, a read beside it too: nobody notices but for the time."""
    proxy.swallow()
    since = time.monotonic()
    write = new_run()
    _, (row,) = await asyncio.gather(store.submit(write), store.rows(Query("SELECT 7", [])))
    assert time.monotonic() - since < READ_SECONDS
    assert list(row) == [7]
    assert proxy.accepted >= 3
    assert await get_run(store, write.run_id) is not None


async def test_a_change_on_a_silent_connection(store: PostgresDatabase, proxy: TcpProxy) -> None:
    """It may have been done, so it is not sent again; who sends it again finds a good connection."""
    await store.change(TOUCH)
    for rest in ((), (TOUCH,)):
        proxy.swallow()
        since = time.monotonic()
        with pytest.raises(Unavailable):
            await store.change(TOUCH, *rest)
        assert time.monotonic() - since < READ_SECONDS
        assert await store.change(TOUCH, *rest)


async def test_a_silent_read_is_tried_once_more(
    store: PostgresDatabase, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._readers, "_purpose", connections.READING._replace(seconds=1.0))
    assert store._pool is not None
    store._pool.expire()
    await store.rows(Query("SELECT 1", []))
    proxy.swallow()
    since = time.monotonic()
    assert [row[0] for row in await store.rows(Query("SELECT 7", []))] == [7]
    assert 1 <= time.monotonic() - since < READ_SECONDS


async def test_sockets_are_tuned(database: Database, postgres: Postgres) -> None:
    """The kernel notices a host that vanished: what it is told are libpq's parameters."""
    expected = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
    for more, changed in (("", {}), ("?keepalives_idle=30&tcp_user_timeout=7000", {"TCP_KEEPIDLE": 30})):
        connection = await connect(of(database, postgres.port, more=more))
        with socket.socket(fileno=os.dup(connection._transport.get_extra_info("socket").fileno())) as tcp:
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            found = {name: tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in expected}
        await connection.close()
        if more:
            changed["TCP_USER_TIMEOUT"] = 7000
        assert found == expected | changed
    connection = await connect(of(database, postgres.port, more="?keepalives=0"))
    with socket.socket(fileno=os.dup(connection._transport.get_extra_info("socket").fileno())) as tcp:
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    await connection.close()


async def test_a_session_that_became_read_only(store: PostgresDatabase) -> None:
    """As after a failover of Aurora: 503 at most, and then a new connection; who finds out ends the others, too."""

    async def become_read_only() -> None:
        assert store._pool is not None
        async with store._pool.use(None) as reader:
            for connection in (await store._writer.connection(), reader):
                await connection.execute("SET default_transaction_read_only = on")

    await become_read_only()
    with pytest.raises(Unavailable, match="takes no writes"):
        await store.change(TOUCH)
    await works(store)
    await become_read_only()
    await store.submit(new_run())
    await store.change(TOUCH)


def test_stock_connects_anew_and_does_not_name_its_database(database: Database) -> None:
    """Its managed sessions make a 503 of an OperationalError, which clients send again, and a 400 of others."""
    touch = sqlalchemy.text(TOUCH.text)
    engine = sqlalchemy.create_engine(database.uri)
    tell_less(engine)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SET default_transaction_read_only = on"))
        connection.commit()
    with pytest.raises(sqlalchemy.exc.OperationalError, match="read-only") as refused, engine.begin() as connection:
        connection.execute(touch)
    assert "UPDATE experiments" not in str(refused.value)
    with engine.begin() as connection:
        connection.execute(touch)
    engine.dispose()
    away = sqlalchemy.create_engine(f"postgresql+psycopg2://postgres:hidden@127.0.0.1:{free_port()}/{database.name}")
    tell_less(away)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="The database is away") as refused:
        away.connect()
    assert "127.0.0.1" not in str(refused.value)


async def test_a_read_that_is_cancelled_keeps_its_place_until_its_connection_is_at_rest(
    store: PostgresDatabase, proxy: TcpProxy
) -> None:
    pool = store._pool
    assert pool is not None
    connections_made = proxy.accepted
    for _ in range(READERS + 1):
        read = asyncio.create_task(store.rows(Query("SELECT 1 FROM pg_sleep(60)", [])))
        await eventually(lambda: pool.idle < pool.size)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        assert pool.idle < pool.size
        await eventually(lambda: pool.idle == pool.size)
        assert [row[0] for row in await store.rows(Query("SELECT 7", []))] == [7]
    # a connection for each word to PostgreSQL that a statement is cancelled, none for those that go on
    assert proxy.accepted == connections_made + READERS + 1


async def test_a_silent_transaction_keeps_no_lock(store: PostgresDatabase) -> None:
    assert store._pool is not None
    async with store._pool.use(None) as reader:
        for connection in (await store._writer.connection(), reader):
            assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "10s"


async def test_an_idle_session_that_the_server_ended(database: Database, store: PostgresDatabase) -> None:
    writer = await store._writer.connection()
    await writer.execute("SET idle_session_timeout = '50ms'")
    ended = asyncio.Event()
    writer.add_termination_listener(lambda _: ended.set())
    await ended.wait()
    await works(store)


async def test_a_server_that_answers_late(database: Database, proxy: TcpProxy) -> None:
    """It takes connections and says nothing: that costs connect_timeout."""
    proxy.silent = True
    for _ in range(3):  # a busy machine takes longer now and then
        since = time.monotonic()
        with pytest.raises(TimeoutError) as raised:
            await connect(of(database, proxy.port, more="?connect_timeout=2"))
        if (seconds := time.monotonic() - since) < int(DEFAULTS["connect_timeout"]):
            break
    assert 2 <= seconds < int(DEFAULTS["connect_timeout"])
    assert "nothing answers there in time" in str(explain(raised.value, of(database, proxy.port)))


async def test_the_second_host_where_the_first_is_refused_or_silent(
    database: Database, proxy: TcpProxy, postgres: Postgres
) -> None:
    connector = Connector(of(database, free_port(), postgres.port), WRITING)
    connection = await connector.connect()
    await connection.close()
    proxy.silent = True
    connector = Connector(of(database, proxy.port, postgres.port, more="?connect_timeout=2"), WRITING)
    for _ in range(3):
        connection = await connector.connect()
        await connection.close()
    assert proxy.accepted == 1, "the silent one costs its time once"


async def test_a_failover_between_two_hosts(database: Database, postgres: Postgres) -> None:
    """The first host's session takes no writes any more, as a standby's: the second's does."""
    first, second = TcpProxy(postgres.port), TcpProxy(postgres.port)
    store = PostgresDatabase(of(database, first.port, second.port), queue_limit=100, builds_indexes=False)
    await store.start()
    await works(store)
    first.stop()
    since = time.monotonic()
    await works(store)
    assert time.monotonic() - since < ANSWER_SECONDS
    assert second.accepted >= 2
    await store.close()
    second.stop()


async def test_a_standby_is_passed_over(database: Database, postgres: Postgres) -> None:
    """target_session_attrs=read-write, which several hosts have by themselves."""
    standby = Postgres()
    try:
        standby.start()
        standby.execute(f"CREATE DATABASE {database.name}")
        standby.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        standby.execute("SELECT pg_reload_conf()")
        connection = await connect(of(database, standby.port, postgres.port))
        assert await connection.fetchval("SELECT current_setting('port')") == str(postgres.port)
        await connection.close()
        alone = of(database, standby.port, more="?target_session_attrs=read-write")
        with pytest.raises(NotWritable) as raised:
            await connect(alone)
        assert "takes no writes" in str(explain(raised.value, alone))
    finally:
        standby.remove()


async def test_a_name_that_moves(database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """As RDS's does: each new connection looks it up anew, and an address that is dead is passed over."""
    where = ["127.0.0.1"]

    async def look_up(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "db.moves"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in where]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    old = TcpProxy(postgres.port, "127.0.0.1")
    new = TcpProxy(postgres.port, "127.0.0.2", old.port)
    url = url_of(f"postgresql://postgres@db.moves:{old.port}/{database.name}")
    store = PostgresDatabase(url, queue_limit=100, builds_indexes=False)
    await store.start()
    await works(store)
    before = new.accepted
    old.stop()
    where[:] = ["127.0.0.1", "127.0.0.2"]
    await works(store)
    assert new.accepted > before == 0
    await store.close()
    new.stop()


async def test_no_connection_left(database: Database, postgres: Postgres) -> None:
    postgres.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 1")
    url = url_of(f"postgresql://few@127.0.0.1:{postgres.port}/{database.name}")
    first = await connect(url)
    with pytest.raises(asyncpg.TooManyConnectionsError) as raised:
        await connect(url)
    assert is_temporary(raised.value)
    assert "has no connection left" in str(explain(raised.value, url))
    await first.close()


@pytest.mark.parametrize(
    ("close", "reopen"),
    [
        ("ALTER DATABASE {} ALLOW_CONNECTIONS false", "ALTER DATABASE {} ALLOW_CONNECTIONS true"),
        ("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", "GRANT CONNECT ON DATABASE {} TO PUBLIC"),
    ],
    ids=["no connections", "not for this role"],
)
async def test_why_there_is_no_connection_says_nothing_of_the_request(
    databases: Databases, postgres: Postgres, close: str, reopen: str
) -> None:
    """Who asks is told to come back; to stock it would be a 500."""
    database = databases.migrated("postgresql")
    role = f"of_{database.name}"
    postgres.execute(f"CREATE ROLE {role} LOGIN")
    postgres.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", database.name)
    url = url_of(f"postgresql://{role}@127.0.0.1:{postgres.port}/{database.name}")
    store = PostgresDatabase(url, queue_limit=100, builds_indexes=False)
    await store.start()
    await works(store)
    postgres.execute(close.format(database.name))
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
    for refused in (store.submit(new_run()), get_run(store, "0" * 32), store.change(TOUCH)):
        with pytest.raises(Unavailable):
            await refused
    with pytest.raises(asyncpg.PostgresError) as raised:
        await connect(url)
    fresh = PostgresDatabase(url, queue_limit=100, builds_indexes=False)
    with pytest.raises(Unavailable, match="can't be used") as said:
        await fresh.start()
    assert str(said.value) == str(explain(raised.value, url))
    await fresh.close()
    postgres.execute(reopen.format(database.name))
    await works(store)
    await store.close()


@pytest.mark.parametrize(
    ("words", "temporary"),
    [
        ("pgbouncer cannot connect to server", True),
        ("server login has been failing, try again later (server_login_retry)", True),
        ("query_wait_timeout", True),
        ("no such database: gone", False),
        ("SASL authentication failed", False),
    ],
)
def test_what_a_pooler_says_of_its_server(words: str, temporary: bool) -> None:
    """PgBouncer has one SQLSTATE for all of it."""
    assert is_temporary(asyncpg.ProtocolViolationError(words)) is temporary


async def test_a_statement_without_an_answer_ends_its_connection(database: Database) -> None:
    connection = await connect(database.url, WRITING._replace(seconds=0.2))
    with pytest.raises(TimeoutError):
        await connection.fetch("SELECT pg_sleep(5)")
    assert connection.is_closed()


async def test_tables_of_a_second_schema_are_found(databases: Databases) -> None:
    """The schema contract and the indexes look along the search_path, as the statements do."""
    database = databases.migrated("postgresql")
    for name in [
        row["relname"]
        for row in database.query(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    ]:
        database.execute("CREATE SCHEMA IF NOT EXISTS second")
        database.execute(f'ALTER TABLE "{name}" SET SCHEMA second')
    url = url_of(f"{database.uri}?options=-csearch_path%3Dfirst,second")
    database.execute("CREATE SCHEMA first")
    store = PostgresDatabase(url, queue_limit=100, builds_indexes=False)
    await store.start()
    assert store.changed_tables == {}
    await works(store)
    await store.close()
    await postgres_indexes.build_or_fail(url)
    assert set((await postgres_indexes.existing(url)).values()) == {True}
