"""Traces as they are started, changed, read and deleted, step by step: status, JSON and rows are stock's."""

# ruff: noqa: E501  (a story is a row)

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import requests

from tests.differential.conftest import Pair
from tests.differential.harness import Subject
from tests.support.traces import TABLES
from tests.unit.traces.spans import body, span

# (method, endpoint, fields): T, U stand for ids of traces, V for the id that an older client's start has answered with
Step = tuple[str, str, Any]
NUMBERS = itertools.count(1)
TIME = "2026-01-02T03:04:05.678Z"
EXPERIMENT = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
_TIMES = re.compile(r"('created_time', )\d+")
_ASSESSMENT = re.compile(r"a-[0-9a-f]{32}")
_ASSOCIATION = re.compile(r"('association_id', ')[0-9a-f]{32}")


def start(**fields: Any) -> Step:
    info = {"trace_id": "T", "trace_location": EXPERIMENT, "request_time": TIME, "state": "OK"} | fields
    return ("POST", "3.0/mlflow/traces", {"trace": {"trace_info": info}})


def start_v2(**fields: Any) -> Step:
    return ("POST", "2.0/mlflow/traces", {"experiment_id": "0", "timestamp_ms": 1_000} | fields)


def end_v2(**fields: Any) -> Step:
    return ("PATCH", "2.0/mlflow/traces/V", {"timestamp_ms": 3_500, "status": "OK"} | fields)


def tag(key: str, value: str | None = "x", trace: str = "T", version: str = "3.0") -> Step:
    fields = {"key": key} if value is None else {"key": key, "value": value}
    return ("PATCH", f"{version}/mlflow/traces/{trace}/tags", fields)


def untag(key: str, trace: str = "T", version: str = "3.0") -> Step:
    return ("DELETE", f"{version}/mlflow/traces/{trace}/tags", {"key": key})


def delete(version: str = "3.0", **fields: Any) -> Step:
    return ("POST", f"{version}/mlflow/traces/delete-traces", {"experiment_id": "0"} | fields)


def link(**fields: Any) -> Step:
    return ("POST", "2.0/mlflow/traces/link-to-run", {"trace_ids": ["T"], "run_id": "r" * 32} | fields)


def prompts(*versions: tuple[str, str], **fields: Any) -> Step:
    given = [{"name": name, "version": version} for name, version in versions]
    return ("POST", "2.0/mlflow/traces/link-prompts", {"trace_id": "T", "prompt_versions": given} | fields)


_SOURCE = {"source": {"source_type": "HUMAN", "source_id": "me"}, "last_update_time": TIME}
# as MLflow's client sends them of what is logged while a trace is under way
ASSESSMENTS: list[dict[str, Any]] = [
    _SOURCE | {"assessment_name": "a", "trace_id": "U", "create_time": "1971-01-01T00:00:01Z", "feedback": {"value": True},
               "rationale": "r", "span_id": "s", "metadata": {"mlflow.assessment.sourceRunId": "r" * 32}},
    _SOURCE | {"assessment_name": "a", "create_time": "1971-01-01T00:00:02Z", "expectation": {"serialized_value": {
        "serialization_format": "JSON_FORMAT", "value": '{"k": [1]}'}}},
    _SOURCE | {"assessment_name": "b", "create_time": "1971-01-01T00:00:03Z", "feedback": {"error": {"error_code": "E"}}},
]  # fmt: skip
SEARCH: dict[str, Any] = {"locations": [EXPERIMENT], "filter": "request_id = 'T'"}
SEARCHES: list[dict[str, Any]] = [
    {},
    {"max_results": 501},
    {"max_results": 0},
    {"max_results": -1},
    {"max_results": "x"},
    {"filter": "x = 'y'"},
    {"filter": "timestamp > 'x'"},
    {"order_by": ["x"]},
    {"order_by": "x"},
    {"page_token": "x"},
    {"locations": []},
    {"locations": [{"type": "INFERENCE_TABLE", "inference_table": {"full_table_name": "a"}}]},
]
COUNT = {"metric_name": "trace_count", "aggregations": [{"aggregation_type": "COUNT"}]}
METRICS: list[dict[str, Any]] = [
    {},
    *({**COUNT, "experiment_ids": ids} for ids in ([], ["987654"], [str(2**31)], [str(2**31), "0"])),
    *({**COUNT, "experiment_ids": [], "filters": [each]} for each in ("trace.status = 'OK'", "trace.feedback.f = 'x'")),
    {**COUNT, "experiment_ids": [], "dimensions": ["trace_name"]},
    {"experiment_ids": []},
    {"view_type": ""},
    {"metric_name": ""},
    {"metric_name": "x"},
    {"filters": ["x"]},
    {"aggregations": [{"aggregation_type": "SUM"}]},
    {"dimensions": ["x"]},
    {"time_interval_seconds": 5},
    {"filters": "x"},
]
CORRELATIONS: list[dict[str, Any]] = [{}, {"filter_string1": ""}, {"filter_string2": "x"}, {"experiment_ids": []}]
SPANS: Step = ("POST", "/v1/traces", None)
INFO: Step = ("GET", "3.0/mlflow/traces/T", {})
INFO_V2: Step = ("GET", "2.0/mlflow/traces/V/info", {})
GET: Step = ("GET", "3.0/mlflow/traces/get", {"trace_id": "T", "allow_partial": "true"})
USAGE = json.dumps({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})
ALL: dict[str, Any] = {
    "client_request_id": "c", "request_preview": "in", "response_preview": "out", "execution_duration": "1.5s",
    "trace_metadata": {"m": "1", "mlflow.trace.session": "s", "mlflow.trace.tokenUsage": USAGE,
                       "mlflow.trace.cost": '{"input_cost": 0.5, "total_cost": 1}'},
    "tags": {"mlflow.traceName": "name", "t": "v", "empty": ""},
}  # fmt: skip
V2_PAIRS = [{"key": "a", "value": "1"}, {"key": "mlflow.traceName", "value": "n"}, {"key": "a", "value": "2"}]
STORIES: dict[str, list[Step]] = {
    "started": [start(), INFO, start(**ALL), INFO],
    "with all": [start(**ALL), INFO, start(), INFO, start(tags={"t": "w"}, request_preview="new"), INFO],
    "states": [start(state=state) for state in ("IN_PROGRESS", "ERROR", "STATE_UNSPECIFIED", "OK")] + [INFO],
    "spans first": [SPANS, start(**ALL), INFO, GET],
    "spans later": [start(), SPANS, INFO, GET],
    "spans, then elsewhere": [SPANS, start(trace_location={**EXPERIMENT, "mlflow_experiment": {"experiment_id": "987"}}), INFO],
    "times": [start(request_time=each) for each in
              ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789Z", "1969-12-31T23:59:59.5Z", "2026-01-02T03:04:05+01:30")] + [INFO],
    "no times": [start(request_time=each) for each in ("2026-01-02", "x", "", "2026-13-02T03:04:05Z", "2026-01-02T03:04:05")],
    "durations": [start(execution_duration=each) for each in ("0s", "61s", "0.0015s", "-1.5s")] + [INFO],
    "no durations": [start(execution_duration=each) for each in ("x", "1", "", "1.s")],
    "usage that is none": [start(trace_metadata={"mlflow.trace.tokenUsage": text, "mlflow.trace.cost": text}) for text in
                           ("x", "[]", '{"input_tokens": 1.5, "input_cost": "nan"}', '{"total_tokens": "7", "total_cost": "0.5"}')] + [INFO],
    "experiments": [start(trace_location={"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": each}})
                    for each in ("987654", "x", "")],
    "tags": [start(), tag("a"), tag("a", "y"), tag("b", ""), tag("n", None), INFO, untag("a"), untag("a"), untag("zz"),
             tag("mlflow.traceName", "new"), INFO, untag("mlflow.traceName"), untag("mlflow.traceName"), tag("a b/c", "v"),
             tag("a/../b"), tag("a*b"), tag("k" * 251), tag("long", "v" * 9_000), tag(""), untag(""), INFO],
    "tags of older clients": [start(), tag("a", version="2.0"), tag("mlflow.traceName", version="2.0"), untag("a", version="2.0"),
                              untag("a", version="2.0"), INFO],
    "tags of none": [tag("a"), untag("a"), untag("mlflow.traceName"), tag("mlflow.traceName")],
    "server's tags": [start(), *(each for key in ("mlflow.trace.spansLocation", "mlflow.trace.archiveLocation", "mlflow.trace.archivalFailure")
                                 for each in (tag(key), untag(key), tag(key, version="2.0"), untag(key, version="2.0"))), INFO],
    "a name too long": [start(tags={"mlflow.traceName": "n" * 4097}), start(), tag("mlflow.traceName", "n" * 4097), INFO],
    "an older client": [start_v2(), INFO_V2, end_v2(), INFO_V2, end_v2(status="ERROR", timestamp_ms=500)],
    "an older client with all": [start_v2(tags=V2_PAIRS, request_metadata=V2_PAIRS[:1]), end_v2(tags=V2_PAIRS[2:], request_metadata=V2_PAIRS),
                                 end_v2(tags=[{"key": "mlflow.traceName", "value": "later"}], request_metadata=[
                                     {"key": "mlflow.trace.session", "value": "s"}, {"key": "mlflow.trace.tokenUsage", "value": USAGE}]),
                                 INFO_V2, ("GET", "3.0/mlflow/traces/V", {}), tag("b", trace="V", version="2.0"), INFO_V2],
    "an older client's mistakes": [start_v2(experiment_id="987654"), start_v2(experiment_id="x"), start_v2(experiment_id=""),
                                   ("PATCH", "2.0/mlflow/traces/none", {"timestamp_ms": 1, "status": "OK"}),
                                   ("GET", "2.0/mlflow/traces/none/info", {}), start_v2(tags=[{"value": "x"}])],
    "an end without a status": [start_v2(), ("PATCH", "2.0/mlflow/traces/V", {"timestamp_ms": 3_500}), INFO_V2],
    "linked": [link(), start(), link(), link(trace_ids=["T", "T", "U"]), link(trace_ids=[]), link(run_id=""), link(trace_ids=["T"] * 101),
               ("POST", "2.0/mlflow/traces/link-to-run", {}),
               ("POST", "3.0/mlflow/traces/search", {"locations": [EXPERIMENT], "filter": f"run_id = '{'r' * 32}' AND request_id IN ('T', 'U')"})],
    "prompts": [prompts(("p", "1")), start(), prompts(("p", "1"), ("p", "2"), ("p", "03")), prompts(("p", "1")), prompts(), prompts(("p", "x")),
                ("POST", "3.0/mlflow/traces/search", {"locations": [EXPERIMENT], "filter": "prompt = 'p/2' AND request_id = 'T'"})],
    "deleted": [start(**ALL), SPANS, link(), start(trace_id="U"), delete(request_ids=["T", "none"]), INFO, delete(request_ids=["T"]),
                delete("2.0", request_ids=["U"]), *(delete(experiment_id=each, request_ids=["U"]) for each in ("987654", str(2**31)))],
    "not deleted": [delete(), delete(request_ids=[]), delete(request_ids=["T"], max_traces=1), delete(max_timestamp_millis=5, request_ids=["T"]),
                    delete(max_timestamp_millis=1, max_traces=0), delete(max_timestamp_millis=1, max_traces=-1), delete(experiment_id=""),
                    delete(experiment_id="x", request_ids=["T"]), ("POST", "3.0/mlflow/traces/delete-traces", {"request_ids": ["T"]}), delete(request_ids="T")],
    "by age": [delete(max_timestamp_millis=31_537_000_000), delete(max_timestamp_millis=31_537_000_000), start(request_time="1971-01-01T00:00:02Z"), start(trace_id="U", request_time="1971-01-01T00:00:01Z"),
               ("POST", "3.0/mlflow/traces/delete-traces", {"experiment_id": "0", "max_timestamp_millis": 31_536_000_500}), delete(max_timestamp_millis=31_536_002_000, max_traces=1), INFO,
               delete(max_timestamp_millis=31_536_002_000), INFO],
    "none": [INFO, GET, ("GET", "3.0/mlflow/traces/get", {}), ("GET", "3.0/mlflow/traces/batchGet", {"trace_ids": ["T", "U"]}),
             ("GET", "3.0/mlflow/traces/batchGet", {"trace_ids": ["T"], "experiment_ids": ["0"]}),
             ("GET", "3.0/mlflow/traces/batchGet", {}), ("POST", "3.0/mlflow/traces/batchGetInfos", {"trace_ids": ["T"]}),
             ("POST", "3.0/mlflow/traces/batchGetInfos", {"trace_ids": []}), ("POST", "3.0/mlflow/traces/batchGetInfos", {}),
             ("GET", "3.0/mlflow/traces/get", {"trace_id": "T", "allow_partial": "maybe"})],
    "searched": [start(), ("POST", "3.0/mlflow/traces/search", {}), *(
        ("POST", "3.0/mlflow/traces/search", SEARCH | more) for more in SEARCHES),
        ("GET", "2.0/mlflow/traces", {"experiment_ids": ["0"], "filter": "request_id = 'T'"}), ("GET", "2.0/mlflow/traces", {}),
        ("GET", "2.0/mlflow/traces", {"experiment_ids": ["0"], "max_results": "501"})],
    "metrics": [start(execution_duration="5s"), *(("POST", "3.0/mlflow/traces/metrics", {
        "experiment_ids": ["0"], "view_type": "TRACES", "metric_name": "latency", "filters": ["trace.tag.only = 'T'"],
        "aggregations": [{"aggregation_type": "AVG"}, {"aggregation_type": "PERCENTILE", "percentile_value": 50}]} | more)
        for more in METRICS), tag("only", "T"), ("POST", "3.0/mlflow/traces/metrics", {
            "experiment_ids": ["0"], "view_type": "TRACES", "metric_name": "latency", "filters": ["trace.tag.only = 'T'"],
            "aggregations": [{"aggregation_type": "AVG"}], "dimensions": ["trace_name"]})],
    "correlation": [start(), *(("POST", "3.0/mlflow/traces/calculate-filter-correlation", {
        "experiment_ids": ["0"], "filter_string1": "request_id = 'T'", "filter_string2": "status = 'OK'",
        "base_filter": "request_id = 'T'"} | more) for more in CORRELATIONS)],
    "metrics without aggregations": [("POST", "3.0/mlflow/traces/metrics", {
        "experiment_ids": ["0"], "view_type": "TRACES", "metric_name": "latency", "aggregations": []})],
    "metrics of no such view": [("POST", "3.0/mlflow/traces/metrics", {
        "experiment_ids": ["0"], "view_type": "x", "metric_name": "latency", "aggregations": [{"aggregation_type": "AVG"}]})],
    "ids that are too long": [start(trace_id="i" * 51), start(client_request_id="i" * 51), start(request_preview="i" * 1001)],
    "no trace": [("POST", "3.0/mlflow/traces", {}), ("POST", "3.0/mlflow/traces", {"trace": {}}), start(trace_location={}),
                 start(trace_location={"type": "MLFLOW_EXPERIMENT"}), start(state="x"), start(state=1)],
    "with assessments": [start(assessments=ASSESSMENTS), INFO, start(assessments=[ASSESSMENTS[0] | {"create_time": "1971-01-01T00:00:09Z"}]), INFO],
    "with assessments, its spans first": [SPANS, start(assessments=ASSESSMENTS), INFO],
    "with assessments, of no experiment": [start(assessments=ASSESSMENTS, trace_location={
        "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "987654"}}), INFO],
    "with assessments that are not new": [start(assessments=[ASSESSMENTS[0] | {"assessment_id": "a-T"}, ASSESSMENTS[1] | {"valid": False}])],
}  # fmt: skip
# What goes to stock.
DECLINED = {"with assessments that are not new"}
# Where Headrace refuses, and stock stores what only one of the databases holds, or takes half of it.
CLEARER = {"ids that are too long", "no times", "no durations", "no trace", "tags of none",
           "metrics of no such view", "metrics without aggregations"}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_story(pair: Pair, story: str) -> None:
    number = next(NUMBERS)
    ids = {"T": f"tr-{number:032x}", "U": f"tr-{number + 2**64:032x}"}
    played = [play(subject, STORIES[story], dict(ids)) for subject in (pair.stock, pair.headrace)]
    stock, headrace = played
    for step, expected, found in zip(STORIES[story], stock.answers, headrace.answers, strict=True):
        where = f"{step}\nstock:    {expected}\nHeadrace: {found}"[:3000]
        if expected.status >= 500 or story in CLEARER:
            assert 400 <= found.status < 500, where
            return
        assert found.status == expected.status, where
        if expected.status == 200:
            if step[:2] == ("POST", "3.0/mlflow/traces"):  # of a trace that was there stock does not show new tags
                for answer in (found, expected):
                    answer.content["trace"]["trace_info"].pop("tags")
            if not (story == "by age" and step is STORIES[story][0]):  # which removes what others have left
                assert found.content == expected.content, where
        elif isinstance(found.content, dict) and isinstance(expected.content, dict):
            assert found.content.get("error_code") == expected.content.get("error_code"), where
        assert found.native or expected.status == 400 or story in DECLINED, where
    assert headrace.rows == stock.rows


class Answer:
    def __init__(self, response: requests.Response, ids: dict[str, str]) -> None:
        self.status = response.status_code
        self.native = response.headers.get("headrace-answered-by") == "native"
        text = _ASSESSMENT.sub("<assessment>", unfilled(response.text, ids))
        try:
            self.content: Any = in_order(json.loads(text))
        except ValueError:
            self.content = text

    def __repr__(self) -> str:
        return f"{self.status} {self.content}"


class Played:
    def __init__(self, answers: list[Answer], rows: dict[str, list[str]]) -> None:
        self.answers, self.rows = answers, rows


def play(subject: Subject, story: list[Step], ids: dict[str, str]) -> Played:
    answers = []
    for method, endpoint, fields in story:
        response = send(subject, method, filled(endpoint, ids), fields, ids)
        if endpoint == "2.0/mlflow/traces" and method == "POST" and response.status_code == 200:
            ids["V"] = response.json()["trace_info"]["request_id"]
        answers.append(Answer(response, ids))
    return Played(answers, rows(subject, ids))


def send(subject: Subject, method: str, endpoint: str, fields: Any, ids: dict[str, str]) -> requests.Response:
    if fields is None:
        trace_id = bytes.fromhex(ids["T"].removeprefix("tr-"))
        content = body(
            span({"session.id": "s-1", "mlflow.chat.tokenUsage": USAGE}, trace_id=trace_id),
            span(trace_id=trace_id, span_id=b"\2" * 8, parent_id=b"\1" * 8),
        )
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
        return subject.request("POST", endpoint, data=content, headers=headers)
    given = json.loads(filled(json.dumps(fields), ids))
    how = {"params": given} if method == "GET" else {"json": given}
    return subject.request(method, f"/api/{endpoint}", **how)


def filled(text: str, ids: dict[str, str]) -> str:
    return re.sub(r"(?<![A-Za-z0-9_])[TUV](?![A-Za-z0-9_])", lambda match: ids.get(match[0], match[0]), text)


def unfilled(text: str, ids: dict[str, str]) -> str:
    for name, id_ in ids.items():
        text = text.replace(id_, name)
    return text


def in_order(content: Any) -> Any:
    given = content if isinstance(content, dict) else {}
    for info in (given.get("trace_info", {}), *given.get("traces", ())):
        for name in ("tags", "request_metadata"):
            if isinstance(info.get(name), list):
                info[name].sort(key=lambda one: one["key"])
    return content


def rows(subject: Subject, ids: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    keys = {**TABLES, "entity_associations": "source_id"}
    for table, key in keys.items():
        some = subject.rows_of(table, key, ids.values())
        texts = [_ASSESSMENT.sub("<assessment>", unfilled(repr(sorted(row.items())), ids)) for row in some]
        found[table] = sorted(_ASSOCIATION.sub(r"\1", _TIMES.sub(r"\1", text)) for text in texts)
    return found


OWN = ("mlflow.artifactLocation", "file:///etc")


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_where_files_are_is_the_servers(pair: Pair, version: str) -> None:
    """Stock lets anybody set a trace's artifact location."""
    ids = {"T": f"tr-{next(NUMBERS):032x}"}
    key, value = OWN
    wanted = play(
        pair.headrace, [start(), tag(key, value, version=version), untag(key, version=version), INFO], ids
    ).answers
    assert [answer.status for answer in wanted] == [200, 400, 400, 200]
    assert wanted[-1].content["trace"]["trace_info"]["tags"][key] != value


def test_where_files_are_comes_with_no_trace(pair: Pair) -> None:
    ids = {"T": f"tr-{next(NUMBERS):032x}", "V": "x"}
    archived = {"mlflow.trace.spansLocation": "ARCHIVE_REPO", "mlflow.trace.archiveLocation": "file:///etc"}
    played = play(pair.headrace, [start(tags=archived), start(tags=dict([OWN])), INFO], ids).answers
    assert [answer.status for answer in played] == [400, 200, 200]
    own = played[-1].content["trace"]["trace_info"]["tags"][OWN[0]]
    assert own.endswith("/traces/T/artifacts")
    pairs = [{"key": OWN[0], "value": OWN[1]}]
    played = play(pair.headrace, [start_v2(tags=pairs), end_v2(tags=pairs), INFO_V2], ids).answers
    assert [answer.status for answer in played] == [200, 200, 200]
    found = {each["key"]: each["value"] for each in played[-1].content["trace_info"]["tags"]}
    assert found[OWN[0]].endswith("/traces/V/artifacts")
    attributes = {f"mlflow.traceTag.{key}": value for key, value in {**archived, OWN[0]: OWN[1]}.items()}
    trace_id = next(NUMBERS).to_bytes(16)
    headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
    url = pair.headrace.server.url
    answer = requests.post(
        f"{url}/v1/traces", data=body(span(attributes, trace_id=trace_id)), headers=headers, timeout=60
    )
    assert answer.status_code == 200
    tags = requests.get(f"{url}/api/3.0/mlflow/traces/tr-{trace_id.hex()}", timeout=60).json()["trace"]["trace_info"][
        "tags"
    ]
    assert tags[OWN[0]].endswith("/artifacts")
    assert tags["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert "mlflow.trace.archiveLocation" not in tags


@pytest.mark.parametrize("header", [("Content-Encoding", "gzip"), ("Origin", "https://localhost")])
def test_no_header_leads_past_what_is_looked_at(pair: Pair, header: tuple[str, str]) -> None:
    """Stock reads the body as it is, and a pattern with Python's engine."""
    archived = {"mlflow.trace.spansLocation": "ARCHIVE_REPO", "mlflow.trace.archiveLocation": "file:///etc"}
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {"trace_id": "tr-1", "request_time": "2026-01-01T00:00:00Z", "trace_location": place, "tags": archived}
    for path, message, status in (
        ("traces", {"trace": {"trace_info": info}}, 400),
        ("traces/search", {"locations": [place], "filter": "span.name RLIKE '^(a+)+$'"}, 200),
    ):
        url = f"{pair.headrace.server.url}/api/3.0/mlflow/{path}"
        answer = requests.post(url, json=message, headers=dict([header]), timeout=60)
        assert (answer.status_code, answer.headers["headrace-answered-by"]) == (status, "native")
