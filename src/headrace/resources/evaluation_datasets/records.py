"""The records of a dataset: how they are given, merged with those of the same inputs, and written out again.

Rules: SqlAlchemyStore.upsert_dataset_records, SqlEvaluationDatasetRecord and DatasetRecord. JSON is kept as the text
that Python's json writes, which is what stock leaves in the columns.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.errors import InvalidParameter
from headrace.resources import validation as valid

USER_TAG = "mlflow.user"
# where outputs of any kind are in a column that holds objects
WRAPPED = "mlflow_wrapped"
SOURCE_TYPES = ("UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE")
MAX_USER, MAX_ID = 255, 36
_NULL = "null"
_EMPTY_SCHEMA = '{"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"}'
_TYPES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object"}


class Given(msgspec.Struct, frozen=True, gc=False):
    """A record of a request. `fields`: as they were given; `has_outputs`: whether null for them was said."""

    record_id: str
    input_hash: str
    inputs: str
    outputs: Any
    has_outputs: bool
    expectations: dict[str, Any] | None
    tags: dict[str, Any] | None
    user: str | None
    source: str
    source_id: str | None
    source_type: str | None


class Row(msgspec.Struct, gc=False):
    """What of a row can change, as it is in the columns, and the rest for a new one."""

    dataset_record_id: str
    outputs: str
    expectations: str
    tags: str
    last_updated_by: str | None
    inputs: str = ""
    input_hash: str = ""
    source: str = _NULL
    source_id: str | None = None
    source_type: str | None = None
    created_by: str | None = None


def parse_json(text: str, name: str, *, nan: bool) -> Any:
    """JSON in a text. `nan`: whether NaN and infinities may be in it (PostgreSQL's json has none).

    Raises InvalidParameter.
    """

    def constant(word: str) -> float:
        if not nan:
            raise ValueError(f"{word} is no number there, and PostgreSQL can't hold it")
        return float(word)

    try:
        return json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, ValueError) else "it is nested too deeply"
        raise InvalidParameter(f"'{name}' is not JSON: {why}.") from None


def given(records: Any) -> list[Given]:
    """The records of a request. Raises InvalidParameter, which names the one that is wrong."""
    if not isinstance(records, list):
        raise InvalidParameter("'records' must be a JSON list of objects.")
    return [_given(record, f"records[{place}]") for place, record in enumerate(records)]


def _given(record: Any, where: str) -> Given:
    if not isinstance(record, dict):
        raise InvalidParameter(f"'{where}' must be an object with 'inputs'.")
    inputs = record.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InvalidParameter(f"'{where}.inputs' must be an object.")
    for name in ("expectations", "tags"):
        if not isinstance(record.get(name) or {}, dict):
            raise InvalidParameter(f"'{where}.{name}' must be an object.")
    tags = record.get("tags")
    user = None
    if tags and USER_TAG in tags:
        user = text(tags[USER_TAG], MAX_USER, f"{where}.tags['{USER_TAG}']")
    source, source_id, source_type = _source(record.get("source"), f"{where}.source")
    return Given(
        f"dr-{uuid.uuid4().hex}",
        hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        json.dumps(inputs),
        record.get("outputs", {}),
        "outputs" in record,
        record.get("expectations"),
        tags,
        user,
        source,
        source_id,
        source_type,
    )


def _source(source: Any, where: str) -> tuple[str, str | None, str | None]:
    """DatasetRecordSource, and its id: (JSON, source_id, source_type)."""
    if not source:
        return _NULL, None, None
    if not isinstance(source, dict) or not set(source) <= {"source_type", "source_data"}:
        raise InvalidParameter(f"'{where}' must be an object of 'source_type' and 'source_data'.")
    data = source.get("source_data")
    data = {} if data is None else data
    kind = source.get("source_type")
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise InvalidParameter(f"'{where}.source_type' must be a text, and '{where}.source_data' an object.")
    kind = kind.upper()
    if kind not in SOURCE_TYPES:
        raise InvalidParameter(f"Invalid dataset record source type: {kind}. Valid source types: {list(SOURCE_TYPES)}")
    name = "trace_id" if kind == "TRACE" else "source_id"
    source_id = data.get(name)
    if source_id is not None:
        source_id = text(source_id, MAX_ID, f"{where}.source_data.{name}")
    return json.dumps({"source_type": kind, "source_data": data}), source_id, kind


def text(value: Any, limit: int, name: str) -> str:
    """A value of JSON for a column of texts. Raises InvalidParameter."""
    found = valid.text(value if isinstance(value, str) else str(value), limit, name)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InvalidParameter(f"'{name}' has half of a surrogate pair, which is no character.") from None
    return found


class Plan:
    """What becomes of the records of a request in a dataset that has some of them: `new` rows, `changed` rows."""

    def __init__(self, records: Iterable[Given], stored: Iterable[Sequence[Any]]) -> None:
        """`stored`: rows of sql.SAME_INPUTS."""
        self.new: list[Row] = []
        self.inserted = self.updated = 0
        rows = {row[0]: Row(row[1], row[2] or _NULL, row[3] or _NULL, row[4] or _NULL, row[5]) for row in stored}
        changed: dict[str, Row] = {}
        for record in records:
            row = rows.get(record.input_hash)
            if row is None:
                self.new.append(_new(record))
                rows[record.input_hash] = self.new[-1]
                self.inserted += 1
            elif row.dataset_record_id == record.record_id:  # made by this request, which was sent again
                self.inserted += 1
            else:
                _merge(row, record)
                changed[row.dataset_record_id] = row
                self.updated += 1
        made = {row.dataset_record_id for row in self.new}
        self.changed = [row for row in changed.values() if row.dataset_record_id not in made]


def _new(record: Given) -> Row:
    return Row(
        record.record_id,
        _outputs(record.outputs),
        _NULL if record.expectations is None else json.dumps(record.expectations),
        json.dumps(record.tags or {}),
        record.user,
        record.inputs,
        record.input_hash,
        record.source,
        record.source_id,
        record.source_type,
        record.user,
    )


def _merge(row: Row, record: Given) -> None:
    """SqlEvaluationDatasetRecord.merge."""
    if record.has_outputs:
        row.outputs = _outputs(record.outputs)
    if record.expectations:
        row.expectations = json.dumps((json.loads(row.expectations) or {}) | record.expectations)
    if record.tags:
        row.tags = json.dumps((json.loads(row.tags) or {}) | record.tags)
    if record.user is not None:
        row.last_updated_by = record.user


def _outputs(value: Any) -> str:
    return _NULL if value is None else json.dumps({WRAPPED: value})


def schema(stored: str | None, records: Sequence[Given]) -> str | None:
    """SqlAlchemyStore._update_dataset_schema: fields keep the type that they had first. None: as it was."""
    if not records and not stored:
        return None
    known = json.loads(stored or _EMPTY_SCHEMA)
    for record in records:
        _add_types(known["inputs"], json.loads(record.inputs))
        if record.has_outputs and record.outputs is not None:
            if not isinstance(record.outputs, dict):
                known["outputs"] = known["outputs"] or _type(record.outputs)
            elif isinstance(known["outputs"], dict):  # stock fails where they were no objects before
                _add_types(known["outputs"], record.outputs)
        _add_types(known["expectations"], record.expectations or {})
    return json.dumps(known)


def _add_types(known: dict[str, str], fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        if key not in known:
            known[key] = _type(value)


def _type(value: Any) -> str:
    return "null" if value is None else _TYPES[type(value)]


def rendered(row: Any) -> dict[str, Any]:
    """A row of sql.RECORD_COLUMNS as DatasetRecord.to_dict has it, field by field in its order."""
    record = dict(row)
    for name in ("inputs", "expectations", "tags", "source"):
        record[name] = json.loads(record[name] or _NULL)
    record["tags"] = record["tags"] or {}
    outputs = json.loads(record.pop("outputs") or _NULL)
    record = {name: value for name, value in record.items() if value is not None}
    if outputs and outputs.get(WRAPPED) is not None:
        record["outputs"] = outputs[WRAPPED]
    return record
