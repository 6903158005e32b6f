"""--trace-retention: what is older goes, in portions, and nothing else; ingestion goes on meanwhile."""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from typing import Any

import pytest

from headrace.db.database import Database as Store
from headrace.resources.traces import retention
from headrace.resources.traces.deletion import AT_ONCE
from headrace.resources.traces.writes import LogSpans
from tests.support.databases import Database
from tests.support.processes import wait_until
from tests.support.traces import decoded
from tests.unit.traces.spans import body, span

OLD = 1_000_000
MANY = 2 * AT_ONCE + 50


def insert(database: Database, experiment_id: int, trace_ids: list[str], at: int) -> None:
    with database.connect() as connection:
        for trace_id in trace_ids:
            connection.exec_driver_sql(
                "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status)"
                f" VALUES ('{trace_id}', {experiment_id}, {at}, 'OK')"
            )
            connection.exec_driver_sql(
                "INSERT INTO spans (trace_id, experiment_id, span_id, status, start_time_unix_nano, content)"
                f" VALUES ('{trace_id}', {experiment_id}, 's', 'OK', 1, '{{}}')"
            )
            connection.exec_driver_sql(
                f"INSERT INTO trace_tags (request_id, key, value) VALUES ('{trace_id}', 'k', 'v')"
            )


def left(database: Database, table: str, column: str) -> list[str]:
    return sorted(row[column] for row in database.query(f"SELECT {column} FROM {table}"))


async def test_what_is_older_goes(store: Store, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'other', 'deleted')")
    insert(database, 0, [f"old {number:04}" for number in range(MANY)], OLD)
    insert(database, 7, ["old of another", "and this"], OLD - 1)
    insert(database, 0, ["young"], OLD + 1)
    with caplog.at_level(logging.INFO, retention.__name__):
        assert await retention.sweep(store, OLD) == MANY + 2
    for table, column in (("trace_info", "request_id"), ("spans", "trace_id"), ("trace_tags", "request_id")):
        assert left(database, table, column) == ["young"]
    assert f"experiment 0: {MANY} traces beyond their retention deleted" in caplog.text
    assert "experiment 7: 2 traces beyond their retention deleted" in caplog.text
    assert await retention.sweep(store, OLD) == 0


async def test_what_is_archived_stays_and_is_told(
    store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    insert(database, 0, ["archived"], OLD)
    database.execute("UPDATE trace_tags SET key = 'mlflow.trace.spansLocation', value = 'ARCHIVE_REPO'")
    assert await retention.sweep(store, OLD) == 0
    assert left(database, "trace_info", "request_id") == ["archived"]
    assert "experiment 0: traces beyond their retention stay: a trace that is archived" in caplog.text


async def test_ingestion_goes_on(store: Store, database: Database) -> None:
    insert(database, 0, [f"old {number:04}" for number in range(MANY)], OLD)
    sweep = asyncio.create_task(retention.sweep(store, OLD))
    written = 0
    for number in count():
        logged = decoded(body(span(trace_id=b"during a" + number.to_bytes(8, "big"))))
        outcome: Any = await store.submit(LogSpans(0, "default", False, logged))
        assert outcome is None
        written += not sweep.done()
        if sweep.done():
            break
    assert await sweep == MANY
    assert written > 3
    assert len(left(database, "trace_info", "request_id")) == number + 1


async def test_it_is_done_at_the_start_and_again(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SWEEP_SECONDS", 0.05)
    insert(database, 0, ["first"], OLD)
    task = asyncio.create_task(retention.keep(store, 60))
    for trace in ("second", ""):
        await asyncio.to_thread(
            wait_until, lambda: not left(database, "trace_info", "request_id"), "the old trace goes"
        )
        if trace:
            insert(database, 0, [trace], OLD)
    task.cancel()
