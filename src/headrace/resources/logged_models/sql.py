"""The statements of logged models. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Dialect, Sql
from headrace.resources.runs.encoded_postgres import FLOAT

COLUMNS = """m.model_id, m.experiment_id, m.name, m.artifact_location, m.creation_timestamp_ms,
  m.last_updated_timestamp_ms, m.status, m.model_type, m.source_run_id, m.status_message"""
WIDTH = 13  # of SELECT: COLUMNS and the lists
_PAIRS = """
  (SELECT string_agg(concat('{{"key":', to_json(t.{0}_key), ',"value":', to_json(t.{0}_value), '}}'), ','
     ORDER BY t.{0}_key)
   FROM logged_model_{0}s t WHERE t.model_id = m.model_id)"""
_SQLITE_PAIRS = """
  (SELECT group_concat(pair, ',') FROM (
     SELECT json_object('key', t.{0}_key, 'value', t.{0}_value) AS pair
     FROM logged_model_{0}s t WHERE t.model_id = m.model_id ORDER BY t.{0}_key))"""
# Stock gives them in no order.
_METRICS = f"""
  (SELECT string_agg(concat('{{"key":', to_json(t.metric_name), ',"value":', {FLOAT.format("t.metric_value")},
      ',"timestamp":', t.metric_timestamp_ms, ',"step":', t.metric_step, ',"model_id":', to_json(t.model_id),
      ',"dataset_name":' || to_json(NULLIF(t.dataset_name, '')),
      ',"dataset_digest":' || to_json(NULLIF(t.dataset_digest, '')),
      ',"run_id":', to_json(t.run_id), '}}'), ','
     ORDER BY t.metric_timestamp_ms, t.metric_step, t.metric_name, t.run_id)
   FROM logged_model_metrics t WHERE t.model_id = m.model_id)"""
# COLUMNS, then the tags, params and metrics: the members of JSON lists, NULL where there are none. One row, and one
# round trip, for what stock reads with four queries. SQLite writes 15 digits of a float: there METRICS has these.
SELECTED = {
    Dialect.POSTGRESQL: f"{COLUMNS}, {_PAIRS.format('tag')}, {_PAIRS.format('param')}, {_METRICS}",
    Dialect.SQLITE: f"{COLUMNS}, {_SQLITE_PAIRS.format('tag')}, {_SQLITE_PAIRS.format('param')}, NULL",
}
SELECT = {dialect: f"SELECT {selected} FROM logged_models m" for dialect, selected in SELECTED.items()}
METRICS = Sql("""
SELECT model_id, metric_name, metric_value, metric_timestamp_ms, metric_step, dataset_name, dataset_digest, run_id
FROM logged_model_metrics WHERE model_id IN :model_ids
ORDER BY metric_timestamp_ms, metric_step, metric_name, run_id
""")


def _both(rest: str) -> Sql:
    return Sql(postgresql=f"{SELECT[Dialect.POSTGRESQL]} {rest}", sqlite=f"{SELECT[Dialect.SQLITE]} {rest}")


GET = _both("WHERE m.model_id = :model_id")
GET_ACTIVE = _both("WHERE m.model_id = :model_id AND m.lifecycle_stage <> 'deleted'")
LOCATION = Sql(
    "SELECT artifact_location FROM logged_models WHERE model_id = :model_id AND lifecycle_stage <> 'deleted'"
)

# SqlAlchemyStore.create_logged_model. Ids are ours: a model that is there already is this write, sent again.
CREATE_POSTGRES = """
WITH incoming AS (
  SELECT * FROM unnest($1::varchar[], $2::int[], $3::varchar[], $4::varchar[], $5::varchar[], $6::varchar[],
    $7::bigint[]) AS r (model_id, experiment_id, workspace, name, model_type, source_run_id, now)
), created AS (
  INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
    last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id)
  SELECT r.model_id, r.experiment_id, r.name,
    CASE WHEN right(e.artifact_location, 1) = '/' THEN e.artifact_location ELSE e.artifact_location || '/' END
      || 'models/' || r.model_id || '/artifacts',
    r.now, r.now, 1, 'active', r.model_type, r.source_run_id
  FROM incoming r CROSS JOIN LATERAL (
    SELECT workspace, lifecycle_stage, artifact_location FROM experiments x
    WHERE x.experiment_id = r.experiment_id OFFSET 0
  ) AS e
  WHERE e.workspace = r.workspace AND e.lifecycle_stage = 'active' AND e.artifact_location ~ $14
    AND length(e.artifact_location) <= 900
  ON CONFLICT (model_id) DO NOTHING
  RETURNING model_id, experiment_id, artifact_location
), given_params AS (
  INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value)
  SELECT p.model_id, c.experiment_id, p.key, p.value
  FROM unnest($8::varchar[], $9::varchar[], $10::varchar[]) AS p (model_id, key, value) JOIN created c USING (model_id)
), given_tags AS (
  INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value)
  SELECT t.model_id, c.experiment_id, t.key, t.value
  FROM unnest($11::varchar[], $12::varchar[], $13::varchar[]) AS t (model_id, key, value)
    JOIN created c USING (model_id)
)
SELECT model_id, artifact_location FROM created
UNION ALL SELECT model_id, artifact_location FROM logged_models WHERE model_id = ANY($1::varchar[])
"""
LOCATION_OF_EXPERIMENT_SQLITE = """
SELECT artifact_location FROM experiments WHERE experiment_id = ? AND workspace = ? AND lifecycle_stage = 'active'
"""
CREATE_SQLITE = """
INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
  last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id)
VALUES (?, ?, ?, ?, ?, ?, 1, 'active', ?, ?)
"""
PARAM_SQLITE = "INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value) VALUES (?, ?, ?, ?)"
TAG_SQLITE = "INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value) VALUES (?, ?, ?, ?)"

# SqlAlchemyStore.finalize_logged_model, and the whole model.
FINALIZE_POSTGRES = f"""
WITH m AS (
  UPDATE logged_models m SET status = f.status, last_updated_timestamp_ms = f.now
  FROM unnest($1::varchar[], $2::int[], $3::bigint[]) AS f (model_id, status, now) WHERE m.model_id = f.model_id
  RETURNING m.*
)
SELECT {SELECTED[Dialect.POSTGRESQL]} FROM m
"""
FINALIZE_SQLITE = "UPDATE logged_models SET status = ?, last_updated_timestamp_ms = ? WHERE model_id = ?"

_LOCK = "SELECT 1 FROM logged_models WHERE model_id = :model_id"
# of a change; SQLite has but one writer
LOCK = Sql(postgresql=f"{_LOCK} FOR SHARE", sqlite=_LOCK)
DELETE = Sql("""
UPDATE logged_models SET lifecycle_stage = 'deleted', last_updated_timestamp_ms = :now
WHERE model_id = :model_id RETURNING 1
""")
SET_TAG = Sql("""
INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value)
SELECT model_id, experiment_id, CAST(:key AS varchar), CAST(:value AS text) FROM logged_models
WHERE model_id = :model_id
ON CONFLICT (model_id, tag_key) DO UPDATE SET tag_value = excluded.tag_value
""")
DELETE_TAG = Sql("DELETE FROM logged_model_tags WHERE model_id = :model_id AND tag_key = :key RETURNING 1")
# One that has another value would become NULL, which its column refuses; the same again does nothing.
LOG_PARAM = Sql("""
INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value)
SELECT model_id, experiment_id, CAST(:key AS varchar), CAST(:value AS text) FROM logged_models
WHERE model_id = :model_id
ON CONFLICT (model_id, param_key) DO UPDATE SET param_value = NULL
WHERE logged_model_params.param_value <> excluded.param_value
""")
PARAMS = Sql("SELECT param_key, param_value FROM logged_model_params WHERE model_id = :model_id AND param_key IN :keys")

MODEL_TABLES = ("logged_models", "logged_model_tags", "logged_model_params", "logged_model_metrics")
