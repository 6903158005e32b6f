"""Stock's daily sums of assessments, which it keeps with MLFLOW_SQL_TRACE_ROLLUPS_ENABLED: what is changed must be
queued for it to sum anew, before the rows are changed (sql_trace_rollups.enqueue_rollup_rebuilds)."""

from __future__ import annotations

import os

from headrace.clock import now_ms
from headrace.db.query import Sql

KEEPS_ROLLUPS = os.environ.get("MLFLOW_SQL_TRACE_ROLLUPS_ENABLED", "false").lower() in ("true", "1")
_DAY_MS = 86_400_000


_QUEUE = """
INSERT INTO sql_trace_rollup_rebuild_queue (experiment_id, rollup_day, rollup_family)
SELECT DISTINCT experiment_id, {day}, 'assessment' FROM {table}
WHERE experiment_id IS NOT NULL AND {time} <= :eligible AND {condition} ORDER BY 1, 2
ON CONFLICT (experiment_id, rollup_day, rollup_family) DO UPDATE SET rollup_family = excluded.rollup_family
"""


def queue(postgresql: str, sqlite: str, table: str = "assessments", time: str = "trace_timestamp_ms") -> Sql:
    """Queue the days of the rows that fulfil the condition. One that is queued already is locked: its sum waits."""
    return Sql(
        postgresql=_QUEUE.format(
            day=f"(to_timestamp({time} / 1000.0) AT TIME ZONE 'UTC')::date",
            table=table, time=time, condition=postgresql,
        ),
        sqlite=_QUEUE.format(
            day=f"date({time} / 1000.0, 'unixepoch')", table=table, time=time, condition=sqlite
        ),
    )  # fmt: skip


_OF_TRACES = "request_id IN :trace_ids"
OF_TRACES = queue(_OF_TRACES, _OF_TRACES, "trace_info", "timestamp_ms")
_OF_ONE = "trace_id = :trace_id AND assessment_id = :assessment_id"
OF_ASSESSMENT = queue(_OF_ONE, _OF_ONE)


def eligible() -> int:
    """Only what is older has been summed."""
    return now_ms() - _DAY_MS
