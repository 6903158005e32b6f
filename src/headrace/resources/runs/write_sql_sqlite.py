"""The SQL of writes.py on SQLite; write_sql_postgres.py says which of stock's methods each statement follows."""

from __future__ import annotations

from headrace.resources.runs.rows import RUN_INFO

GET_STAGE = "SELECT lifecycle_stage FROM runs WHERE run_uuid = ?"
GET_PARAM = "SELECT value FROM params WHERE run_uuid = ? AND key = ?"
GET_LOCATION = "SELECT artifact_location FROM experiments WHERE experiment_id = ? AND lifecycle_stage = 'active'"

LOG_METRIC = """
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
LOG_METRIC_OF_MODEL = """
INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value, dataset_name,
  dataset_digest, run_id, experiment_id)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, run_uuid, experiment_id FROM runs WHERE run_uuid = ?8 ON CONFLICT DO NOTHING
"""
SET_LATEST = """
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key, run_uuid) DO UPDATE
SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)
"""
LOG_PARAM = "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
SET_TAG = """
INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)
ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
"""
SET_NAME = "UPDATE runs SET name = ? WHERE run_uuid = ?"
CREATE_RUN = """
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
  source_version, lifecycle_stage, artifact_uri, experiment_id)
VALUES (?, ?, 'UNKNOWN', '', '', ?, 'RUNNING', ?, '', 'active', ?, ?)
"""
UPDATE_RUN = f"""
UPDATE runs SET status = coalesce(?, status), end_time = coalesce(?, end_time), name = coalesce(?, name)
WHERE run_uuid = ? AND lifecycle_stage = 'active'
  AND coalesce(?, name, '') <> '' AND start_time IS NOT NULL AND user_id IS NOT NULL
RETURNING {RUN_INFO}
"""  # noqa: S608
DELETE_TAG = "DELETE FROM tags WHERE run_uuid = ? AND key = ?"
