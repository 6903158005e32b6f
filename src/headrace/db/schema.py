"""The schema contract: the columns that Headrace's SQL was written for, of the tables that it touches.

Stock MLflow owns the schema. Where a table is not as it is here (a column is missing, new, or of another kind, or the
primary key differs), the native handlers that need the table stay off and stock answers: slower, still right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# table -> column -> (type as the backend names it, position in the primary key or 0)
Columns = dict[str, dict[str, tuple[str, int]]]

# table -> column -> kind; the primary key's columns are in capitals, in alphabetical order of no consequence
TABLES: Mapping[str, Mapping[str, str]] = {
    "experiments": {
        "EXPERIMENT_ID": "int",
        "name": "text",
        "artifact_location": "text",
        "lifecycle_stage": "text",
        "creation_time": "bigint",
        "last_update_time": "bigint",
        "workspace": "text",
    },
    "experiment_tags": {"KEY": "text", "value": "text", "EXPERIMENT_ID": "int"},
    "runs": {
        "RUN_UUID": "text",
        "name": "text",
        "source_type": "text",
        "source_name": "text",
        "entry_point_name": "text",
        "user_id": "text",
        "status": "text",
        "start_time": "bigint",
        "end_time": "bigint",
        "deleted_time": "bigint",
        "source_version": "text",
        "lifecycle_stage": "text",
        "artifact_uri": "text",
        "experiment_id": "int",
    },
    "metrics": {
        "KEY": "text",
        "VALUE": "float",
        "TIMESTAMP": "bigint",
        "STEP": "bigint",
        "IS_NAN": "bool",
        "RUN_UUID": "text",
    },
    "latest_metrics": {
        "KEY": "text",
        "value": "float",
        "timestamp": "bigint",
        "step": "bigint",
        "is_nan": "bool",
        "RUN_UUID": "text",
    },
    "params": {"KEY": "text", "value": "text", "RUN_UUID": "text"},
    "tags": {"KEY": "text", "value": "text", "RUN_UUID": "text"},
    "datasets": {
        "dataset_uuid": "text",
        "EXPERIMENT_ID": "int",
        "NAME": "text",
        "DIGEST": "text",
        "dataset_source_type": "text",
        "dataset_source": "text",
        "dataset_schema": "text",
        "dataset_profile": "text",
    },
    "inputs": {
        "input_uuid": "text",
        "SOURCE_TYPE": "text",
        "SOURCE_ID": "text",
        "DESTINATION_TYPE": "text",
        "DESTINATION_ID": "text",
        "step": "bigint",
    },
    # runs/delete deletes from it, too, which is left to stock
    "assessments": {
        "ASSESSMENT_ID": "text",
        "trace_id": "text",
        "name": "text",
        "assessment_type": "text",
        "value": "text",
        "error": "text",
        "created_timestamp": "bigint",
        "last_updated_timestamp": "bigint",
        "source_type": "text",
        "source_id": "text",
        "run_id": "text",
        "span_id": "text",
        "rationale": "text",
        "overrides": "text",
        "valid": "bool",
        "assessment_metadata": "text",
        "experiment_id": "int",
        "trace_timestamp_ms": "bigint",
        "aggregate_value": "float",
        "is_numeric_value": "bool",
    },
    "input_tags": {"INPUT_UUID": "text", "NAME": "text", "value": "text"},
    "model_versions": {
        "WORKSPACE": "text",
        "NAME": "text",
        "VERSION": "int",
        "creation_time": "bigint",
        "last_updated_time": "bigint",
        "description": "text",
        "user_id": "text",
        "current_stage": "text",
        "source": "text",
        "storage_location": "text",
        "run_id": "text",
        "run_link": "text",
        "status": "text",
        "status_message": "text",
    },
    "model_version_tags": {"WORKSPACE": "text", "NAME": "text", "VERSION": "int", "KEY": "text", "value": "text"},
}

POSTGRES_TYPES = {
    "character varying": "text",
    "text": "text",
    "integer": "int",
    "bigint": "bigint",
    "double precision": "float",
    "boolean": "bool",
}
SQLITE_TYPES = {
    "VARCHAR": "text",
    "TEXT": "text",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "FLOAT": "float",
    "BOOLEAN": "bool",
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
