"""Stock's daily sums, where it keeps them: what assessments change is queued to be summed anew, as stock queues it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlflow.entities import Feedback
from mlflow.entities.span import Span

from headrace.api.endpoint import Call
from headrace.db.database import Database as Store
from headrace.db.postgres import PostgresDatabase
from headrace.db.sqlite import SqliteDatabase
from headrace.resources.assessments import endpoints, messages, rollups, writes
from headrace.resources.experiments import endpoints as experiments
from headrace.resources.experiments.messages import GetExperiment
from headrace.resources.runs import change_endpoints as runs
from headrace.resources.runs.messages import RunOnly
from headrace.settings import Settings
from tests.differential import search_data
from tests.support.databases import BACKENDS, Backend, Database, Databases
from tests.unit.traces.spans import request, span

TRACE = b"summed" + b"\1" * 10
MADE_BY = "mlflow.assessment.sourceRunId"


@pytest.mark.parametrize("backend", BACKENDS)
def test_queued_as_by_stock(
    backend: Backend, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", "true")
    for module in (rollups, writes):
        monkeypatch.setattr(module, "KEEPS_ROLLUPS", True)
    monkeypatch.setattr(writes.CreateAssessment, "one_statement", False)
    database = databases.migrated(backend)
    stock: Any = search_data.open_stock(database, str(tmp_path))
    stock.log_spans(
        "0", [Span.from_otel_proto(request(span(trace_id=TRACE)).resource_spans[0].scope_spans[0].spans[0])]
    )
    trace_id = f"tr-{TRACE.hex()}"
    headrace: Store
    if backend == "postgresql":
        headrace = PostgresDatabase(database.url, queue_limit=10)
    else:
        headrace = SqliteDatabase(database.name, queue_limit=10)

    with asyncio.Runner() as runner:

        def ask(answer: Coroutine[Any, Any, Any]) -> Any:
            """What a handler answers; and it queues what stock does."""
            said = runner.run(answer)
            assert taken(database) == expected
            return said

        def new(run_id: str | None = None) -> str:
            metadata = {MADE_BY: run_id} if run_id else {}
            given = {"assessment": {"feedback": {"value": 1}, "metadata": metadata}, "trace_id": trace_id}
            message = msgspec.convert(given, messages.CreateAssessment)
            return str(ask(endpoints.create_assessment(call, message))["assessment"].assessment_id)

        runner.run(headrace.start())
        call = Call(headrace, Settings())
        taken(database)
        first = stock.create_assessment(Feedback("quality", 1, trace_id=trace_id))
        expected = taken(database)
        assert len(expected) == 1
        ours = new()
        stock.delete_assessment(trace_id, first.assessment_id)
        assert taken(database) == expected
        update = messages.UpdateAssessment(messages.Assessment(rationale="x"), "rationale", trace_id, ours)
        ask(endpoints.update_assessment(call, update))
        ask(endpoints.delete_assessment(call, messages.AssessmentOnly(trace_id, ours)))
        experiment_id = stock.create_experiment("of runs")
        deletions: list[tuple[str, Any, Any]] = [
            ("0", runs.delete_run, RunOnly),
            (experiment_id, experiments.delete_experiment, GetExperiment),
        ]
        for of, handler, message in deletions:
            run_id = stock.create_run(of, "me", 1, [], "run").info.run_id
            new(run_id)
            ask(handler(call, message(run_id if message is RunOnly else of)))
        expected = []
        ask(endpoints.delete_assessment(call, messages.AssessmentOnly(trace_id, "nobody")))
        assert database.query("SELECT * FROM assessments") == []
        runner.run(headrace.close())
    stock.engine.dispose()


def taken(database: Database) -> list[tuple[Any, ...]]:
    """What is queued, which is taken out."""
    rows = database.query("SELECT * FROM sql_trace_rollup_rebuild_queue WHERE rollup_family = 'assessment'")
    with database.connect() as connection:
        connection.exec_driver_sql("DELETE FROM sql_trace_rollup_rebuild_queue")
        connection.commit()
    return sorted((row["experiment_id"], str(row["rollup_day"]), row["rollup_family"]) for row in rows)
