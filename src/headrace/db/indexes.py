"""Headrace's own indexes on MLflow's tables. They are additive: stock works with them, and without them all is right.

They are built in the background after a start. `headrace_runs_newest` gives the newest runs of an experiment, the
first page that everybody opens, without reading the others, and `headrace_logged_models_newest` its newest models.
`headrace_latest_metrics_value` gives the top runs by a metric, `headrace_traces_failed` the newest traces that failed,
which may be few among many. docs/search.md says what they cost.

On PostgreSQL `HISTORIES` stands in the place of an index of MLflow's own, whose columns it begins with:
`ON_POSTGRESQL` are all.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from headrace.db.query import Bound, Sql


class Index(Struct, frozen=True):
    """`columns` is what stands in the parentheses of CREATE INDEX, `only` which rows it has, in both dialects.

    `include`: what else of a row its entries hold, on PostgreSQL. `otherwise`: what it is where it is not as here.
    """

    name: str
    table: str
    columns: str
    only: str = ""
    include: tuple[str, ...] = ()
    otherwise: str = "half built"

    def create(self, how: str = "") -> str:
        return f"CREATE INDEX {how} IF NOT EXISTS {self.name} ON {self}"

    def __str__(self) -> str:
        include = f" INCLUDE ({', '.join(self.include)})" if self.include else ""
        where = f" WHERE {self.only}" if self.only else ""
        return f"{self.table} ({self.columns}){include}{where}"

    def state(self, ready: bool | None) -> str:
        """What to say of it; None: it is not there."""
        return "ready" if ready else f"{'missing' if ready is None else self.otherwise}: `headrace db indexes build`"


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
# A run that trained beside others has its points on as many pages of the table, and on 20 to 50 of this index.
MLFLOWS_STEPS = Index("index_metrics_run_uuid_key_step", "metrics", "run_uuid, key, step")
HISTORIES = replace(MLFLOWS_STEPS, include=("timestamp", "value", "is_nan"), otherwise="as MLflow makes it")
ON_POSTGRESQL = (*INDEXES, HISTORIES)

_WHICH_ARE_READY = Sql(
    postgresql="""
SELECT c.relname AS name, i.indisvalid AND i.indnatts - i.indnkeyatts = wanted.included AS ready
FROM unnest(:names::name[], :tables::text[], :included::int[]) AS wanted (name, tbl, included)
JOIN pg_class c ON c.relname = wanted.name
JOIN pg_index i ON i.indexrelid = c.oid AND i.indrelid = to_regclass(wanted.tbl)
""",
    sqlite="SELECT name, 1 AS ready FROM sqlite_master WHERE type = 'index' AND name IN :names",
)


def which_are_ready(indexes: Sequence[Index]) -> Bound:
    """Of those that are there a row each: `name`, and whether it is whole and has these columns (`ready`)."""
    return _WHICH_ARE_READY(
        names=[index.name for index in indexes],
        tables=[index.table for index in indexes],
        included=[len(index.include) for index in indexes],
    )
