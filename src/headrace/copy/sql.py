"""The statements of a copy that read or write a few rows; tables.py has those of the many."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql

# ---- experiments ---------------------------------------------------------------------------------------------------

_EXPERIMENT = "SELECT experiment_id, name, workspace, lifecycle_stage, artifact_location FROM experiments"
EXPERIMENTS = Sql(f"{_EXPERIMENT} ORDER BY experiment_id")
EXPERIMENT_NAMED = Sql(f"{_EXPERIMENT} WHERE workspace = :workspace AND name = :name")
ID_TAKEN = Sql("SELECT 1 FROM experiments WHERE experiment_id = :experiment_id")
NEXT_ID = Sql("SELECT coalesce(max(experiment_id), 0) + 1 FROM experiments")
# The next experiment that a server makes gets an id of its own.
ADVANCE_IDS = Sql(
    postgresql="""
SELECT setval(pg_get_serial_sequence('experiments', 'experiment_id'), (SELECT max(experiment_id) FROM experiments))
""",
    sqlite="SELECT 1",
)
# Those that have something whose files are behind a server.
SERVED = Sql("""
SELECT e.name FROM experiments e
WHERE e.experiment_id IN :ids AND substr(e.artifact_location, 1, length(:scheme)) = :scheme AND (
  EXISTS (SELECT 1 FROM runs r WHERE r.experiment_id = e.experiment_id)
  OR EXISTS (SELECT 1 FROM logged_models m WHERE m.experiment_id = e.experiment_id)
  OR EXISTS (SELECT 1 FROM trace_info t WHERE t.experiment_id = e.experiment_id))
ORDER BY e.experiment_id LIMIT 1
""")
DATASETS = Sql("""
SELECT name, digest, dataset_uuid FROM datasets WHERE experiment_id = :experiment_id
""")
SCORERS_OF = Sql("SELECT scorer_id FROM scorers WHERE experiment_id = :experiment_id")
QUEUES_OF = Sql("SELECT queue_id FROM review_queues WHERE experiment_id = :experiment_id")
SCORERS = Sql("SELECT scorer_id FROM scorers WHERE scorer_id IN :ids")
QUEUES = Sql("SELECT queue_id FROM review_queues WHERE queue_id IN :ids")
SCHEMAS = Sql("SELECT schema_id FROM label_schemas WHERE experiment_id = :experiment_id")

# ---- runs, logged models, traces: their ids with where their files are, portion by portion; which are there --------

RUNS = Sql("""
SELECT run_uuid, artifact_uri, status FROM runs WHERE experiment_id = :experiment_id AND run_uuid > :after
ORDER BY run_uuid LIMIT :most
""")
RUNS_THERE = Sql("SELECT run_uuid, artifact_uri, status FROM runs WHERE run_uuid IN :ids")
MODELS = Sql("""
SELECT model_id, artifact_location, NULL FROM logged_models WHERE experiment_id = :experiment_id AND model_id > :after
ORDER BY model_id LIMIT :most
""")
MODELS_THERE = Sql("SELECT model_id, artifact_location, NULL FROM logged_models WHERE model_id IN :ids")
_TRACE = """
SELECT t.request_id, g.value, NULL FROM trace_info t
LEFT JOIN trace_tags g ON g.request_id = t.request_id AND g.key = 'mlflow.artifactLocation'
"""
TRACES = Sql(f"""
{_TRACE} WHERE t.experiment_id = :experiment_id AND t.request_id > :after ORDER BY t.request_id LIMIT :most
""")
TRACES_THERE = Sql(f"{_TRACE} WHERE t.request_id IN :ids")


def _counts(key: str, *tables: str) -> str:
    return " UNION ALL ".join(
        f"SELECT {key}, '{table}' AS of, count(*) AS n FROM {table} WHERE {key} IN :ids GROUP BY {key}"
        for table in tables
    )


# id, table, rows
RUN_COUNTS = Sql(f"""
{_counts("run_uuid", "params", "tags", "metrics", "latest_metrics")}
UNION ALL SELECT destination_id, 'inputs', count(*) FROM inputs
WHERE destination_type = 'RUN' AND destination_id IN :ids GROUP BY destination_id
UNION ALL SELECT source_id, 'outputs', count(*) FROM inputs
WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN :ids GROUP BY source_id
""")
MODEL_COUNTS = Sql(_counts("model_id", "logged_model_params", "logged_model_tags", "logged_model_metrics"))
TRACE_COUNTS = Sql(
    f"{_counts('request_id', 'trace_tags', 'trace_request_metadata', 'trace_metrics')} UNION ALL "
    f"{_counts('trace_id', 'spans', 'span_metrics', 'assessments')}"
)
ENDED_RUNS = Sql("SELECT run_uuid FROM runs WHERE status NOT IN ('RUNNING', 'SCHEDULED')")
RUN_IDS = Sql("SELECT run_uuid FROM runs WHERE run_uuid IN :ids")
RUNS_OF_MODELS = Sql("SELECT DISTINCT run_id FROM logged_model_metrics WHERE model_id IN :ids")
RUNS_OF_ISSUES = Sql("SELECT DISTINCT source_run_id FROM issues WHERE experiment_id = :experiment_id")

# ---- the registry --------------------------------------------------------------------------------------------------

REGISTERED_MODELS = Sql("""
SELECT workspace, name FROM registered_models WHERE workspace > :workspace OR workspace = :workspace AND name > :name
ORDER BY workspace, name LIMIT :most
""")
REGISTERED_MODEL_THERE = Sql("SELECT 1 FROM registered_models WHERE workspace = :workspace AND name = :name")
VERSIONS = Sql("""
SELECT version, creation_time, run_id, source, storage_location FROM model_versions
WHERE workspace = :workspace AND name = :name ORDER BY version
""")
ALIASES = Sql("""
SELECT alias, version FROM registered_model_aliases WHERE workspace = :workspace AND name = :name
""")
FILES_OF = Sql("""
SELECT run_uuid AS id, experiment_id, artifact_uri FROM runs WHERE run_uuid IN :run_ids
UNION ALL SELECT model_id, experiment_id, artifact_location FROM logged_models WHERE model_id IN :model_ids
""")

# ---- the rest ------------------------------------------------------------------------------------------------------

WORKSPACES = Sql("SELECT name FROM workspaces ORDER BY name")
EVALUATION_DATASETS = Sql("""
SELECT dataset_id FROM evaluation_datasets WHERE dataset_id > :after ORDER BY dataset_id LIMIT :most
""")
EVALUATION_DATASETS_THERE = Sql("SELECT dataset_id FROM evaluation_datasets WHERE dataset_id IN :ids")
EXPERIMENTS_OF_DATASETS = Sql("""
SELECT source_id, destination_id FROM entity_associations
WHERE source_type = 'evaluation_dataset' AND destination_type = 'experiment' AND source_id IN :ids
""")
