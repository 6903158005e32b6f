"""The statements of assessments. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql, given_rows
from headrace.resources.assessments.given import AssessmentRow
from headrace.resources.assessments.records import COLUMNS

GET = Sql(f"SELECT {COLUMNS} FROM assessments WHERE trace_id = :trace_id AND assessment_id = :assessment_id")
TRACE = Sql("SELECT 1 FROM trace_info WHERE request_id = :trace_id")

_ROW = AssessmentRow.__struct_fields__
_TYPES = {
    **dict.fromkeys(("created_timestamp", "last_updated_timestamp"), "bigint"),
    "aggregate_value": "double precision",
    "is_numeric_value": "boolean",
}
_COLUMNS = ", ".join(_ROW)
_NEW = ", ".join(f"n.{name}" for name in _ROW)

# The lock, in the order of ingestion's: nobody gives a trace another start or experiment before the commit. The rows
# that were made are returned; what is not among them has no trace, overrides nothing, or has an id that is taken.
# OFFSET 0: what is looked up is looked up by key, also while there is little (tests/contract/test_write_plans.py).
CREATE = Sql(
    postgresql=f"""
WITH given AS (SELECT * FROM {given_rows("", _TYPES, *_ROW, "workspace")}),
traces AS (
  SELECT request_id, experiment_id, timestamp_ms FROM trace_info
  WHERE request_id IN :trace_id ORDER BY request_id FOR SHARE
), made AS (
  INSERT INTO assessments ({_COLUMNS}, valid, experiment_id, trace_timestamp_ms)
  SELECT {_NEW}, true, t.experiment_id, t.timestamp_ms FROM given n
  JOIN traces t ON t.request_id = n.trace_id
  CROSS JOIN LATERAL (
    SELECT workspace FROM experiments x WHERE x.experiment_id = t.experiment_id OFFSET 0
  ) AS e
  WHERE e.workspace = n.workspace AND (n.overrides IS NULL OR EXISTS (
    SELECT 1 FROM assessments o WHERE o.assessment_id = n.overrides AND o.trace_id = n.trace_id OFFSET 0))
  ON CONFLICT (assessment_id) DO NOTHING RETURNING assessment_id, trace_id, overrides
), overridden AS (
  UPDATE assessments o SET valid = false FROM made
  WHERE o.assessment_id = made.overrides AND o.trace_id = made.trace_id
)
SELECT assessment_id FROM made
""",
    sqlite="SELECT 1",
)
CREATE_ONE = f"""
INSERT INTO assessments ({_COLUMNS}, valid, experiment_id, trace_timestamp_ms)
SELECT {", ".join(f":{name}" for name in _ROW)}, 1, t.experiment_id, t.timestamp_ms FROM trace_info t
JOIN experiments e ON e.experiment_id = t.experiment_id AND e.workspace = :workspace
WHERE t.request_id = :trace_id AND (:overrides IS NULL OR EXISTS (
  SELECT 1 FROM assessments o WHERE o.assessment_id = :overrides AND o.trace_id = :trace_id))
ON CONFLICT (assessment_id) DO NOTHING RETURNING 1
"""
OVERRIDE_ONE = "UPDATE assessments SET valid = 0 WHERE assessment_id = :overrides AND trace_id = :trace_id"

OF_OTHERS = Sql("SELECT assessment_id FROM assessments WHERE assessment_id IN :ids AND trace_id <> :trace_id")

# Why one was not made: (trace_id, whether what it overrides is there, whether one of that trace has its id)
WHY = Sql("""
SELECT t.request_id,
  EXISTS (SELECT 1 FROM assessments o WHERE o.trace_id = t.request_id AND o.assessment_id = :overrides),
  EXISTS (SELECT 1 FROM assessments o WHERE o.trace_id = t.request_id AND o.assessment_id = :assessment_id)
FROM trace_info t JOIN experiments e ON e.experiment_id = t.experiment_id AND e.workspace = :workspace
WHERE t.request_id = :trace_id
""")

# Another one's id may be the same: only of its own trace.
RESTORE_OVERRIDDEN = Sql("""
UPDATE assessments SET valid = true WHERE trace_id = :trace_id AND assessment_id IN (
  SELECT d.overrides FROM assessments d WHERE d.trace_id = :trace_id AND d.assessment_id = :assessment_id)
""")
DELETE = Sql("DELETE FROM assessments WHERE trace_id = :trace_id AND assessment_id = :assessment_id")
