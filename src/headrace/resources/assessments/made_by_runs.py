"""Assessments that runs have made are deleted with them (SqlAlchemyStore._mark_run_deleted): their metadata say so."""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Bound, Sql
from headrace.resources.assessments.given import SOURCE_RUN

_OF_RUN = "assessment_metadata LIKE :made_by_run"
# the two halves of the pattern find the same rows: the first quickly, the second which of the runs it was
_OF_EXPERIMENT = {
    "postgresql": f"""assessment_metadata LIKE '%"{SOURCE_RUN}": "%'
  AND substring(assessment_metadata FROM '"{SOURCE_RUN}": "([^"]*)"') IN (
    SELECT run_uuid FROM runs WHERE experiment_id = :experiment_id)""",
    "sqlite": f"""assessment_metadata LIKE '%"{SOURCE_RUN}": "%'
  AND json_extract(assessment_metadata, '$."{SOURCE_RUN}"') IN (
    SELECT run_uuid FROM runs WHERE experiment_id = :experiment_id)""",
}
_DELETE_OF_RUN = Sql(f"DELETE FROM assessments WHERE {_OF_RUN}")
_DELETE_OF_EXPERIMENT = Sql(
    postgresql=f"DELETE FROM assessments WHERE {_OF_EXPERIMENT['postgresql']}",
    sqlite=f"DELETE FROM assessments WHERE {_OF_EXPERIMENT['sqlite']}",
)


def deleted_with_run(run_id: str) -> Bound:
    """For the transaction that deletes the run."""
    return _DELETE_OF_RUN(made_by_run=f'%"{SOURCE_RUN}": "{run_id}"%')


def deleted_with_experiment(experiment_id: int) -> Bound:
    """For the transaction that deletes the experiment with its runs."""
    return _DELETE_OF_EXPERIMENT(experiment_id=experiment_id)
