"""The statements of `headrace runs move`."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql

EXPERIMENT = Sql("""
SELECT experiment_id, artifact_location, workspace FROM experiments
WHERE lifecycle_stage = 'active' AND (name = :name OR experiment_id = :experiment_id
  AND NOT EXISTS (SELECT 1 FROM experiments n WHERE n.name = :name AND n.lifecycle_stage = 'active'))
""")
RUN = Sql("""
SELECT r.run_uuid, r.artifact_uri, r.status, r.experiment_id, e.workspace FROM runs r
JOIN experiments e ON e.experiment_id = r.experiment_id WHERE r.run_uuid = :run_id
""")
NESTED = Sql("SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = :run_id ORDER BY run_uuid")
MODELS = Sql("SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = :run_id ORDER BY model_id")
TRACES = Sql("""
SELECT m.request_id, g.value FROM trace_request_metadata m
LEFT JOIN trace_tags g ON g.request_id = m.request_id AND g.key = 'mlflow.artifactLocation'
WHERE m.key = 'mlflow.sourceRun' AND m.value = :run_id ORDER BY m.request_id
""")

# The guard: a run that is under way again by now stays.
MOVE = Sql("""
UPDATE runs SET experiment_id = :to
WHERE run_uuid = :run_id AND experiment_id <> :to AND status NOT IN ('RUNNING', 'SCHEDULED') RETURNING run_uuid
""")

_COPY_DATASETS = """
INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, dataset_schema,
  dataset_profile)
SELECT {uuid}, CAST(:to AS integer), d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema,
  d.dataset_profile
FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id
WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = :run_id
ON CONFLICT (experiment_id, name, digest) DO NOTHING
"""
# The dataset of that name and digest in the experiment where the run is now.
_THE_SAME = """
coalesce((SELECT n.dataset_uuid FROM datasets o
  JOIN datasets n ON n.experiment_id = :to AND n.name = o.name AND n.digest = o.digest
  WHERE o.dataset_uuid = {column} AND o.experiment_id <> :to), {column})
"""
DATASETS = (
    Sql(
        postgresql=_COPY_DATASETS.format(uuid="replace(CAST(gen_random_uuid() AS varchar), '-', '')"),
        sqlite=_COPY_DATASETS.format(uuid="lower(hex(randomblob(16)))"),
    ),
    Sql(f"""
UPDATE inputs SET source_id = {_THE_SAME.format(column="inputs.source_id")}
WHERE source_type = 'DATASET' AND destination_type = 'RUN' AND destination_id = :run_id
"""),
    Sql(f"""
UPDATE logged_model_metrics SET dataset_uuid = {_THE_SAME.format(column="logged_model_metrics.dataset_uuid")}
WHERE run_id = :run_id AND dataset_uuid IS NOT NULL
"""),
)
OF_MODELS = tuple(
    Sql(f"UPDATE {table} SET experiment_id = :to WHERE model_id IN :ids")
    for table in ("logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics")
)
OF_TRACES = (
    Sql("UPDATE trace_info SET experiment_id = :to WHERE request_id IN :ids"),
    Sql("UPDATE spans SET experiment_id = :to WHERE trace_id IN :ids"),
    Sql("UPDATE assessments SET experiment_id = :to WHERE trace_id IN :ids"),
)
LOCATED = (
    Sql("UPDATE runs SET artifact_uri = :now WHERE run_uuid = :own"),
    Sql("UPDATE logged_models SET artifact_location = :now WHERE model_id = :own"),
    Sql("UPDATE trace_tags SET value = :now WHERE request_id = :own AND key = 'mlflow.artifactLocation'"),
)
VERSIONS = tuple(
    Sql(f"""
UPDATE model_versions SET {column} = CAST(:now AS varchar) || substr({column}, length(CAST(:before AS varchar)) + 1)
WHERE {column} = :before OR substr({column}, 1, length(CAST(:before AS varchar)) + 1) = CAST(:before AS varchar) || '/'
""")
    for column in ("source", "storage_location")
)
