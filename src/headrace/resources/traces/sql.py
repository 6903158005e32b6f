"""The statements of ingestion, with `:name` parameters; `IN :names` takes a list.

A group of requests is one transaction, its traces in the order of their ids, so that two groups lock them in the same
order:

    states   LOCK_TRACES (PostgreSQL), then TRACE_STATES of what it found: not one statement, since the mark of
             start_trace and the stored spans are rows of other tables, which a statement that has waited for a lock
             still sees as they were before. SQLite has one writer (BEGIN IMMEDIATE), which needs no lock.
    refuse   What is `elsewhere` is stock's to refuse, a trace of an experiment that the caller may not edit is ours;
             such a request leaves its group before anything is written.
    new      PostgreSQL: NEW_TRACES writes the traces that are not there yet, whole, and answers which they are. It
             waits for another worker that is about to make the same trace; what that one has made is locked, read and
             merged like the others.
    sums     STORED_NODES of the traces for which `trace_rows.needs_nodes`.
    merge    `trace_rows.merged`, in Python: the row, its tags, its user.
    write    PostgreSQL: SET_TRACES with arrays, one statement, however many requests. SQLite: PUT_TRACE, PUT_SPAN,
             PUT_TAG, ADD_USER, MOVE_ASSESSMENTS, once a row.

PostgreSQL: the usual group is done before all that, with one or two statements that commit by themselves. NEW_TRACES
for traces of which this worker has written no span yet, ADD_SPANS for the others, and for those that are there all the
same; for what is gone again, NEW_TRACES. A root comes last and began first: with one in a group ADD_SPANS may give
traces an earlier start, and MOVE their assessments, in a transaction.

Nobody can come between LOCK_TRACES and the commit, so the last writer of a trace sees the spans of all before it, and
the sums are right. start_trace must lock the row, too; it overwrites (stock's _start_trace_once).
"""

from __future__ import annotations

from headrace.db.query import given_rows
from headrace.resources.traces.info import TraceRow
from headrace.resources.traces.span_rows import SpanRow

# ruff: noqa: S608  (the texts are made of constants of this module)

_TRACE = TraceRow.__struct_fields__
_SPAN = SpanRow.__struct_fields__
_TYPES = {
    **dict.fromkeys(("experiment_id", "generations"), "integer"),
    **dict.fromkeys(("timestamp_ms", "execution_time_ms", "start_time_unix_nano", "end_time_unix_nano"), "bigint"),
    **dict.fromkeys((name for name in _TRACE if "tokens" in name), "bigint"),
    **dict.fromkeys(("input_cost", "output_cost", "total_cost"), "double precision"),
    "only_here": "boolean",
    **dict.fromkeys(("tags", "metadata"), "json"),
}


# The experiment e of the row n, looked up by its key alone (OFFSET 0), however few experiments there are.
ITS_EXPERIMENT = """CROSS JOIN LATERAL (
    SELECT workspace, lifecycle_stage, artifact_location FROM experiments x
    WHERE x.experiment_id = n.experiment_id OFFSET 0
  ) AS e"""
# The folder of the trace n's artifacts in the experiment e, whose location is plain (trace_rows.artifact_location).
FOLDER = """e.artifact_location || CASE WHEN e.artifact_location LIKE '%/' THEN '' ELSE '/' END
    || 'traces/' || n.request_id || '/artifacts'"""


def _set(columns: tuple[str, ...], keys: int) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns[keys:])


# Does the experiment exist, and where are its artifacts? Also one that is deleted (stock's get_experiment).
EXPERIMENTS = (
    "SELECT experiment_id, artifact_location, workspace FROM experiments WHERE experiment_id IN :experiment_ids"
)

# PostgreSQL only.
LOCK_TRACES = "SELECT request_id FROM trace_info WHERE request_id IN :trace_ids ORDER BY request_id FOR UPDATE"

# The fields of trace_rows.TraceState, in their order.
TRACE_STATES = f"""
SELECT {", ".join(_TRACE)},
  EXISTS (
    SELECT 1 FROM trace_request_metadata m
    WHERE m.request_id = trace_info.request_id AND m.key = 'mlflow.trace.infoFinalized'
  ) AS finalized,
  EXISTS (
    SELECT 1 FROM trace_tags g
    WHERE g.request_id = trace_info.request_id AND g.key = 'mlflow.trace.spansLocation' AND g.value <> 'TRACKING_STORE'
  ) AS elsewhere
FROM trace_info WHERE request_id IN :trace_ids
"""

# The arguments of token_sums.stored_node. The content only of spans that say something: the names in it are never
# escaped.
STORED_NODES = """
SELECT trace_id, span_id, parent_span_id,
  CASE WHEN content LIKE '%"mlflow.chat.tokenUsage"%' OR content LIKE '%"mlflow.llm.cost"%' THEN content END AS content
FROM spans WHERE trace_id IN :trace_ids
"""

# ---- SQLite: a row each --------------------------------------------------------------------------------------------

PUT_TRACE = f"""
INSERT INTO trace_info ({", ".join(_TRACE)}, db_payload_generation)
VALUES ({", ".join(f":{column}" for column in _TRACE)}, :generations)
ON CONFLICT (request_id) DO UPDATE SET {_set(_TRACE, 2)},
  db_payload_generation = trace_info.db_payload_generation + excluded.db_payload_generation
"""

PUT_SPAN = f"""
INSERT INTO spans (experiment_id, {", ".join(_SPAN)}) VALUES (:experiment_id, {", ".join(f":{name}" for name in _SPAN)})
ON CONFLICT (trace_id, span_id) DO UPDATE SET experiment_id = excluded.experiment_id, {_set(_SPAN, 2)}
"""

PUT_TAG = """
INSERT INTO trace_tags (request_id, key, value) VALUES (:request_id, :key, :value)
ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
"""

ADD_USER = """
INSERT INTO trace_request_metadata (request_id, key, value) VALUES (:request_id, 'mlflow.trace.user', :user_id)
ON CONFLICT (request_id, key) DO NOTHING
"""

MOVE_ASSESSMENTS = "UPDATE assessments SET trace_timestamp_ms = :timestamp_ms WHERE trace_id = :request_id"

# ---- PostgreSQL: arrays --------------------------------------------------------------------------------------------

_TRACE_ROWS = given_rows("trace_", _TYPES, *_TRACE, "generations")
_NEW_ROWS = given_rows("trace_", _TYPES, *_TRACE, "generations", "workspace")
_WIDENED_ROWS = given_rows("trace_", _TYPES, *_TRACE, "generations", "only_here")
_SPAN_ROWS = given_rows("span_", _TYPES, *_SPAN)
_TAG_ROWS = f"{given_rows('trace_', _TYPES, 'request_id', 'tags')} CROSS JOIN json_each_text(n.tags) AS tag"
_USER_ROWS = given_rows("trace_", _TYPES, "request_id", "user_id")
_MOVED_ROWS = given_rows("moved_", _TYPES, "request_id", "timestamp_ms")
_SPAN_COLUMNS = ", ".join(_SPAN)

# Not made are also traces of an experiment that is not in the workspace, or whose artifacts' place is not `:plain`.
NEW_TRACES = f"""
WITH given AS (
  SELECT n.*, {FOLDER} AS folder FROM {_NEW_ROWS}
  {ITS_EXPERIMENT} WHERE e.workspace = n.workspace AND e.artifact_location ~ :plain
), made AS (
  INSERT INTO trace_info ({", ".join(_TRACE)}, db_payload_generation)
  SELECT {", ".join(_TRACE)}, generations FROM given ORDER BY request_id
  ON CONFLICT (request_id) DO NOTHING RETURNING request_id, experiment_id
), put_spans AS (
  INSERT INTO spans (experiment_id, {_SPAN_COLUMNS})
  SELECT made.experiment_id, n.* FROM {_SPAN_ROWS} JOIN made ON made.request_id = n.trace_id
), put_tags AS (
  INSERT INTO trace_tags (request_id, key, value)
  SELECT n.request_id, tag.key, tag.value FROM {_TAG_ROWS} JOIN made ON made.request_id = n.request_id
  UNION ALL SELECT request_id, 'mlflow.artifactLocation', folder FROM given JOIN made USING (request_id)
), put_users AS (
  INSERT INTO trace_request_metadata (request_id, key, value)
  SELECT n.request_id, 'mlflow.trace.user', n.user_id FROM {_USER_ROWS} JOIN made ON made.request_id = n.request_id
  WHERE n.user_id IS NOT NULL
)
SELECT request_id FROM made
"""

# Spans of traces that are there, in one statement: of those (request_id, whether it is done, where it begins earlier
# now: when). Not done are traces whose spans are elsewhere, those that must be `only_here` and are not, and those that
# would begin earlier, unless they may: within a transaction, in which MOVE follows. A statement sees other tables as
# they were when it began, but ON CONFLICT sees the tag as it is: so nobody has archived the trace before the lock.
ADD_SPANS = f"""
WITH given AS (SELECT * FROM {_WIDENED_ROWS}), locked AS (
  SELECT request_id, experiment_id, timestamp_ms FROM trace_info
  WHERE request_id IN :trace_request_id ORDER BY request_id FOR UPDATE
), located AS (
  INSERT INTO trace_tags (request_id, key, value)
  SELECT request_id, 'mlflow.trace.spansLocation', 'TRACKING_STORE' FROM locked JOIN given n USING (request_id)
  WHERE locked.experiment_id = n.experiment_id OR NOT n.only_here
  ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value WHERE trace_tags.value = excluded.value
  RETURNING request_id
), changed AS (
  UPDATE trace_info t SET
    timestamp_ms = least(t.timestamp_ms, n.timestamp_ms),
    execution_time_ms = greatest(t.timestamp_ms + t.execution_time_ms, n.timestamp_ms + n.execution_time_ms)
      - least(t.timestamp_ms, n.timestamp_ms),
    status = CASE
      WHEN t.status IN ('IN_PROGRESS', 'STATE_UNSPECIFIED') AND n.status <> 'IN_PROGRESS' THEN n.status
      ELSE t.status END,
    request_preview = coalesce(t.request_preview, n.request_preview),
    response_preview = coalesce(t.response_preview, n.response_preview),
    trace_name = coalesce(n.trace_name, t.trace_name),
    db_payload_generation = t.db_payload_generation + n.generations
  FROM given n JOIN located USING (request_id)
  WHERE t.request_id = n.request_id AND (t.timestamp_ms <= n.timestamp_ms OR :may_begin_earlier::boolean)
  RETURNING t.request_id, t.experiment_id, t.timestamp_ms
), put_spans AS (
  INSERT INTO spans (experiment_id, {_SPAN_COLUMNS})
  SELECT changed.experiment_id, n.* FROM {_SPAN_ROWS} JOIN changed ON changed.request_id = n.trace_id
  ON CONFLICT (trace_id, span_id) DO UPDATE SET experiment_id = excluded.experiment_id, {_set(_SPAN, 2)}
), put_tags AS (
  INSERT INTO trace_tags (request_id, key, value)
  SELECT n.request_id, tag.key, tag.value FROM {_TAG_ROWS} JOIN changed ON changed.request_id = n.request_id
  WHERE tag.key <> 'mlflow.trace.spansLocation'
  ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
)
SELECT locked.request_id, changed.request_id IS NOT NULL,
  CASE WHEN changed.timestamp_ms < locked.timestamp_ms THEN changed.timestamp_ms END
FROM locked LEFT JOIN changed ON changed.request_id = locked.request_id
"""

# A statement after the lock, which sees the assessments that came before it.
MOVE = f"UPDATE assessments SET trace_timestamp_ms = n.timestamp_ms FROM {_MOVED_ROWS} WHERE trace_id = n.request_id"

# The statements of a CTE see the rows as they were before it: here they are told whose experiment is whose.
SET_TRACES = f"""
WITH changed AS (
  UPDATE trace_info SET {", ".join(f"{column} = n.{column}" for column in _TRACE[2:])},
    db_payload_generation = trace_info.db_payload_generation + n.generations
  FROM {_TRACE_ROWS} WHERE trace_info.request_id = n.request_id
  RETURNING trace_info.request_id, trace_info.experiment_id
), put_spans AS (
  INSERT INTO spans (experiment_id, {_SPAN_COLUMNS})
  SELECT changed.experiment_id, n.* FROM {_SPAN_ROWS} JOIN changed ON changed.request_id = n.trace_id
  ON CONFLICT (trace_id, span_id) DO UPDATE SET experiment_id = excluded.experiment_id, {_set(_SPAN, 2)}
), put_tags AS (
  INSERT INTO trace_tags (request_id, key, value) SELECT n.request_id, tag.key, tag.value FROM {_TAG_ROWS}
  ON CONFLICT (request_id, key) DO UPDATE SET value = excluded.value
), put_users AS (
  INSERT INTO trace_request_metadata (request_id, key, value)
  SELECT request_id, 'mlflow.trace.user', user_id FROM {_USER_ROWS} WHERE user_id IS NOT NULL
  ON CONFLICT (request_id, key) DO NOTHING
)
{MOVE}
"""

# ---- the run's link, after the spans, in a transaction of its own as stock's ----------------------------------------

# At most 100 traces, or none is linked; a link that fails is logged, and the spans stay (stock's export_traces).
LINK_RUN = """
INSERT INTO entity_associations
  (association_id, source_type, source_id, destination_type, destination_id, created_time)
VALUES (:association_id, 'trace', :trace_id, 'run', :run_id, :created_time)
ON CONFLICT (source_type, source_id, destination_type, destination_id) DO NOTHING
"""
