"""Headrace's own indexes on MLflow's tables. They are additive: stock works with them, and without them all is right.

They are built in the background after a start. `headrace_runs_newest` gives the newest runs of an experiment, the
first page that everybody opens, without reading the others, and `headrace_logged_models_newest` its newest models.
`headrace_latest_metrics_value` gives the top runs by a metric, `headrace_traces_failed` the newest traces that failed,
which may be few among many. docs/search.md says what they cost.
"""

from __future__ import annotations

from msgspec import Struct


class Index(Struct, frozen=True):
    """`columns` is what stands in the parentheses of CREATE INDEX, `only` which rows it has, in both dialects."""

    name: str
    table: str
    columns: str
    only: str = ""

    def create(self, how: str = "") -> str:
        where = f" WHERE {self.only}" if self.only else ""
        return f"CREATE INDEX {how} IF NOT EXISTS {self.name} ON {self.table} ({self.columns}){where}"


INDEXES = (
    Index("headrace_runs_newest", "runs", "experiment_id, lifecycle_stage, start_time DESC, run_uuid"),
    Index("headrace_latest_metrics_value", "latest_metrics", "key, value", "NOT is_nan"),
    Index(
        "headrace_logged_models_newest",
        "logged_models",
        "experiment_id, creation_timestamp_ms DESC, model_id",
        "lifecycle_stage <> 'deleted'",
    ),
    Index("headrace_traces_failed", "trace_info", "experiment_id, timestamp_ms DESC, request_id", "status = 'ERROR'"),
)
