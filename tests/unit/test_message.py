"""Messages are read as protobuf reads them, and what it would half-read is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from headrace.api.message import Reader
from headrace.errors import InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.assessments.messages import CreateAssessment
from headrace.resources.experiments.messages import SearchExperiments
from headrace.resources.metrics.messages import GetMetricHistoryBulkInterval
from headrace.resources.runs.messages import LogBatch, LogMetric, SearchRuns, SetTag, UpdateRun
from headrace.resources.traces.messages import BatchGet

METRIC = {"run_id": "r", "key": "k", "value": 1.0, "timestamp": 1}


def body(**fields: Any) -> bytes:
    return json.dumps(METRIC | fields).encode()


@pytest.mark.parametrize(
    "given",
    [
        body(),
        body(value="1", timestamp="1"),
        body(value="1.0", timestamp=1.0, step="0"),
        body(value=1, step=None, model_id=None),
        body(unknown={"a": 1}),
        json.dumps({"run_id": "r", "key": "k", "value": "1e0", "timestamp": "1.0"}).encode(),
        json.dumps(json.dumps(METRIC)).encode(),  # encoded twice, as older clients do
    ],
)
def test_a_metric_as_clients_write_it(given: bytes) -> None:
    assert Reader(LogMetric).body(given) == LogMetric("k", 1.0, 1, run_id="r")


def test_names_in_camel_case() -> None:
    given = b'{"runId": "r", "key": "k", "value": "NaN", "timestamp": 1, "modelId": "m"}'
    assert Reader(LogMetric).body(given) == LogMetric("k", "NaN", 1, run_id="r", model_id="m")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (b"", "key"),
        (b"[]", "a list"),
        (b'"a"', "JSON"),
        (b"{", "JSON"),
        (b'{"run_id": "r", "key": "k", "value": NaN, "timestamp": 1}', "NaN"),
        (b'{"run_id": "r", "runId": "s", "key": "k", "value": 1, "timestamp": 1}', "both"),
        (body(timestamp=1.5), "timestamp"),
        (body(step=1.5), "step"),
        (body(value="much"), "value"),
        (body(value=True), "value"),
        (body(value=[1]), "value"),
        (body(timestamp="1.5"), "timestamp"),
        (body(timestamp=" 1"), "timestamp"),
        (body(timestamp=2**63), "timestamp"),
        (body(timestamp=None), "timestamp"),
        (body(key=5), "key"),
        (body(key=""), "key"),
        (b'{"run_id": "r", "key": "\xff", "value": 1, "timestamp": 1}', "JSON"),
        (b'{"key": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON"),
    ],
)
def test_what_is_wrong_is_named(given: bytes, names: str) -> None:
    with pytest.raises(InvalidParameter, match=names):
        Reader(LogMetric).body(given)


def test_where_it_is_in_a_batch() -> None:
    metric = {"key": "k", "value": 1.0, "timestamp": 1}
    batch = {"run_id": "r", "metrics": [metric, metric | {"step": 0.5}], "params": None}
    with pytest.raises(InvalidParameter, match=r"metrics\[1\]\.step"):
        Reader(LogBatch).body(json.dumps(batch).encode())
    with pytest.raises(InvalidParameter, match=r"parameter 'metrics\[0\]\.timestamp'"):
        Reader(LogBatch).body(b'{"run_id": "r", "metrics": [{"key": "k", "value": 1}]}')


@pytest.mark.parametrize("value", [True, 5, ["a"], {}])
def test_a_text_must_be_one(value: object) -> None:
    with pytest.raises(InvalidParameter, match="value"):
        Reader(SetTag).body(json.dumps({"run_id": "r", "key": "k", "value": value}).encode())


def test_enums() -> None:
    reader = Reader(UpdateRun)
    assert reader.body(b'{"run_id": "r", "status": "FINISHED"}').status == "FINISHED"
    assert reader.body(b'{"run_id": "r", "status": 3}').status == "FINISHED"
    for wrong in (b'"finished"', b"0", b"6", b"true"):
        with pytest.raises(InvalidParameter, match="status"):
            reader.body(b'{"run_id": "r", "status": %b}' % wrong)


def test_a_query() -> None:
    reader = Reader(SearchExperiments)
    query = b"max_results=5&order_by=name&order_by=creation_time+DESC&view_type=ALL&other=1"
    assert reader.query(query) == SearchExperiments(5, order_by=["name", "creation_time DESC"], view_type="ALL")
    assert Reader(GetMetricHistoryBulkInterval).query(b"run_ids=a&metric_key=m").run_ids == ["a"]
    assert Reader(BatchGet).query(b"trace_ids=a&experiment_ids=0").experiment_ids == ["0"]  # a list, or None
    with pytest.raises(InvalidParameter, match="metric_key"):
        Reader(GetMetricHistoryBulkInterval).query(b"run_ids=a&metric_key=")
    with pytest.raises(InvalidParameter, match="max_results"):
        reader.query(b"max_results=x")


def test_a_sender_with_limited_rights_is_read_exactly() -> None:
    reader = Reader(SearchRuns)
    for wrong in (b'{"experiment_id": "1"}', b'"{}"', b"[]"):
        with pytest.raises(InvalidParameter):
            reader.body(wrong, exact=True)
    with pytest.raises(InvalidParameter, match="twice"):
        reader.query(b"filter=a&filter=b", exact=True)
    with pytest.raises(InvalidParameter, match="twice"):
        reader.body(b'{"filter": "a", "filter": "b"}', exact=True)
    assert reader.query(b"filter=a&filter=a", exact=True).filter == "a"


@pytest.mark.parametrize("value", [1, 1.5, "NaN", "Infinity", "-Infinity", 2**70, -0.0])
@pytest.mark.parametrize("timestamp", [0, "0", "1700000000000", 2**63 - 1, "9223372036854775807"])
def test_metrics_as_they_are_stored(value: float | str, timestamp: int | str) -> None:
    row = valid.metric(Reader(LogMetric).body(body(value=value, timestamp=timestamp)))
    assert row.timestamp == int(timestamp)
    assert row.is_nan == (value == "NaN")
    assert abs(row.value) <= valid.MAX_FLOAT


ASSESSMENT = {"assessment_name": "good", "feedback": {"value": True}, "source": {"source_type": "HUMAN"}}


@pytest.mark.parametrize(
    "given",
    [
        {"assessment": ASSESSMENT},
        {"assessment": ASSESSMENT, "trace_id": "the body's"},
        {"assessment": ASSESSMENT | {"feedback": {"value": [1, 2.5, {"a": "b"}, 2**70]}}},
        {"assessment": ASSESSMENT | {"source": {"source_type": None}}},
        {"assessment": ASSESSMENT | {"rationale": None}},
        {"assessment": ASSESSMENT | {"feedback": {"value": None}}},
        {"assessment": ASSESSMENT | {"assessmentName": "twice"}},
        {"assessment": ASSESSMENT | {"valid": "true", "unknown": 1}},
        {"assessment": ASSESSMENT | {"rationale": "\ud800"}},
        {"assessment": ASSESSMENT | {"rationale": 1}},
        {"assessment": {}},
        {"assessment": ""},
        {"trace_id": ""},
        [],
        b"",
        b"{",
        b'{"assessment": {"feedback": {"value": NaN}}}',
        b'{"assessment": {"feedback": {"value": 1e400}}}',
        b'{"assessment": {"rationale": "\xed\xa0\x80"}}',
    ],
)
def test_a_body_beside_a_path_is_read_in_one_step_as_it_is_in_two(given: Any) -> None:
    reader = Reader(CreateAssessment)
    body = given if isinstance(given, bytes) else json.dumps(given).encode()

    def in_two_steps() -> CreateAssessment:
        return reader.fields(reader._object(body, exact=False), {"trace_id": "the path's"})

    assert _outcome(lambda: reader.body(body, {"trace_id": "the path's"})) == _outcome(in_two_steps)


def _outcome(read: Callable[[], CreateAssessment]) -> CreateAssessment | str:
    try:
        return read()
    except InvalidParameter as error:
        return str(error)
