"""The SQL of sqlite.py; postgres_sql.py says which of stock's methods each statement follows."""

from __future__ import annotations

_RUN_INFO = "run_uuid, name, experiment_id, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri"

GET_RUN = f"SELECT {_RUN_INFO} FROM runs WHERE run_uuid = ?"  # noqa: S608  (constants of this module)
GET_METRICS = "SELECT key, value, timestamp, step, is_nan FROM latest_metrics WHERE run_uuid = ?"
GET_PARAMS = "SELECT key, value FROM params WHERE run_uuid = ?"
GET_TAGS = "SELECT key, value FROM tags WHERE run_uuid = ?"
GET_LINKED = """
SELECT 'DATASET' AS kind, d.dataset_uuid AS id, 0 AS step, d.name, d.digest, d.dataset_source_type AS source_type,
  d.dataset_source AS source, d.dataset_schema AS schema, d.dataset_profile AS profile,
  g.name AS tag_key, g.value AS tag_value
FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags g ON g.input_uuid = i.input_uuid
WHERE i.destination_type = 'RUN' AND i.destination_id = ?
UNION ALL
SELECT i.source_type, i.destination_id, i.step, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM inputs i
WHERE i.source_id = ?
  AND (i.source_type, i.destination_type) IN (VALUES ('RUN_INPUT', 'MODEL_INPUT'), ('RUN_OUTPUT', 'MODEL_OUTPUT'))
"""
GET_STAGE = "SELECT lifecycle_stage FROM runs WHERE run_uuid = ?"
GET_PARAM = "SELECT value FROM params WHERE run_uuid = ? AND key = ?"
GET_LOCATION = "SELECT artifact_location FROM experiments WHERE experiment_id = ? AND lifecycle_stage = 'active'"

LOG_METRIC = """
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
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
RETURNING {_RUN_INFO}
"""  # noqa: S608
DELETE_TAG = "DELETE FROM tags WHERE run_uuid = ? AND key = ?"
