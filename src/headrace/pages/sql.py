"""The statements of our own pages."""

from __future__ import annotations

from headrace.db.query import Sql

EXPERIMENT = Sql("SELECT name FROM experiments WHERE experiment_id = :experiment_id AND workspace = :workspace")
# NaN is no value that could be the best
EXTREMES = Sql("""
WITH of_runs AS (
  SELECT m.key, m.run_uuid, min(m.value) AS low, max(m.value) AS high
  FROM runs r JOIN metrics m ON m.run_uuid = r.run_uuid
  WHERE r.experiment_id = :experiment_id AND r.lifecycle_stage = 'active' AND NOT m.is_nan
  GROUP BY m.key, m.run_uuid
), ranked AS (
  SELECT key, run_uuid, low, high, row_number() OVER (PARTITION BY key ORDER BY low, run_uuid) AS from_low,
    row_number() OVER (PARTITION BY key ORDER BY high DESC, run_uuid) AS from_high
  FROM of_runs
)
SELECT key, min(low) AS low, max(CASE WHEN from_low = 1 THEN run_uuid END) AS low_run, max(high) AS high,
  max(CASE WHEN from_high = 1 THEN run_uuid END) AS high_run, count(*) AS runs
FROM ranked GROUP BY key ORDER BY key LIMIT :most
""")
LOCATION = Sql("""
SELECT name, artifact_location FROM experiments WHERE experiment_id = :experiment_id AND workspace = :workspace
""")
LATEST = Sql("""
SELECT key, value, is_nan, run_uuid FROM (
  SELECT l.key, l.value, l.is_nan, l.run_uuid,
    row_number() OVER (PARTITION BY l.key ORDER BY r.start_time DESC, r.run_uuid) AS place
  FROM runs r JOIN latest_metrics l ON l.run_uuid = r.run_uuid
  WHERE r.experiment_id = :experiment_id AND r.lifecycle_stage = 'active'
) newest WHERE place = 1
""")
NAMES = Sql("SELECT run_uuid, name FROM runs WHERE run_uuid IN :ids")
