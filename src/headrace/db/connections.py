"""Connections to PostgreSQL, as asyncpg makes them: found, secured, tuned, and given up in time.

What libpq does and asyncpg does not is here: each address of each host gets its own time limit, the server must be the
one that target_session_attrs asks for, hostaddr and sslsni, keepalives and TCP_USER_TIMEOUT. A pooler in between
(PgBouncer, RDS Proxy, Supavisor) is found out by itself: the process that answers is not the one that said hello. There
a statement may meet another session than the one before it, and brings along what it needs of one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, cast
from weakref import WeakSet

import asyncpg
from asyncpg.protocol import protocol

from headrace.database_url import DEFAULTS, Host, PostgresURL
from headrace.db.connection_errors import FAILURES, NotWritable, is_temporary
from headrace.db.database import STATEMENT_SECONDS
from headrace.db.tls import contexts

# asyncpg asks of each array and of each element of one whether it is a collection, by abstract classes, in Python: of a
# text 0.34 us of 0.50, of a number 0.16 of 0.31. Of what is given here only lists and tuples are.
protocol.IterableABC = protocol.SizedABC = (list, tuple)
protocol.MappingABC = dict

# A foreign transaction that sits on a row must not stop everybody's logging for ever.
LOCK_TIMEOUT_SECONDS = 5
# A host that vanished is noticed by the kernel (keepalives, TCP_USER_TIMEOUT). Where something in between takes what is
# sent and is silent (a proxy, a tunnel), these limits notice: a group of writes without an answer by then is on a dead
# connection, and with a new one it is done within 10 s. A history may have to come from a cold disk.
ANSWER_SECONDS = 8.0
READ_SECONDS = 20.0
CLOSE_SECONDS = 2.0
# How far a standby is, in bytes of its primary's log; NULL for what is no standby (any more).
REPLAYED = "CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END"
_LOOK_AGAIN_SECONDS = 0.005
_MOST_DESCRIBED = 500  # texts of searches are many
_MOST_MISSED = 200  # so many more statements that were not there than were: a pooler keeps none
# A connection that has answered within so many seconds is asked a search without asking it first whether it is there.
_FRESH_SECONDS = 1.0


class Purpose(NamedTuple):
    """What a connection is for: the settings of its session, and seconds for a statement unless it says otherwise."""

    settings: dict[str, str]
    seconds: float | None


_SESSION = {
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    # A connection that fell silent within a transaction must not keep its locks.
    "idle_in_transaction_session_timeout": f"{ANSWER_SECONDS + 2:g}s",
    # JIT costs more than it saves on statements of this size.
    "jit": "off",
}
# extra_float_digits is PostgreSQL's own default, which floats as text in full need.
READING = Purpose(
    _SESSION | {"statement_timeout": f"{STATEMENT_SECONDS}s", "extra_float_digits": "1"}, seconds=READ_SECONDS
)
# Writes find their rows by key. A plan that was made when a table was small would read all of it for each, and is kept
# until autovacuum has analyzed the table (runs/create after 30,000 runs: 780/s instead of 2,900/s). Left to itself,
# PostgreSQL plans a write with arrays anew each time, since it takes arrays of one row for cheaper than those of any
# length: that was two thirds of a new assessment's time (0.90 ms, now 0.28). The server ends a statement that nobody
# waits for any more.
WRITING = Purpose(
    _SESSION
    | {
        "statement_timeout": f"{ANSWER_SECONDS + 2:g}s",
        "enable_seqscan": "off",
        "plan_cache_mode": "force_generic_plan",
    },
    seconds=ANSWER_SECONDS,
)
# Building an index takes as long as it takes; a connection that dies is noticed by its keepalives.
TOOL = Purpose({}, seconds=None)


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that is closed where no use can be made of it any more; the next statement needs another one."""

    asked_at = 0.0  # time.monotonic; 0 while nothing is asked
    idle_since = 0.0  # the loop's time
    _answered_at = -_FRESH_SECONDS
    _replans = False
    _replayed = 0  # as a standby last said

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._described: dict[str, Any] = {}

    def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Awaitable[Any]:
        """As asyncpg's; of a search one without a name, whose types are asked for once."""
        if self._replans:
            return self._describe(query, **options)
        asyncpgs: Awaitable[Any] = super()._get_statement(query, timeout, **options)
        return asyncpgs

    async def _describe(self, query: str, **options: Any) -> Any:
        statement = self._described.get(query)
        if statement is not None and time.monotonic() - self._answered_at < _FRESH_SECONDS:
            statement.mark_unprepared()  # it is parsed, bound and executed in one message
            return statement
        options |= {"named": "", "use_cache": False}
        statement = await super()._get_statement(query, ANSWER_SECONDS, **options)
        if len(self._described) < _MOST_DESCRIBED:
            self._described[query] = statement
        return statement

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        """As asyncpg's."""
        self.asked_at = time.monotonic()
        try:
            return await super().fetch(query, *args, timeout=timeout, record_class=record_class)
        except (TimeoutError, asyncpg.ReadOnlySQLTransactionError):
            self.terminate()
            raise
        finally:
            self.asked_at = 0.0
            self._answered_at = time.monotonic()

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """As asyncpg's. That a transaction begins takes no time, however long its statements may."""
        self.asked_at = time.monotonic()
        try:
            if timeout is None and query.startswith("BEGIN"):
                timeout = ANSWER_SECONDS
            return await super().execute(query, *args, timeout=timeout)
        except (TimeoutError, asyncpg.ReadOnlySQLTransactionError):
            self.terminate()
            raise
        finally:
            self.asked_at = 0.0

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        """The first row, or None."""
        rows = await self.fetch(query, *args, timeout=timeout, record_class=record_class)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """A value of the first row, or None."""
        row = await self.fetchrow(query, *args, timeout=timeout)
        return None if row is None else row[column]

    async def fetch_replanned(self, query: str, *args: Any) -> Any:
        """As `fetch`, for a search, which may take long and whose plan is made for these parameters.

        A statement that is kept has, from its sixth use on, a plan for any parameters: it can be a hundred times
        slower.
        """
        self._replans = True
        try:
            rows = await super().fetch(query, *args, timeout=STATEMENT_SECONDS + ANSWER_SECONDS)
        except TimeoutError:
            self.terminate()
            raise
        finally:
            self._replans = False
        self._answered_at = time.monotonic()
        return rows

    async def has_replayed(self, position: int, within: float, timeout: float) -> bool:
        """Whether this standby has replayed its primary's log up to there, or does so within that many seconds."""
        deadline = time.monotonic() + within
        while self._replayed < position:
            replayed = await self.fetchval(f"SELECT {REPLAYED}", timeout=timeout) or 0
            if not self.pooled:  # else the next statement may be another server's
                self._replayed = replayed
            if replayed >= position:
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return True

    @property
    def pooled(self) -> bool:
        """Whether there is a pooler in between."""
        return False


class _Wire:
    """A transport that says something before what is written next, in the same packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.say(b"")

    def say(self, messages: bytes) -> None:
        """Before what is written next, in place of what was said last."""
        self._messages = messages
        self.write = self._write_after if messages else self._transport.write

    def _write_after(self, data: bytes) -> None:
        messages = self._messages
        self.say(b"")
        self.write(messages + data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(asyncpg.protocol.Protocol):  # type: ignore[misc]
    """asyncpg's, whose transport it lets nobody reach."""

    wire: _Wire

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.wire = _Wire(transport)
        super().connection_made(self.wire)


asyncpg.protocol.Protocol = _Protocol


class PooledConnection(Connection):
    """Through a pooler: a statement brings its settings along, and its name says all that decides its meaning.

    Settings and statement are one message, which is a transaction. What was prepared on a connection of the server is
    there for all who share it; where it isn't, PostgreSQL says so (26000), and the message is sent again with the texts
    in it. PgBouncer from 1.21 on keeps names itself, and ends a connection that uses one before it has given its text.
    """

    _trusts = False  # that what has a name is there
    _luck = _MOST_MISSED
    _names = True

    def bring(self, settings: Mapping[str, str]) -> None:
        """What a transaction begins with."""
        made = " || ".join(f"set_config({_literal(k)}, {_literal(v)}, true)" for k, v in settings.items())
        self._settings = f"SELECT WHERE ({made}) IS NULL" if made else ""  # without rows, which nobody would read
        name = _name(self._settings)
        self._bring = _bind_and_execute(name) if made else b""
        self._prepare_and_bring = _close(name) + _parse(name, self._settings) + self._bring if made else b""

    async def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Any:
        """As asyncpg's. What comes before it in its message is said here."""
        if options.get("named"):  # a cursor's
            return await super()._get_statement(query, timeout, **options)
        statement = self._described.get(query)
        if statement is None:
            is_named = self._names and not self._replans and len(self._described) < _MOST_DESCRIBED
            name = _name(self._settings + query) if is_named else ""
            self._protocol.wire.say(self._prepare_and_bring + _close(name))
            options |= {"named": name, "use_cache": False}
            statement = await super(Connection, self)._get_statement(query, timeout, **options)
            if len(self._described) < _MOST_DESCRIBED:
                self._described[query] = statement
        before = b""
        if not self.is_in_transaction():  # which began with the settings
            before = self._bring if self._trusts else self._prepare_and_bring
        if not statement.name:
            statement.mark_unprepared()  # it is parsed, bound and executed in one message
        elif not self._trusts:
            before += _close(statement.name) + _parse(statement.name, query)
        self._protocol.wire.say(before)
        return statement

    async def _do_execute(self, *args: Any, **options: Any) -> Any:
        """As asyncpg's: without texts, unless a transaction would fail of it, or a pooler keeps nothing."""
        trusts = not self.is_in_transaction() and self._luck > 0
        while True:
            self._trusts = trusts
            try:
                done = await super()._do_execute(*args, **options)
            except asyncpg.InvalidSQLStatementNameError:
                if not trusts:
                    raise
                self._luck -= 1
                trusts = False
            else:
                self._luck = min(self._luck + trusts, _MOST_MISSED)
                return done
            finally:
                self._trusts = False
                self._protocol.wire.say(b"")

    def _drop_global_statement_cache(self) -> None:
        """As asyncpg's, after a migration that changed what a statement answers. PgBouncer may keep the one before."""
        self._names = False
        self._described.clear()
        super()._drop_global_statement_cache()

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """As asyncpg's. A statement without parameters stays alone: some can't be in a transaction (CREATE INDEX)."""
        if query.startswith("BEGIN"):
            query += self._settings
        return await super().execute(query, *args, timeout=timeout)

    @property
    def pooled(self) -> bool:
        """Yes."""
        return True


def _name(text: str) -> str:
    return "headrace_" + hashlib.sha256(text.encode()).hexdigest()[:32]


# Messages as PostgreSQL's documentation has them in "Message Formats"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _close(name: str) -> bytes:
    """Does no harm where nothing has that name."""
    return _message(b"C", b"S%s\0" % name.encode())


def _parse(name: str, query: str) -> bytes:
    return _message(b"P", b"%s\0%s\0" % (name.encode(), query.encode()) + bytes(2))


def _bind_and_execute(name: str) -> bytes:
    """A statement without parameters."""
    return _message(b"B", b"\0%s\0" % name.encode() + bytes(6)) + _message(b"E", bytes(5))


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class Connector:
    """Makes connections to one database for one purpose, and remembers what it found out."""

    def __init__(self, database: PostgresURL, purpose: Purpose) -> None:
        self._database, self._purpose = database, purpose
        self._pooled = False
        self._last_good: Host | None = None
        self._made: WeakSet[Connection] = WeakSet()

    def give_up(self) -> None:
        """End all connections; who waits for one sees it as lost."""
        for connection in list(self._made):
            connection.terminate()

    def give_up_silent(self) -> None:
        """End the connections that have not answered for ANSWER_SECONDS; who waits for one sees it as lost."""
        since = time.monotonic() - ANSWER_SECONDS
        for connection in list(self._made):
            if 0 < connection.asked_at <= since:
                connection.terminate()

    async def connect(self) -> Connection:
        """A connection. Raises OSError (TimeoutError, NotWritable among them), asyncpg.PostgresError."""
        if not self._pooled:
            try:
                connection = await self._connect(Connection)
                if not await _answers_itself(connection):
                    connection.terminate()
                    self._pooled = True
            except asyncpg.ProtocolViolationError as error:
                if "startup parameter" not in str(error):
                    raise
                self._pooled = True
        return await self._connect(PooledConnection) if self._pooled else connection

    async def _connect(self, kind: type[Connection]) -> Connection:
        """To the first host that answers and is what is asked for."""
        hosts = self._database.hosts
        if self._database.parameters.get("load_balance_hosts") == "random":
            random.shuffle(hosts)
        if self._last_good in hosts:  # a host that is silent costs its time only once
            hosts.remove(self._last_good)
            hosts.insert(0, self._last_good)
        problem: Exception | None = None
        for host in hosts:
            try:
                connection = await self._connect_to_host(host, kind)
            except asyncpg.PostgresError as error:
                if not is_temporary(error) or host is hosts[-1]:  # a wrong password is wrong everywhere
                    raise
                problem = error
            except OSError as error:
                problem = error
            else:
                self._last_good = host
                self._made.add(connection)
                return connection
        assert problem is not None
        raise problem

    async def _connect_to_host(self, host: Host, kind: type[Connection]) -> Connection:
        problem: Exception | None = None
        for address in await self._addresses(host):
            for tls in contexts(self._database, host):
                try:
                    return await self._connect_to_address(host, address, tls, kind)
                except asyncpg.PostgresError as error:
                    # with sslmode=prefer what is said without TLS ("no encryption") is no news
                    problem = problem if isinstance(problem, asyncpg.PostgresError) else error
                except (TimeoutError, ConnectionRefusedError) as error:
                    problem = error  # nor would it answer without TLS
                    break
                except OSError as error:
                    problem = problem if isinstance(problem, asyncpg.PostgresError) else error
            if isinstance(problem, asyncpg.PostgresError):
                break
        assert problem is not None
        raise problem

    async def _addresses(self, host: Host) -> list[str]:
        """Looked up for each connection: a failover may move the name."""
        if host.is_socket:
            return [host.address]
        found = await asyncio.wait_for(
            asyncio.get_running_loop().getaddrinfo(host.address, host.port, type=socket.SOCK_STREAM), ANSWER_SECONDS
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _connect_to_address(
        self, host: Host, address: str, tls: ssl.SSLContext | None, kind: type[Connection]
    ) -> Connection:
        *others, last = self._database.passwords_for(host) or [""]
        for password in others:
            try:
                return await self._log_in(host, address, tls, kind, password)
            except asyncpg.InvalidAuthorizationSpecificationError:  # it is just being replaced, by a token perhaps
                continue
        return await self._log_in(host, address, tls, kind, last)

    async def _log_in(
        self, host: Host, address: str, tls: ssl.SSLContext | None, kind: type[Connection], password: str
    ) -> Connection:
        given = self._database.parameters
        settings = {**self._database.settings, **self._purpose.settings}
        name = given.get("application_name") or given.get("fallback_application_name") or "headrace"
        pooled = issubclass(kind, PooledConnection)
        connection: Connection = await asyncpg.connect(
            host=f"\0{address[1:]}/.s.PGSQL.{host.port}" if address.startswith("@") else address,
            port=host.port,
            user=self._database.user,
            database=self._database.name,
            password=password,
            ssl=tls or False,
            direct_tls=tls is not None and given.get("sslnegotiation") == "direct",
            target_session_attrs="any",  # asked below, of poolers, too
            krbsrvname=given.get("krbsrvname"),
            gsslib=given.get("gsslib"),
            timeout=_seconds(given),
            command_timeout=self._purpose.seconds,
            server_settings={"application_name": name} | ({} if pooled else settings),
            connection_class=kind,
            **({"statement_cache_size": 0} if pooled else {}),
        )
        try:
            if pooled:
                cast(PooledConnection, connection).bring(settings)
            if not host.is_socket:
                _tune(connection, given)
            if (condition := _TARGETS.get(given.get("target_session_attrs", "any"))) is not None:
                await _check_target(connection, condition, host)
        except BaseException:
            connection.terminate()
            raise
        return connection


_TARGETS = {
    "read-write": "NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'",
    "primary": "NOT pg_is_in_recovery()",
}


async def connect(database: PostgresURL, purpose: Purpose = TOOL) -> Connection:
    """One connection."""
    return await Connector(database, purpose).connect()


def is_last(error: BaseException) -> bool:
    """Whether the server ends the connection after it, which may not have come here yet (a proxy is in between)."""
    fatal = isinstance(error, asyncpg.PostgresError) and error.severity_en in ("FATAL", "PANIC")
    return fatal or isinstance(error, asyncpg.InternalClientError)


async def close(connection: Connection) -> None:
    """In order if the server answers."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except FAILURES:
        connection.terminate()


async def _answers_itself(connection: Connection) -> bool:
    """Whether the process that works is the one that said hello. A pooler makes up a number of its own.

    Asked without a statement that would stay behind on the server, and an answer comes only as an error.
    """
    try:
        await connection.execute(f"SELECT 1 / (pg_backend_pid() = {connection.get_server_pid()})::int")
    except asyncpg.DivisionByZeroError:
        return False
    except BaseException:  # nobody has it yet who would close it
        connection.terminate()
        raise
    return True


async def _check_target(connection: Connection, condition: str, host: Host) -> None:
    try:
        await connection.execute(f"SELECT 1 / ({condition})::int")
    except asyncpg.DivisionByZeroError:
        raise NotWritable(f"{host.name}:{host.port} takes no writes") from None


def _seconds(given: Mapping[str, str]) -> float | None:
    """For one address. libpq: 0 and less mean no limit, 1 means 2."""
    seconds = int(given.get("connect_timeout", DEFAULTS["connect_timeout"]))
    return max(2, seconds) if seconds > 0 else None


def _tune(connection: Connection, given: Mapping[str, str]) -> None:
    """The socket's options, named as libpq names them; not every system has each."""
    if given.get("keepalives") == "0":
        options = {}
    else:
        options = {"keepalives_idle": "TCP_KEEPIDLE", "keepalives_interval": "TCP_KEEPINTVL"}
        options["keepalives_count"] = "TCP_KEEPCNT"
    options["tcp_user_timeout"] = "TCP_USER_TIMEOUT"
    # a duplicate: uvloop hands out no socket that takes options
    with socket.socket(fileno=os.dup(connection._transport.get_extra_info("socket").fileno())) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int("keepalives_idle" in options))
        for name, option in options.items():
            value = int(given.get(name, DEFAULTS[name]))
            if value > 0 and hasattr(socket, option):
                tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
