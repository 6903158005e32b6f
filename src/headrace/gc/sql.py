"""The statements of gc. What goes with what is gone: resources/experiments/removal_sql.py."""

from __future__ import annotations

from headrace.db.query import Sql

# ---- what goes. A deleted_time or last_update_time of 0 says that gc is at it: it is not restored any more, and
# a gc that was broken off finds it again.

_ELSEWHERE = "AND experiment_id NOT IN :done"
_RUN = "SELECT run_uuid, artifact_uri, lifecycle_stage, deleted_time FROM runs WHERE"
_NEXT_RUNS = "AND run_uuid > :after ORDER BY run_uuid LIMIT :most"
RUNS = Sql(f"{_RUN} lifecycle_stage = 'deleted' AND deleted_time <= :before {_ELSEWHERE} {_NEXT_RUNS}")
RUNS_OF = Sql(f"{_RUN} experiment_id = :experiment_id {_NEXT_RUNS}")
RUNS_NAMED = Sql(f"{_RUN} run_uuid IN :ids ORDER BY run_uuid")

_MODEL = "SELECT model_id, artifact_location, lifecycle_stage, last_updated_timestamp_ms FROM logged_models WHERE"
_NEXT_MODELS = "AND model_id > :after ORDER BY model_id LIMIT :most"
MODELS = Sql(
    f"{_MODEL} lifecycle_stage = 'deleted' AND last_updated_timestamp_ms <= :before {_ELSEWHERE} {_NEXT_MODELS}"
)
MODELS_OF = Sql(f"{_MODEL} experiment_id = :experiment_id {_NEXT_MODELS}")
MODELS_NAMED = Sql(f"{_MODEL} model_id IN :ids ORDER BY model_id")

_EXPERIMENT = "SELECT experiment_id, artifact_location, lifecycle_stage, last_update_time, name FROM experiments WHERE"
EXPERIMENTS = Sql(f"{_EXPERIMENT} lifecycle_stage = 'deleted' AND last_update_time <= :before ORDER BY experiment_id")
EXPERIMENTS_NAMED = Sql(f"{_EXPERIMENT} experiment_id IN :ids ORDER BY experiment_id")
ACTIVE_RUNS = Sql("""
SELECT count(*) FROM runs WHERE experiment_id = :experiment_id AND lifecycle_stage <> 'deleted'
""")
ARCHIVED_TRACE = Sql("""
SELECT 1 FROM trace_info t JOIN trace_tags g ON g.request_id = t.request_id
WHERE t.experiment_id = :experiment_id AND g.key = 'mlflow.trace.spansLocation' AND g.value = 'ARCHIVE_REPO' LIMIT 1
""")
LOCATED_THERE = Sql("""
SELECT count(*) FROM experiments
WHERE experiment_id <> :experiment_id AND substr(artifact_location, 1, length(:location)) = :location
""")
# Versions that somebody can load: of which run, from where.
VERSIONS = Sql("SELECT name, version, run_id, source FROM model_versions WHERE current_stage <> 'Deleted_Internal'")

COUNT_METRICS = Sql("SELECT count(*) FROM metrics WHERE run_uuid IN :ids")
COUNT_TRACES = Sql("SELECT count(*) FROM trace_info WHERE experiment_id = :experiment_id")

# ---- how it goes ---------------------------------------------------------------------------------------------------

MARK_RUNS = Sql("""
UPDATE runs SET deleted_time = 0 WHERE run_uuid IN :ids AND lifecycle_stage = 'deleted' RETURNING run_uuid
""")
MARK_EXPERIMENT = Sql("""
UPDATE experiments SET last_update_time = 0
WHERE experiment_id = :experiment_id AND lifecycle_stage = 'deleted' RETURNING 1
""")
METRICS = Sql(
    postgresql="""
DELETE FROM metrics WHERE ctid = ANY(ARRAY(SELECT ctid FROM metrics WHERE run_uuid IN :ids LIMIT :most)) RETURNING 1
""",
    sqlite="""
DELETE FROM metrics WHERE rowid IN (SELECT rowid FROM metrics WHERE run_uuid IN :ids LIMIT :most) RETURNING 1
""",
)

GONE_RUNS = Sql("""
DELETE FROM runs WHERE run_uuid IN :ids AND lifecycle_stage = 'deleted' AND deleted_time = 0 RETURNING run_uuid
""")

GONE_MODELS = Sql("DELETE FROM logged_models WHERE model_id IN :ids RETURNING model_id")

GONE_EXPERIMENT = Sql("""
DELETE FROM experiments
WHERE experiment_id = :experiment_id AND lifecycle_stage = 'deleted' AND last_update_time = 0 RETURNING 1
""")
# SQLite gives the number of an experiment that is gone to the next one.
DROP_GRANTS = Sql("""
DELETE FROM headrace_grants WHERE kind = 'experiment' AND object = :experiment_text
""")
