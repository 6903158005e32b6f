"""What hangs on an experiment, a run, a logged model, a trace, ...: its tables, parents before children.

A table's rows are found by the ids of what they hang on, are written with the column names that schema.py has, and
where the target has one of that key already, it stays, unless the table says otherwise.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and of schema.py)

from __future__ import annotations

from headrace.db import schema
from headrace.db.query import Sql
from headrace.resources.experiments.removal_sql import INPUTS_OF_RUNS

_GENERATED = {("spans", "duration_ns")}
_KEEP = "ON CONFLICT DO NOTHING"


class Table:
    """`where`: a condition on the ids, which are `:ids`; `known`: what becomes of a row whose key is taken.

    `select` reads `columns`, in their order; `kinds` are schema.py's.
    """

    def __init__(self, name: str, where: str, known: str = _KEEP) -> None:
        kinds = {column.lower(): kind for column, kind in schema.TABLES[name].items()}
        self.name, self.known = name, known
        self.columns = tuple(column for column in kinds if (name, column) not in _GENERATED)
        self.kinds = tuple(kinds[column] for column in self.columns)
        self.booleans = tuple(index for index, kind in enumerate(self.kinds) if kind == "bool")
        self.select = Sql(f"SELECT {', '.join(self.columns)} FROM {name} WHERE {where}")


def _of(owner: str, *names: str) -> tuple[Table, ...]:
    return tuple(Table(name, f"{owner} IN :ids") for name in names)


# A run that was under way when it was copied goes on as it does at the source; one that has ended stays as it is.
_RUN_GOES_ON = """
ON CONFLICT (run_uuid) DO UPDATE SET name = excluded.name, status = excluded.status, end_time = excluded.end_time,
  lifecycle_stage = excluded.lifecycle_stage, deleted_time = excluded.deleted_time
WHERE runs.status IN ('RUNNING', 'SCHEDULED')
"""
_LATER = """
ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step,
  is_nan = excluded.is_nan
WHERE (excluded.step, excluded.timestamp, excluded.value)
  > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)
"""

EXPERIMENTS = Table("experiments", "experiment_id IN :ids")
OF_EXPERIMENT = _of("experiment_id", "experiment_tags", "datasets", "scorers", "label_schemas", "review_queues")
# hang on what the experiment has
OF_SCORERS = _of("scorer_id", "scorer_versions", "online_scoring_configs")
OF_QUEUES = _of("queue_id", "review_queue_users", "review_queue_items", "review_queue_label_schemas")
ISSUES = Table("issues", "experiment_id IN :ids")

RUNS = Table("runs", "run_uuid IN :ids", _RUN_GOES_ON)
OF_RUN = (
    *_of("run_uuid", "params", "tags", "metrics"),
    Table("latest_metrics", "run_uuid IN :ids", _LATER),
    Table("inputs", INPUTS_OF_RUNS),
    Table("input_tags", f"input_uuid IN (SELECT input_uuid FROM inputs WHERE {INPUTS_OF_RUNS})"),
    Table("entity_associations", "destination_type = 'run' AND destination_id IN :ids"),
)

MODELS = Table("logged_models", "model_id IN :ids")
OF_MODEL = _of("model_id", "logged_model_params", "logged_model_tags", "logged_model_metrics")

TRACES = Table("trace_info", "request_id IN :ids")
OF_TRACE = (
    *_of("request_id", "trace_tags", "trace_request_metadata", "trace_metrics"),
    *_of("trace_id", "spans", "span_metrics", "assessments"),
)

EVALUATION_DATASETS = Table("evaluation_datasets", "dataset_id IN :ids")
OF_EVALUATION_DATASET = (
    *_of("dataset_id", "evaluation_dataset_tags", "evaluation_dataset_records"),
    Table("entity_associations", "source_type = 'evaluation_dataset' AND source_id IN :ids"),
)

# by name, in one workspace
REGISTERED_MODELS, REGISTERED_MODEL_TAGS, VERSIONS, VERSION_TAGS, ALIASES = (
    Table(name, "workspace = :workspace AND name IN :ids")
    for name in (
        "registered_models",
        "registered_model_tags",
        "model_versions",
        "model_version_tags",
        "registered_model_aliases",
    )
)
WORKSPACES = Table("workspaces", "name IN :ids")
