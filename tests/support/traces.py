"""Ingestion of spans twice: by stock's own code in this process, and by ours with the statements of sql.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy

from headrace.errors import Declined, InvalidParameter, PayloadTooLarge
from headrace.resources.traces import otlp, span_rows, sql, trace_rows
from headrace.resources.traces.costs import Prices
from headrace.resources.traces.info import TraceRow
from headrace.resources.traces.span_rows import LoggedSpans, TraceContribution
from headrace.resources.traces.tags import ARTIFACTS
from headrace.resources.traces.token_sums import stored_node
from headrace.resources.traces.trace_rows import Experiment, TraceState
from tests.support.databases import Database

MAX_BYTES = 100_000_000
PRICES = Prices.of_mlflow()
# the tables that ingestion writes, and the columns by which a trace's rows are found
TABLES = {
    "trace_info": "request_id",
    "trace_tags": "request_id",
    "trace_request_metadata": "request_id",
    "assessments": "trace_id",
    "spans": "trace_id",
}


class Refused(Exception):
    """A status that is not 200, and what the answer says."""

    def __init__(self, status: int, answer: Any) -> None:
        super().__init__(status, answer)
        self.status, self.answer = status, answer


class Stock:
    """Stock's endpoint function on its store."""

    def __init__(self, database: Database) -> None:
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            patch.setenv("MLFLOW_TRACKING_URI", database.uri)
            from mlflow.server import otel_api
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        self.store: Any = SqlAlchemyStore(database.uri, "mlflow-artifacts:/")
        self._api: Any = otel_api

    def post(self, body: bytes, content_type: str | None = otlp.PROTOBUF, encoding: str | None = None) -> None:
        """Raises Refused."""
        from fastapi import HTTPException

        class Request:
            async def body(self) -> bytes:
                return body

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._api, "_get_tracking_store", lambda: self.store)
            patch.setattr(self._api, "_record_event", lambda *_: None)
            patch.setenv("MLFLOW_MODEL_CATALOG_URI", "")
            try:
                answer = asyncio.run(self._api.export_traces(Request(), "0", None, content_type, encoding, None, None))
            except HTTPException as error:
                raise Refused(error.status_code, error.detail) from None
        if answer.status_code != 200:
            raise Refused(answer.status_code, json.loads(bytes(answer.body)))

    def start(self, trace_info: Any) -> None:
        self.store.start_trace(trace_info)


def decoded(body: bytes, content_type: str | None = otlp.PROTOBUF, encoding: str | None = None) -> LoggedSpans:
    """Our rows. Raises Refused, or Declined where stock shall answer."""
    try:
        return span_rows.rows(otlp.decode(body, content_type, encoding, MAX_BYTES), PRICES)
    except otlp.OtlpRefused as error:
        raise Refused(error.status, str(error)) from None
    except PayloadTooLarge as error:
        raise Refused(error.status, str(error)) from None
    except InvalidParameter as error:
        raise Refused(error.status, error.content()) from None


class Ours:
    """A store of a few lines, on SQLite: a group of requests is one transaction."""

    def __init__(self, database: Database) -> None:
        self.connection = sqlite3.connect(database.name, isolation_level=None)
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("PRAGMA case_sensitive_like = ON")
        self.connection.execute("PRAGMA busy_timeout = 5000")

    def write(self, requests: Sequence[LoggedSpans]) -> None:
        """Raises Declined, and then nothing was done."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self._write(requests)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def _write(self, requests: Sequence[LoggedSpans]) -> None:
        by_trace: dict[str, list[TraceContribution]] = {}
        for request in requests:
            for trace in request.traces:
                by_trace.setdefault(trace.trace_id, []).append(trace)
        found = self._rows(sql.TRACE_STATES, trace_ids=sorted(by_trace))
        states = {row[0]: TraceState(*row[:-2], finalized=row[-2], elsewhere=row[-1]) for row in found}
        if any(state.elsewhere for state in states.values()):
            raise Declined("spans that are elsewhere")
        summed = [id_ for id_, state in states.items() if trace_rows.needs_nodes(state, by_trace[id_])]
        nodes: dict[str, list[Any]] = {}
        for trace_id, *rest in self._rows(sql.STORED_NODES, trace_ids=summed):
            nodes.setdefault(trace_id, []).append(stored_node(*rest))
        experiment = Experiment(*self._rows(sql.EXPERIMENTS, experiment_ids=[0])[0][:2])
        experiment_of = {}
        for trace_id, contributions in sorted(by_trace.items()):
            change = trace_rows.merged(
                states.get(trace_id), experiment.experiment_id, contributions, nodes.get(trace_id, ())
            )
            if trace_id not in states:
                change.tags[ARTIFACTS] = trace_rows.artifact_location(experiment, trace_id)
            experiment_of[trace_id] = change.row.experiment_id
            row = {name: getattr(change.row, name) for name in TraceRow.__struct_fields__}
            self._run(sql.PUT_TRACE, **row, generations=change.generations)
            for key, value in change.tags.items():
                self._run(sql.PUT_TAG, request_id=trace_id, key=key, value=value)
            if change.user_id:
                self._run(sql.ADD_USER, request_id=trace_id, user_id=change.user_id)
            if change.starts_earlier:
                self._run(sql.MOVE_ASSESSMENTS, request_id=trace_id, timestamp_ms=change.row.timestamp_ms)
        for request in requests:
            for span in request.spans:
                values = {name: getattr(span, name) for name in span.__struct_fields__}
                self._run(sql.PUT_SPAN, **values, experiment_id=experiment_of[span.trace_id])

    def _rows(self, text: str, **values: Any) -> list[Any]:
        text = re.sub(r"IN :(\w+)", r"IN (SELECT value FROM json_each(:\1))", text)
        return self.connection.execute(text, {name: json.dumps(value) for name, value in values.items()}).fetchall()

    def _run(self, text: str, **values: Any) -> None:
        self.connection.execute(text, values)


class Pair:
    """Stock on a database, and ours on another, beside a stock that answers what ours declines."""

    def __init__(self, stocks: Database, ours: Database) -> None:
        self.databases = stocks, ours
        self.stock = Stock(stocks)
        shutil.copy(stocks.name, ours.name)  # with the tables that stock has made at its start
        self.behind, self.ours = Stock(ours), Ours(ours)

    def close(self) -> None:
        self.ours.connection.close()

    def clear(self) -> None:
        """No traces in either."""
        for database in self.databases:
            with contextlib.closing(sqlite3.connect(database.name, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = OFF")
                for table in reversed(TABLES):
                    connection.execute(f"DELETE FROM {table}")

    def post(self, *bodies: bytes, content_type: str | None = otlp.PROTOBUF, encoding: str | None = None) -> bool:
        """Send the requests to both, to ours as one group; the answers agree. Whether ours answered all by itself."""
        wanted = [self._refusal(lambda b=body: self.stock.post(b, content_type, encoding)) for body in bodies]
        try:
            requests, got = [], []
            for body in bodies:
                got.append(self._refusal(lambda b=body: requests.append(decoded(b, content_type, encoding))))
            self.ours.write(requests)
        except Declined:
            got = [self._refusal(lambda b=body: self.behind.post(b, content_type, encoding)) for body in bodies]
            assert got == wanted
            return False
        assert got == wanted
        return True

    def start(self, trace_info: Any) -> None:
        """start_trace in both, by stock's code."""
        self.stock.start(trace_info)
        self.behind.start(trace_info)

    def same(self) -> None:
        """The rows of both are the same."""
        stocks, ours = (rows_of(database) for database in self.databases)
        for table in TABLES:
            assert ours[table] == stocks[table]

    @staticmethod
    def _refusal(post: Any) -> tuple[int, Any] | None:
        try:
            post()
        except Refused as refused:
            return refused.status, refused.answer
        return None


def rows_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All that a database holds of traces, in one order."""
    found = {}
    with database.connect() as connection:
        for table in TABLES:
            rows = connection.execute(sqlalchemy.text(f"SELECT * FROM {table}")).mappings()
            found[table] = sorted((dict(row) for row in rows), key=lambda row: json.dumps(row, default=str))
    return found
