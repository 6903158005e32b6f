"""What goes with runs, logged models and experiments that go for good: their rows in other tables.

Rows that have a foreign key with ON DELETE CASCADE go by that.
"""

# ruff: noqa: S608  (the texts are made of constants of this module)

from __future__ import annotations

from headrace.db.query import Sql

INPUTS_OF_RUNS = """
(destination_type = 'RUN' AND destination_id IN :ids)
OR (source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN :ids)
"""
REST_OF_RUNS = (
    *(Sql(f"DELETE FROM {table} WHERE run_uuid IN :ids") for table in ("metrics", "latest_metrics", "params", "tags")),
    Sql(f"DELETE FROM input_tags WHERE input_uuid IN (SELECT input_uuid FROM inputs WHERE {INPUTS_OF_RUNS})"),
    Sql(f"DELETE FROM inputs WHERE {INPUTS_OF_RUNS}"),
    Sql("DELETE FROM entity_associations WHERE destination_type = 'run' AND destination_id IN :ids"),
)
REST_OF_MODELS = (
    Sql("""
DELETE FROM inputs WHERE destination_type IN ('MODEL_INPUT', 'MODEL_OUTPUT') AND destination_id IN :ids
"""),
)
_SETS = (
    "source_type = 'DATASET' AND source_id IN (SELECT dataset_uuid FROM datasets WHERE experiment_id = :experiment_id)"
)
REST_OF_EXPERIMENT = (
    Sql(f"DELETE FROM input_tags WHERE input_uuid IN (SELECT input_uuid FROM inputs WHERE {_SETS})"),
    Sql(f"DELETE FROM inputs WHERE {_SETS}"),
    Sql("""
DELETE FROM entity_associations
WHERE destination_type = 'experiment' AND destination_id = :experiment_text
"""),
    # these have no foreign key, or none that cascades
    *(
        Sql(f"DELETE FROM {table} WHERE experiment_id = :experiment_id")
        for table in (
            "experiment_tags",
            "online_scoring_configs",
            "sql_trace_rollup_rebuild_queue",
            "sql_trace_metric_daily_rollups",
            "sql_span_cost_daily_rollups",
            "sql_assessment_daily_rollups",
        )
    ),
)
