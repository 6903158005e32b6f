"""The schema contract: the columns that Headrace's SQL was written for, of the tables that it touches.

Stock MLflow owns the schema. Where a table is not as it is here (a column is missing, new, or of another kind, or the
primary key differs), the native handlers that need the table stay off and stock answers: slower, still right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# table -> column -> (type as the backend names it, position in the primary key or 0)
Columns = dict[str, dict[str, tuple[str, int]]]

# A table, and below it its columns with their kinds; those of the primary key are in capitals. Every start compares it
# with the database; tests/contract holds it against one that stock has just migrated.
_TABLES = """
assessments
    ASSESSMENT_ID text, trace_id text, name text, assessment_type text, value text, error text,
    created_timestamp bigint, last_updated_timestamp bigint, source_type text, source_id text, run_id text,
    span_id text, rationale text, overrides text, valid bool, assessment_metadata text, experiment_id int,
    trace_timestamp_ms bigint, aggregate_value float, is_numeric_value bool
budget_policies
    BUDGET_POLICY_ID text, budget_unit text, budget_amount float, duration_unit text, duration_value int,
    target_scope text, budget_action text, created_by text, created_at bigint, last_updated_by text,
    last_updated_at bigint, workspace text, target_value text
datasets
    dataset_uuid text, EXPERIMENT_ID int, NAME text, DIGEST text, dataset_source_type text, dataset_source text,
    dataset_schema text, dataset_profile text
endpoints
    ENDPOINT_ID text, name text, created_by text, created_at bigint, last_updated_by text, last_updated_at bigint,
    routing_strategy text, fallback_config_json text, experiment_id int, usage_tracking bool, workspace text
entity_associations
    association_id text, SOURCE_TYPE text, SOURCE_ID text, DESTINATION_TYPE text, DESTINATION_ID text,
    created_time bigint
evaluation_dataset_records
    DATASET_RECORD_ID text, dataset_id text, inputs json, expectations json, tags json, source json, source_id text,
    source_type text, created_time bigint, last_update_time bigint, created_by text, last_updated_by text,
    input_hash text, outputs json
evaluation_dataset_tags
    DATASET_ID text, KEY text, value text
evaluation_datasets
    DATASET_ID text, name text, schema text, profile text, digest text, created_time bigint, last_update_time bigint,
    created_by text, last_updated_by text, workspace text
experiment_tags
    KEY text, value text, EXPERIMENT_ID int
experiments
    EXPERIMENT_ID int, name text, artifact_location text, lifecycle_stage text, creation_time bigint,
    last_update_time bigint, workspace text
guardrails
    GUARDRAIL_ID text, name text, scorer_id text, scorer_version int, stage text, action text,
    action_endpoint_id text, created_by text, created_at bigint, last_updated_by text, last_updated_at bigint,
    workspace text
input_tags
    INPUT_UUID text, NAME text, value text
inputs
    input_uuid text, SOURCE_TYPE text, SOURCE_ID text, DESTINATION_TYPE text, DESTINATION_ID text, step bigint
issues
    ISSUE_ID text, experiment_id int, name text, description text, status text, severity text, root_causes text,
    source_run_id text, categories text, created_timestamp bigint, last_updated_timestamp bigint, created_by text
jobs
    ID text, creation_time bigint, job_name text, params text, workspace text, timeout float, status int,
    result text, retry_count int, last_update_time bigint, executor_backend text, lease_expires_at bigint,
    status_message text, progress json, progress_updated_at bigint, token_hash text, scoped_permissions json,
    status_details json, creator text, next_attempt_at bigint
label_schemas
    SCHEMA_ID text, experiment_id int, name text, type text, instruction text, enable_comment bool, input_type text,
    input_config text, created_by text, created_time bigint, last_update_time bigint, is_default bool
latest_metrics
    KEY text, value float, timestamp bigint, step bigint, is_nan bool, RUN_UUID text
logged_model_metrics
    MODEL_ID text, METRIC_NAME text, METRIC_TIMESTAMP_MS bigint, METRIC_STEP bigint, metric_value float,
    experiment_id int, RUN_ID text, dataset_uuid text, dataset_name text, dataset_digest text
logged_model_params
    MODEL_ID text, experiment_id int, PARAM_KEY text, param_value text
logged_model_tags
    MODEL_ID text, experiment_id int, TAG_KEY text, tag_value text
logged_models
    MODEL_ID text, experiment_id int, name text, artifact_location text, creation_timestamp_ms bigint,
    last_updated_timestamp_ms bigint, status int, lifecycle_stage text, model_type text, source_run_id text,
    status_message text
mcp_servers
    WORKSPACE text, NAME text, display_name text, description text, icons json, created_by text,
    last_updated_by text, created_at bigint, last_updated_at bigint
metrics
    KEY text, VALUE float, TIMESTAMP bigint, RUN_UUID text, STEP bigint, IS_NAN bool
model_definitions
    MODEL_DEFINITION_ID text, name text, secret_id text, provider text, model_name text, created_by text,
    created_at bigint, last_updated_by text, last_updated_at bigint, workspace text
model_version_tags
    KEY text, value text, NAME text, VERSION int, WORKSPACE text
model_versions
    NAME text, VERSION int, creation_time bigint, last_updated_time bigint, description text, user_id text,
    current_stage text, source text, run_id text, status text, status_message text, run_link text,
    storage_location text, WORKSPACE text
online_scoring_configs
    ONLINE_SCORING_CONFIG_ID text, scorer_id text, sample_rate float, experiment_id int, filter_string text
params
    KEY text, value text, RUN_UUID text
registered_model_aliases
    ALIAS text, version int, NAME text, WORKSPACE text
registered_model_tags
    KEY text, value text, NAME text, WORKSPACE text
registered_models
    NAME text, creation_time bigint, last_updated_time bigint, description text, WORKSPACE text
review_queue_items
    QUEUE_ID text, item_type text, ITEM_ID text, status text, completed_by text, completed_time_ms bigint,
    creation_time_ms bigint, last_update_time_ms bigint
review_queue_label_schemas
    QUEUE_ID text, SCHEMA_ID text
review_queue_users
    QUEUE_ID text, USER_ID text
review_queues
    QUEUE_ID text, experiment_id int, name text, queue_type text, created_by text, creation_time_ms bigint,
    last_update_time_ms bigint, name_key text
runs
    RUN_UUID text, name text, source_type text, source_name text, entry_point_name text, user_id text, status text,
    start_time bigint, end_time bigint, source_version text, lifecycle_stage text, artifact_uri text,
    experiment_id int, deleted_time bigint
scorer_versions
    SCORER_ID text, SCORER_VERSION int, serialized_scorer text, creation_time bigint
scorers
    experiment_id int, scorer_name text, SCORER_ID text
secrets
    SECRET_ID text, secret_name text, encrypted_value bytes, wrapped_dek bytes, kek_version int, masked_value text,
    provider text, auth_config text, description text, created_by text, created_at bigint, last_updated_by text,
    last_updated_at bigint, workspace text
span_metrics
    TRACE_ID text, SPAN_ID text, KEY text, value float
spans
    TRACE_ID text, experiment_id int, SPAN_ID text, parent_span_id text, name text, type text, status text,
    start_time_unix_nano bigint, end_time_unix_nano bigint, duration_ns bigint,
    content text, input_cost float, output_cost float,
    total_cost float, model_name text, model_provider text
sql_trace_rollup_rebuild_queue
    EXPERIMENT_ID int, ROLLUP_DAY date, ROLLUP_FAMILY text
tags
    KEY text, value text, RUN_UUID text
trace_info
    REQUEST_ID text, experiment_id int, timestamp_ms bigint, execution_time_ms bigint, status text,
    client_request_id text, request_preview text, response_preview text, db_payload_generation int, trace_name text,
    session_id text, input_tokens bigint, output_tokens bigint, total_tokens bigint, cache_read_input_tokens bigint,
    cache_creation_input_tokens bigint, cache_creation_input_tokens_above_1hr bigint, input_cost float,
    output_cost float, total_cost float
trace_metrics
    REQUEST_ID text, KEY text, value float
trace_request_metadata
    KEY text, value text, REQUEST_ID text
trace_tags
    KEY text, value text, REQUEST_ID text
webhook_events
    WEBHOOK_ID text, ENTITY text, ACTION text
webhooks
    WEBHOOK_ID text, name text, description text, url text, status text, secret text, creation_timestamp bigint,
    last_updated_timestamp bigint, deleted_timestamp bigint, workspace text
workspaces
    NAME text, description text, default_artifact_root text, trace_archival_location text,
    trace_archival_retention text
"""


def _parse(text: str) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    columns: dict[str, str] = {}
    for line in filter(None, text.splitlines()):
        if line.startswith(" "):
            columns |= dict(column.split() for column in line.strip(" ,").split(", "))
        else:
            columns = tables[line] = {}
    return tables


# table -> column -> kind
TABLES: Mapping[str, Mapping[str, str]] = _parse(_TABLES)

POSTGRES_TYPES = {
    "character varying": "text",
    "text": "text",
    "integer": "int",
    "bigint": "bigint",
    "double precision": "float",
    "boolean": "bool",
    "bytea": "bytes",
    "json": "json",
    "date": "date",
}
SQLITE_TYPES = {
    "VARCHAR": "text",
    "TEXT": "text",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "FLOAT": "float",
    "BOOLEAN": "bool",
    "BLOB": "bytes",
    "JSON": "json",
    "DATE": "date",
}


def differences(found: Columns, kinds: Mapping[str, str]) -> dict[str, str]:
    """Tables that are not as expected -> what differs, in words. `kinds` names the backend's types."""
    different = {}
    for table, expected in TABLES.items():
        actual = found.get(table)
        if actual is None:
            different[table] = "it does not exist"
            continue
        seen = {
            (name.upper() if key_position else name): kinds.get(type_name, type_name)
            for name, (type_name, key_position) in actual.items()
        }
        words = [
            *_words("is missing", expected.keys() - seen.keys()),
            *_words("is new", seen.keys() - expected.keys()),
            *_words("has another type", (c for c in seen.keys() & expected.keys() if seen[c] != expected[c])),
        ]
        if words:
            different[table] = "; ".join(words)
    return different


def _words(what: str, columns: Iterable[str]) -> list[str]:
    return [f"column {name.lower()}{' (in the primary key)' * name.isupper()} {what}" for name in sorted(columns)]
