"""The statements of changes: tags, links, the end of a trace of an older client, deletion."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql
from headrace.resources.traces.token_sums import COST_COLUMNS, TOKEN_COLUMNS

SET_TAG = Sql("""
INSERT INTO trace_tags (request_id, key, value)
SELECT request_id, CAST(:key AS varchar), CAST(:value AS varchar) FROM trace_info WHERE request_id = :trace_id
ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value RETURNING 1
""")
SET_METADATA = Sql("""
INSERT INTO trace_request_metadata (request_id, key, value) VALUES (:trace_id, :key, :value)
ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
""")
SET_NAME = Sql("UPDATE trace_info SET trace_name = :name WHERE request_id = :trace_id RETURNING 1")
DELETE_TAG = Sql("DELETE FROM trace_tags WHERE request_id = :trace_id AND key = :key RETURNING 1")
DELETE_NAME = Sql("""
UPDATE trace_info SET trace_name = NULL WHERE request_id = :trace_id AND trace_name IS NOT NULL RETURNING 1
""")
EXISTS = Sql("SELECT 1 FROM trace_info WHERE request_id = :trace_id")

_TOLD = ("session_id", *TOKEN_COLUMNS, *COST_COLUMNS)
_CASTS = {**dict.fromkeys(TOKEN_COLUMNS, "bigint"), **dict.fromkeys(COST_COLUMNS, "double precision")}
# What comes with an end is set, the rest stays.
END = Sql(f"""
UPDATE trace_info SET execution_time_ms = :timestamp_ms - timestamp_ms, status = :status,
  trace_name = coalesce(CAST(:name AS varchar), trace_name),
  {", ".join(f"{name} = coalesce(CAST(:{name} AS {_CASTS.get(name, 'varchar')}), {name})" for name in _TOLD)}
WHERE request_id = :trace_id RETURNING 1
""")
TOLD = _TOLD

LINK = Sql("""
INSERT INTO entity_associations
  (association_id, source_type, source_id, destination_type, destination_id, created_time)
VALUES (:association_id, 'trace', :trace_id, :kind, :linked, :created_time)
ON CONFLICT (source_type, source_id, destination_type, destination_id) DO NOTHING
""")

# ---- deletion: the rows of other tables go with a trace's, by their foreign keys ----------------------------

# The traces that are meant, oldest first, locked in the order in which stock locks them.
_SELECTED = """
SELECT t.request_id, EXISTS (
  SELECT 1 FROM trace_tags g
  WHERE g.request_id = t.request_id AND g.key = 'mlflow.trace.spansLocation' AND g.value = 'ARCHIVE_REPO') AS archived
FROM trace_info t WHERE t.experiment_id = :experiment_id AND {} ORDER BY t.timestamp_ms, t.request_id
"""
SELECT_BY_ID = Sql(_SELECTED.format("t.request_id IN :trace_ids"))
SELECT_BY_AGE = Sql(_SELECTED.format("t.timestamp_ms <= :most") + " LIMIT :limit")
LOCK = Sql(
    postgresql="SELECT request_id FROM trace_info WHERE request_id IN :trace_ids ORDER BY timestamp_ms, request_id"
    " FOR UPDATE",
    sqlite="SELECT request_id FROM trace_info WHERE request_id IN :trace_ids",
)
DELETE = Sql("DELETE FROM trace_info WHERE request_id IN :trace_ids RETURNING 1")
DELETE_REVIEWS = Sql("DELETE FROM review_queue_items WHERE item_type = 'trace' AND item_id IN :trace_ids")

# What stock has summed up by day must be summed up again (_enqueue_rollup_rebuilds_for_trace_delete). The conflict's
# update locks the row, as stock does, in its order.
_QUEUE = """
INSERT INTO sql_trace_rollup_rebuild_queue (experiment_id, rollup_day, rollup_family)
SELECT * FROM (
  SELECT experiment_id, {trace} AS rollup_day, 'trace_metric' AS rollup_family FROM trace_info
  WHERE request_id IN :trace_ids AND timestamp_ms <= :eligible
  UNION SELECT experiment_id, {span}, 'span_cost' FROM spans
  WHERE trace_id IN :trace_ids AND experiment_id IS NOT NULL AND start_time_unix_nano / 1000000 <= :eligible
  UNION SELECT experiment_id, {assessment}, 'assessment' FROM assessments
  WHERE trace_id IN :trace_ids AND experiment_id IS NOT NULL AND trace_timestamp_ms <= :eligible
) AS affected WHERE true ORDER BY 1, 2, 3
ON CONFLICT (experiment_id, rollup_day, rollup_family) DO UPDATE SET rollup_family = excluded.rollup_family
"""


def _days(day: str) -> dict[str, str]:
    return {
        "trace": day.format("timestamp_ms / 1000"),
        "span": day.format("start_time_unix_nano / 1000000000"),
        "assessment": day.format("trace_timestamp_ms / 1000"),
    }


QUEUE_REBUILDS = Sql(
    postgresql=_QUEUE.format(**_days("(to_timestamp({}) AT TIME ZONE 'UTC')::date")),
    sqlite=_QUEUE.format(**_days("date({}, 'unixepoch')")),
)
