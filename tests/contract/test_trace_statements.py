"""The statements of ingestion on PostgreSQL: a trace in pieces, whole, and from two workers at once."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from headrace.db.postgres import Session
from headrace.db.query import Dialect, Sql
from headrace.entities import RunInfo
from headrace.errors import Declined, Forbidden, NotFound
from headrace.resources.runs.log_plan import MetricRow
from headrace.resources.runs.writes import CreateRun, LogBatch
from headrace.resources.traces import sql, trace_rows, writes
from headrace.resources.traces.info import TraceInfo, TraceRow
from headrace.resources.traces.span_rows import LoggedSpans, SpanRow, TraceContribution
from headrace.resources.traces.starts import StartTrace
from headrace.resources.traces.token_sums import stored_node
from headrace.resources.traces.trace_rows import TraceChange, TraceState
from headrace.resources.traces.writes import LogSpans
from tests.contract.conftest import open_on
from tests.support.databases import Database, Databases
from tests.support.traces import decoded, rows_of
from tests.unit.traces.spans import MILLION, SPAN_IDS, START, body, span

EXPERIMENT = 0


async def rows(connection: Any, text: str, **values: Any) -> list[Any]:
    query = Sql(postgresql=text, sqlite="SELECT 1").query(values, Dialect.POSTGRESQL)
    return list(await connection.fetch(query.text, *query.values))


def arrays(changes: Sequence[TraceChange], spans: Sequence[SpanRow]) -> dict[str, Any]:
    """The parameters of the statements with arrays."""
    return {
        **{f"trace_{name}": [getattr(change.row, name) for change in changes] for name in TraceRow.__struct_fields__},
        "trace_generations": [change.generations for change in changes],
        **{f"span_{name}": [getattr(row, name) for row in spans] for name in SpanRow.__struct_fields__},
        "trace_tags": [json.dumps(change.tags) for change in changes],
        "trace_user_id": [change.user_id for change in changes],
        "moved_request_id": [change.row.request_id for change in changes if change.starts_earlier],
        "moved_timestamp_ms": [change.row.timestamp_ms for change in changes if change.starts_earlier],
        "trace_workspace": ["default"] * len(changes),
        "plain": trace_rows.PLAIN_LOCATION.pattern,
    }


async def write(connection: Any, *requests: LoggedSpans) -> list[str]:
    """A group of requests as sql.py tells; the traces that NEW_TRACES has made."""
    by_trace: dict[str, list[TraceContribution]] = {}
    for request in requests:
        for trace in request.traces:
            by_trace.setdefault(trace.trace_id, []).append(trace)
    spans = list({(row.trace_id, row.span_id): row for request in requests for row in request.spans}.values())
    async with connection.transaction():
        new = [trace_rows.merged(None, EXPERIMENT, by_trace[id_]) for id_ in sorted(by_trace)]
        made = [row["request_id"] for row in await _run(connection, sql.NEW_TRACES, arrays(new, spans))]
        ids = sorted(set(by_trace) - set(made))
        if not ids:
            return made
        assert len(await rows(connection, sql.LOCK_TRACES, trace_ids=ids)) == len(ids)
        found = await rows(connection, sql.TRACE_STATES, trace_ids=ids)
        states = {row[0]: TraceState(*row[:-2], finalized=row[-2], elsewhere=row[-1]) for row in map(tuple, found)}
        nodes: dict[str, list[Any]] = {}
        for trace_id, *rest in await rows(connection, sql.STORED_NODES, trace_ids=ids):
            nodes.setdefault(trace_id, []).append(stored_node(*rest))
        changes = [trace_rows.merged(states[id_], EXPERIMENT, by_trace[id_], nodes.get(id_, ())) for id_ in ids]
        values = arrays(changes, [row for row in spans if row.trace_id in states])
        await _run(connection, sql.SET_TRACES, values)
        return made


async def _run(connection: Any, text: str, values: dict[str, Any]) -> list[Any]:
    return await rows(
        connection, text, **{name: value for name, value in values.items() if re.search(rf":{name}\b", text)}
    )


async def connect(database: Database) -> Any:
    return await asyncpg.connect(database.uri.replace("+psycopg2", ""))


def piece(number: int, parent: int, trace_id: bytes, **attributes: Any) -> LoggedSpans:
    """A request of one span, which has usage and takes a millisecond."""
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 1, "total_tokens": 1}, "user.id": "u", **attributes}
    return decoded(
        body(
            span(
                usage,
                trace_id=trace_id,
                span_id=SPAN_IDS[number],
                parent_id=SPAN_IDS[parent] if parent else b"",
                start=START + number * MILLION,
                end=START + (number + 1) * MILLION,
            ),
            resource={"host.name": "h"},
        )
    )


async def test_pieces_and_whole_traces(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    connection = await connect(database)
    first, second = b"\1" * 16, b"\2" * 16
    try:
        assert len(await write(connection, piece(2, 1, first))) == 1
        assert len(await write(connection, piece(3, 1, first), piece(2, 0, second), piece(4, 2, second))) == 1
        assert await write(connection, piece(2, 1, first)) == []
    finally:
        await connection.close()
    found = rows_of(database)
    one, other = found["trace_info"]
    assert [one["status"], one["input_tokens"], one["db_payload_generation"]] == ["IN_PROGRESS", 2, 3]
    assert [other["status"], other["input_tokens"], other["db_payload_generation"]] == ["OK", 1, 2]
    assert [one["timestamp_ms"], one["execution_time_ms"]] == [START // MILLION + 2, 2]
    assert len(found["spans"]) == 4
    assert {row["duration_ns"] for row in found["spans"]} == {MILLION}
    assert len(found["trace_tags"]) == 6
    assert [row["value"] for row in found["trace_request_metadata"]] == ["u", "u"]


async def test_two_workers_of_one_trace(databases: Databases) -> None:
    """Twenty-four traces, four spans each from four writers at once: the sums are right, whoever comes first."""
    database = databases.migrated("postgresql")
    connections = [await connect(database) for _ in range(4)]

    async def writer(at: int) -> None:
        for trace in range(24):
            await write(connections[at], piece(at + 1, at, bytes([trace + 1]) * 16))

    try:
        await asyncio.gather(*map(writer, range(4)))
    finally:
        for connection in connections:
            await connection.close()
    found = rows_of(database)["trace_info"]
    assert {(row["status"], row["db_payload_generation"]) for row in found} == {("OK", 4)}
    assert {(row["timestamp_ms"] - START // MILLION, row["execution_time_ms"]) for row in found} == {(1, 4)}
    assert {row["input_tokens"] for row in found} == {1}  # of the root, which covers the others


class Statements:
    """A connection that counts the statements of writes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, text: str, *values: Any) -> Any:
        self.count += 1
        return await self._connection.fetch(text, *values)


def step(number: int, trace_id: bytes, **fields: Any) -> LoggedSpans:
    """A request of one span, as MLflow's SDK sends them: the first is the root."""
    given = {"span_id": SPAN_IDS[number], "parent_id": SPAN_IDS[1] if number > 1 else b"", "name": f"step {number}"}
    times = {"start": START + number * MILLION, "end": START + (9 - number) * MILLION}
    return decoded(body(span({"a": number}, trace_id=trace_id, **(given | times | fields)), resource={"team": "a"}))


def of_trace(database: Database, trace_id: bytes) -> dict[str, Any]:
    """The rows of a trace, without its id."""
    tables = ("trace_info", "spans", "trace_tags", "trace_request_metadata")
    text = f"tr-{trace_id.hex()}"
    found = rows_of(database)
    return {
        table: [
            {key: value for key, value in row.items() if key not in ("request_id", "trace_id", "content")}
            for row in found[table]
            if text in (row.get("request_id"), row.get("trace_id")) and row.get("key") != "mlflow.artifactLocation"
        ]
        for table in tables
    }


async def test_span_by_span_is_as_merged(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order, what one statement does for each span is what reading and merging does."""
    database = databases.migrated("postgresql")
    connection = await connect(database)
    session = Session(connection, {})

    async def send(number: int, trace_id: bytes) -> None:
        write = LogSpans(EXPERIMENT, "default", False, step(number, trace_id))
        assert await LogSpans.apply_postgres(session, [write, write]) == [None, None]

    async def nothing(*_: Any) -> set[str]:
        return set()

    orders = list(itertools.permutations(range(1, 5)))
    try:
        for at, order in enumerate(orders):
            for number in (*order, order[0]):
                await send(number, bytes([at + 1]) * 16)
        monkeypatch.setattr(writes, "_at_once", nothing)
        for at, order in enumerate(orders):
            for number in (*order, order[0]):
                await send(number, bytes([at + 101]) * 16)
    finally:
        await connection.close()
    for at in range(len(orders)):
        assert of_trace(database, bytes([at + 1]) * 16) == of_trace(database, bytes([at + 101]) * 16), orders[at]


@pytest.mark.parametrize("only_here", [False, True])
async def test_span_by_span_takes_one_statement(databases: Databases, only_here: bool) -> None:
    """But for the first that a worker writes of a trace that another one has begun, and the root, which begins before
    the others: what has assessed the trace goes with it."""
    database = databases.migrated("postgresql")
    connection = await connect(database)
    counted: Any = Statements(connection)
    session, other = Session(counted, {}), Session(counted, {})

    async def send(number: int, experiment: int = EXPERIMENT, worker: Session = session) -> Any:
        (outcome,) = await LogSpans.apply_postgres(
            worker, [LogSpans(experiment, "default", only_here, step(number, b"\1" * 16))]
        )
        return outcome

    try:
        assert isinstance(await send(2, 77, other), NotFound)
        counted.count = 0
        assert [await send(number) for number in (2, 3)] == [None, None]
        assert counted.count == 2
        assert await send(4, worker=Session(counted, {})) is None
        assert counted.count == 4
        await connection.execute(
            "INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value, created_timestamp,"
            " last_updated_timestamp, source_type, valid, experiment_id, trace_timestamp_ms, is_numeric_value)"
            " SELECT 'a-1', request_id, 'good', 'feedback', 'true', 0, 0, 'HUMAN', true, 0, timestamp_ms, false"
            " FROM trace_info"
        )
        counted.count = 0
        assert await send(1) is None
        assert counted.count == 2
        await connection.execute(
            "UPDATE trace_tags SET value = 'ARCHIVE_REPO' WHERE key = 'mlflow.trace.spansLocation'"
        )
        assert isinstance(await send(5), Declined)
    finally:
        await connection.close()
    found = rows_of(database)
    assert len(found["spans"]) == 4
    times = found["trace_info"][0]["timestamp_ms"], found["assessments"][0]["trace_timestamp_ms"]
    assert times == (START // MILLION + 1, START // MILLION + 1)


async def test_who_may_not_write_to_a_trace_leaves_nothing(databases: Databases) -> None:
    """Neither a span nor the mark of where its spans are, which a trace that was told of only has not got."""
    database = databases.migrated("postgresql")
    connection = await connect(database)
    try:
        await connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)"
            " VALUES (1, 'another', 's3://bucket/1', 'active', 'default')"
        )
        await connection.execute(
            "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES ($1, 0, 1, 'OK')",
            f"tr-{'01' * 16}",
        )
        write = LogSpans(1, "default", True, step(2, b"\1" * 16))
        (outcome,) = await LogSpans.apply_postgres(Session(connection, {}), [write])
        assert isinstance(outcome, Forbidden)
    finally:
        await connection.close()
    found = rows_of(database)
    assert not found["spans"]
    assert not found["trace_tags"]


async def test_metrics_do_not_wait_for_spans(databases: Databases) -> None:
    """A group of spans takes several times as long as one of metrics: each kind has a connection of its own."""
    database = databases.migrated("postgresql")
    other = await connect(database)
    store = await open_on(database)
    try:
        run = CreateRun(uuid.uuid4().hex, EXPERIMENT, "run", "user", 1000, ())
        assert isinstance(await store.submit(run), RunInfo)
        async with other.transaction():
            await other.execute("LOCK TABLE spans IN EXCLUSIVE MODE")
            spans = asyncio.create_task(store.submit(LogSpans(EXPERIMENT, "default", False, step(0, b"\2" * 16))))
            await asyncio.sleep(0)  # it is on its way before the metric
            assert await store.submit(LogBatch(run.run_id, metrics=(MetricRow("m", 1, 1, 1, False),))) is None
            assert not spans.done()
        assert await spans is None
    finally:
        await store.close()
        await other.close()


async def test_a_start_takes_one_statement(databases: Databases) -> None:
    """Of traces that are new, and of those that this worker has written; of others that are there, and of both kinds in
    a group, two. Whichever it is, the rows say what the last start has said."""
    database = databases.migrated("postgresql")
    connection = await connect(database)
    counted: Any = Statements(connection)
    session = Session(counted, {})

    def start(number: int, team: str, experiment: int = EXPERIMENT) -> StartTrace:
        tags: dict[str, str | None] = {"team": team, "'\"\\ \u2028\x01é": team}
        told: dict[str, str | None] = {f"{team} told": '{"a": [1]}'}
        trace = TraceInfo(f"tr-{number:032x}", experiment, START // MILLION, 5, "OK", tags=tags, metadata=told)
        return StartTrace(trace, "default", False)

    async def send(worker: Session, *writes: StartTrace) -> tuple[list[Any], int]:
        counted.count = 0
        outcomes = await StartTrace.apply_postgres(worker, writes)
        return [getattr(each, "is_new", type(each)) for each in outcomes], counted.count

    try:
        assert await send(session, start(2, "a"), start(1, "a")) == ([True, True], 1)
        assert await send(session, start(1, "b")) == ([False], 1)
        assert await send(Session(counted, {}), start(2, "b")) == ([False], 2)
        assert await send(session, start(3, "b"), start(1, "c")) == ([True, False], 2)
        refused, _ = await send(session, start(4, "a"), start(5, "a", 77))
        assert refused == [True, NotFound]
        assert await LogSpans.apply_postgres(
            session, [LogSpans(EXPERIMENT, "default", False, step(2, (4).to_bytes(16, "big")))]
        ) == [None]
    finally:
        await connection.close()
    found = rows_of(database)
    teams = {1: "c", 2: "b", 3: "b", 4: "a"}
    assert {int(row["request_id"][3:]): row["value"] for row in found["trace_tags"] if row["key"] == "team"} == teams
    assert {row["key"] for row in found["trace_tags"]} >= {"'\"\\ \u2028\x01é", "mlflow.artifactLocation"}
    told = {(int(row["request_id"][3:]), row["key"], row["value"]) for row in found["trace_request_metadata"]}
    said = ((1, "a"), (1, "b"), (1, "c"), (2, "a"), (2, "b"), (3, "b"), (4, "a"))
    assert told == {(number, f"{team} told", '{"a": [1]}') for number, team in said}
    assert [row["db_payload_generation"] for row in found["trace_info"]] == [2, 1, 0, 1]
