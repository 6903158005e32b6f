"""POST /v1/traces to stock and to Headrace: the same answers, and the same rows of every table."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import requests
from google.protobuf.json_format import MessageToDict

from tests.differential.conftest import Pair
from tests.differential.harness import Subject
from tests.support.traces import TABLES
from tests.unit.traces.spans import MILLION, SPAN_IDS, START, body, request, span

PATH = "/v1/traces"
PROTOBUF = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
JSON = PROTOBUF | {"Content-Type": "application/json"}
NUMBERS = itertools.count(1)
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


class Got(NamedTuple):
    status: int
    content_type: str | None
    body: Any
    native: bool


def new_trace() -> bytes:
    """An id that no other test has."""
    return b"otlp" + next(NUMBERS).to_bytes(12, "big")


def post(subject: Subject, content: bytes, headers: dict[str, str]) -> Got:
    response = subject.request("POST", PATH, data=content, headers=headers)
    try:
        said = response.json()
    except ValueError:
        said = response.content
    native = response.headers.get("headrace-answered-by") == "native"
    return Got(response.status_code, response.headers.get("content-type"), said, native)


def rows(subject: Subject, *trace_ids: bytes) -> dict[str, list[str]]:
    """What a server has of the traces."""
    ids = [f"tr-{trace_id.hex()}" for trace_id in trace_ids]
    return {
        table: sorted(repr(sorted(row.items())) for row in subject.rows_of(table, key, ids))
        for table, key in TABLES.items()
    }


def compare(
    pair: Pair, *bodies: bytes, traces: tuple[bytes, ...] = (), headers: dict[str, str] = PROTOBUF,
    native: bool | None = True,
) -> Got:  # fmt: skip
    """Send the requests to both, and compare answers and rows; Headrace's last answer."""
    got = None
    for content in bodies:
        wanted = post(pair.stock, content, headers)
        got = post(pair.headrace, content, headers)
        assert got[:3] == wanted[:3]
        assert native is None or got.native == native
    assert rows(pair.headrace, *traces) == rows(pair.stock, *traces)
    assert got is not None
    return got


def tree(trace_id: bytes) -> tuple[dict[str, Any], ...]:
    """A root and its children, with all that spans may have."""
    common: dict[str, Any] = {"trace_id": trace_id}
    return (
        span(
            {
                "mlflow.spanType": "CHAIN", "mlflow.spanInputs": '{"question": "日本 \\" ?"}',
                "mlflow.spanOutputs": "42",
                "session.id": "s-1", "user.id": "me", "mlflow.traceTag.team": "blue", "number": 7, "float": 1.5,
                "flag": True, "bytes": b"\0\1", "list": [1, "a", None], "map": {"a": {"b": []}}, "none": None,
                "nul": "a\0b", "long": "x" * 5_000,
            },
            status=(1, ""), events=[("exception", {"exception.message": "it broke"})],
            links=[(b"\2" * 16, b"\3" * 8, {"why": "retry"})], **common,
        ),
        span(
            {"mlflow.spanType": "LLM", "mlflow.chat.tokenUsage": json.dumps(USAGE), "mlflow.llm.model": "gpt-4o"},
            span_id=SPAN_IDS[2], parent_id=SPAN_IDS[1], start=START + MILLION, end=START + 3 * MILLION, **common,
        ),
        span(
            {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 4, "gen_ai.usage.output_tokens": 1},
            span_id=SPAN_IDS[3], parent_id=SPAN_IDS[1], name="naïve", status=(2, "late"), **common,
        ),
        span(
            {"openinference.span.kind": "TOOL", "input.value": "in", "llm.token_count.prompt": 2},
            span_id=SPAN_IDS[4], parent_id=SPAN_IDS[3], **common,
        ),
    )  # fmt: skip


def test_a_trace_at_once_and_again(pair: Pair) -> None:
    trace_id = new_trace()
    content = body(*tree(trace_id), resource={"service.name": "claude-code", "host.name": "h"})
    got = compare(pair, content, content, traces=(trace_id,))
    assert (got.status, got.body) == (200, b"")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_in_pieces(pair: Pair, order: tuple[int, ...]) -> None:
    trace_id = new_trace()
    spans = tree(trace_id)
    compare(pair, *(body(spans[at]) for at in order), traces=(trace_id,))


def test_several_traces_in_a_request(pair: Pair) -> None:
    ids = tuple(new_trace() for _ in range(5))
    spans = [each for id_ in ids for each in tree(id_)]
    compare(pair, body(*spans[2:]), body(*spans[:9]), traces=ids)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress), ("", bytes)],
)
def test_encodings(pair: Pair, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    trace_id = new_trace()
    content = pack(body(*tree(trace_id)))
    compare(pair, content, traces=(trace_id,), headers=PROTOBUF | {"Content-Encoding": encoding})


def test_json(pair: Pair) -> None:
    trace_id = new_trace()
    message = MessageToDict(request(*tree(trace_id)))
    words = message["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for written, given in zip(words, tree(trace_id), strict=True):
        ids = {"traceId": "trace_id", "spanId": "span_id", "parentSpanId": "parent_id"}
        written.update({name: given[field].hex() for name, field in ids.items()})
        written.pop("links", None)
    compare(pair, json.dumps(message).encode(), traces=(trace_id,), headers=JSON)
    compare(
        pair, gzip.compress(json.dumps(message).encode()), traces=(trace_id,),
        headers=JSON | {"Content-Encoding": "gzip", "Content-Type": "application/json; charset=utf-8"},
    )  # fmt: skip


def test_another_experiment(pair: Pair) -> None:
    """A trace stays in the experiment where it was made, and then the header says nothing."""
    trace_id, other = new_trace(), new_trace()
    for subject in (pair.stock, pair.headrace):
        found = subject.query("SELECT 1 FROM experiments WHERE experiment_id = 700077")
        assert not found
        subject.database.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)"
            " VALUES (700077, :name, 'mlflow-artifacts:/700077', 'deleted', 'default')",
            name=f"otlp {trace_id.hex()}",
        )
    try:
        spans = tree(trace_id)
        elsewhere = PROTOBUF | {"x-mlflow-experiment-id": "700077"}
        compare(pair, body(*spans[1:]), traces=(trace_id,), headers=elsewhere)
        compare(pair, body(spans[0]), traces=(trace_id,))
        missing = PROTOBUF | {"x-mlflow-experiment-id": "987654"}
        compare(pair, body(spans[0]), traces=(trace_id,), headers=missing)
        got = compare(pair, body(spans[0], *tree(other)), traces=(trace_id, other), headers=missing)
        assert got.status == 404
        assert rows(pair.headrace, other)["spans"] == []
    finally:
        for subject in (pair.stock, pair.headrace):
            for table in ("spans", "trace_tags", "trace_request_metadata"):
                key = TABLES[table]
                subject.database.execute(f"DELETE FROM {table} WHERE {key} = :id", id=f"tr-{trace_id.hex()}")
            subject.database.execute("DELETE FROM trace_info WHERE experiment_id = 700077")
            subject.database.execute("DELETE FROM experiments WHERE experiment_id = 700077")


def test_the_run_is_linked(pair: Pair) -> None:
    whole, part = new_trace(), new_trace()
    headers = PROTOBUF | {"x-mlflow-run-id": "a" * 32}
    content = body(*tree(whole), *tree(part)[1:])
    compare(pair, content, content, traces=(whole, part), headers=headers)
    wanted = [{"source_type": "trace", "source_id": f"tr-{whole.hex()}", "destination_type": "run", "late": True}]
    for subject in (pair.stock, pair.headrace):
        found = subject.query(
            "SELECT source_type, source_id, destination_type, created_time > 1700000000000 AS late"
            " FROM entity_associations WHERE source_id IN (:whole, :part) AND length(association_id) = 32",
            whole=f"tr-{whole.hex()}", part=f"tr-{part.hex()}",
        )  # fmt: skip
        assert found == wanted


def test_the_file_of_a_trace(pair: Pair) -> None:
    """What the UI downloads."""
    trace_id = new_trace()
    compare(pair, body(*tree(trace_id)), traces=(trace_id,))
    for query in (f"?request_id=tr-{trace_id.hex()}", ""):
        path = f"/ajax-api/2.0/mlflow/get-trace-artifact{query}"
        stock, headrace = (subject.request("GET", path) for subject in (pair.stock, pair.headrace))
        assert (headrace.status_code, headrace.json()) == (stock.status_code, stock.json())
        for header in ("content-type", "content-disposition", "x-content-type-options"):
            assert headrace.headers.get(header) == stock.headers.get(header)
        assert headrace.headers["headrace-answered-by"] == "native"


def test_files_beside_a_trace(pair: Pair) -> None:
    """An attachment, and the spans of a client that keeps them in a file."""
    trace_id, attachment = new_trace(), "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
    name = f"tr-{trace_id.hex()}"
    without = new_trace()
    for subject in (pair.stock, pair.headrace):
        start(subject, without)
        start(subject, trace_id)
        [row] = subject.query(
            "SELECT value FROM trace_tags WHERE request_id = :name AND key = 'mlflow.artifactLocation'", name=name
        )
        folder = f"/api/2.0/mlflow-artifacts/artifacts{row['value'].removeprefix('mlflow-artifacts:')}"
        for path, content in ((f"attachments/{attachment}", b"\x89PNG"), ("traces.json", b'{"spans": []}')):
            assert subject.request("PUT", f"{folder}/{path}", data=content).status_code == 200
    for query, natively in (
        (f"{name}&path={attachment}", True), (name, True), (f"{name}&path={attachment[:-1]}8", True),
        (f"{name}&path=../traces.json", False), (f"tr-{without.hex()}", True),
        ("tr-none", True), (f"tr-none&path={attachment}", True), ("tr-none&path=../traces.json", False),
    ):  # fmt: skip
        path = f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id={query}"
        stock, headrace = (subject.request("GET", path) for subject in (pair.stock, pair.headrace))
        assert headrace.status_code == stock.status_code, query
        same = headrace.content == stock.content if stock.ok else headrace.json() == stock.json()
        assert same, (query, headrace.text, stock.text)
        for header in ("content-type", "content-disposition", "x-content-type-options", "cache-control"):
            assert headrace.headers.get(header) == stock.headers.get(header), (query, header)
        assert headrace.headers["headrace-answered-by"] == ("native" if natively else "stock"), query


def test_after_start_trace(pair: Pair) -> None:
    """start_trace and the spans of its trace, whoever comes first."""
    first, later = new_trace(), new_trace()
    for subject in (pair.stock, pair.headrace):
        start(subject, first)
        assert post(subject, body(*tree(first)), PROTOBUF).status == 200
        assert post(subject, body(*tree(later)[1:]), PROTOBUF).status == 200
        start(subject, later)
        assert post(subject, body(tree(later)[0]), PROTOBUF).status == 200
    assert rows(pair.headrace, first, later) == rows(pair.stock, first, later)


def start(subject: Subject, trace_id: bytes) -> None:
    info = {
        "trace_id": f"tr-{trace_id.hex()}", "request_time": "2026-01-01T00:00:00Z", "state": "OK",
        "execution_duration": "0.250s", "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
        "trace_metadata": {"mlflow.trace.tokenUsage": json.dumps(USAGE)}, "tags": {"mlflow.traceName": "told"},
    }  # fmt: skip
    url = subject.server.url + "/api/3.0/mlflow/traces"
    assert requests.post(url, json={"trace": {"trace_info": info}}, timeout=60).status_code == 200


@pytest.mark.parametrize("on_one_connection", [False, True])
def test_many_writers_of_one_trace(pair: Pair, on_one_connection: bool) -> None:
    """Each span in a request of its own, from eight clients; the same requests end in the same rows."""
    ids = [new_trace() for _ in range(6)]
    contents = [
        body(
            span(
                {"mlflow.chat.tokenUsage": json.dumps(USAGE), "user.id": "me"} if number else {"session.id": "s"},
                trace_id=trace_id, span_id=bytes([number + 1]) * 8, parent_id=b"\1" * 8 if number else b"",
                start=START + number * MILLION, end=START + (number + 2) * MILLION,
            )
        )
        for number in range(8)
        for trace_id in ids
    ]  # fmt: skip
    if on_one_connection:
        contents.reverse()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda content: post(pair.headrace, content, PROTOBUF), contents))
    assert {(each.status, each.native) for each in got} == {(200, True)}
    for content in contents:
        assert post(pair.stock, content, PROTOBUF).status == 200
    assert rows(pair.headrace, *ids) == rows(pair.stock, *ids)


def test_a_bad_neighbour(pair: Pair) -> None:
    """What can't be done fails alone, however many share its commit."""
    ids = [new_trace() for _ in range(40)]
    bad = new_trace()
    unknown = PROTOBUF | {"x-mlflow-experiment-id": "987654"}
    requests_ = [(body(*tree(id_)), PROTOBUF) for id_ in ids]
    requests_[::4] = [(body(*tree(bad)), unknown)] * 10
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda each: post(pair.headrace, *each), requests_))
    assert [each.status for each in got] == [404, 200, 200, 200] * 10
    found = rows(pair.headrace, *ids, bad)
    assert len(found["spans"]) == 30 * 4


SPANS = body(span(trace_id=b"otlp-bad-request"))
REFUSED: dict[str, tuple[bytes, dict[str, str]]] = {
    "truncated": (SPANS[:-3], PROTOBUF),
    "no spans": (b"", PROTOBUF),
    "no JSON": (b"{", JSON),
    "a content type": (SPANS, PROTOBUF | {"Content-Type": "text/plain"}),
    "no experiment": (SPANS, {"Content-Type": "application/x-protobuf"}),
    "an unknown experiment": (SPANS, PROTOBUF | {"x-mlflow-experiment-id": "987654"}),
    "an experiment that is no number": (SPANS, PROTOBUF | {"x-mlflow-experiment-id": "x"}),
    "an unknown encoding": (SPANS, PROTOBUF | {"Content-Encoding": "br"}),
    "no gzip": (SPANS, PROTOBUF | {"Content-Encoding": "gzip"}),
    "half of gzip": (gzip.compress(SPANS)[:-9], PROTOBUF | {"Content-Encoding": "gzip"}),
    "no span id": (body(span(trace_id=b"otlp-bad-request", span_id=b"")), PROTOBUF),
    "a long trace id": (body(span(trace_id=b"otlp-bad-request+")), PROTOBUF),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(pair: Pair, name: str) -> None:
    content, headers = REFUSED[name]
    got = compare(pair, content, traces=(b"otlp-bad-request",), headers=headers)
    assert 400 <= got.status < 500


def test_a_bomb(pair: Pair) -> None:
    bomb = gzip.compress(bytes(80_000_000))
    got = post(pair.headrace, bomb, PROTOBUF | {"Content-Encoding": "gzip"})
    assert (got.status, got.native) == (413, True)


def test_two_experiments(pair: Pair) -> None:
    """Stock takes one of them."""
    host, port = pair.headrace.server.url.removeprefix("http://").split(":")
    import http.client

    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.putrequest("POST", PATH)
    for name, value in [*PROTOBUF.items(), ("x-mlflow-experiment-id", "1"), ("Content-Length", str(len(SPANS)))]:
        connection.putheader(name, value)
    connection.endheaders(SPANS)
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"x-mlflow-experiment-id twice" in answer.read()
    connection.close()
    assert rows(pair.headrace, b"otlp-bad-request")["spans"] == []


UNSTORABLE: dict[str, tuple[bytes, dict[str, str]]] = {
    "a NUL in a name": (body(span(name="a\0b", trace_id=b"otlp-unstorable-")), PROTOBUF),
    "a NUL in a tag": (body(span({"mlflow.traceTag.a": "a\0b"}, trace_id=b"otlp-unstorable-")), PROTOBUF),
    "a time": (body(span(trace_id=b"otlp-unstorable-", start=2**63)), PROTOBUF),
    "the last time": (body(span(trace_id=b"otlp-unstorable-", end=2**64 - 1)), PROTOBUF),
    "a long type": (body(span({"mlflow.spanType": "x" * 501}, trace_id=b"otlp-unstorable-")), PROTOBUF),
    "a long session": (body(span({"session.id": "x" * 5000}, trace_id=b"otlp-unstorable-")), PROTOBUF),
}


@pytest.mark.parametrize("name", UNSTORABLE)
def test_unstorable(pair: Pair, name: str) -> None:
    """SQLite holds some of it, and stock stores that. Else it is refused, without the database's words (stock: 500)."""
    got = post(pair.headrace, *UNSTORABLE[name])
    assert got.status == 400 or (pair.backend == "sqlite" and got.status == 200), got
    assert "SQL" not in str(got.body).replace("PostgreSQL", "")
    if got.status == 400:
        assert got.native or pair.backend == "sqlite"
        assert rows(pair.headrace, b"otlp-unstorable-")["spans"] == [] or pair.backend == "sqlite"
        # MLflow's client raises an exception of this code
        assert got.body["error_code"] == ("INVALID_PARAMETER_VALUE" if "session" in name else "BAD_REQUEST")


@pytest.mark.parametrize("key", ["session.id", "gen_ai.conversation.id", "mlflow.traceTag.mlflow.traceName"])
def test_too_long(pair: Pair, key: str) -> None:
    """Stock refuses the request, in the same words on every database."""
    for length in (250, 251, 8_001):
        trace_id = new_trace()
        compare(pair, body(span({key: "x" * length}, trace_id=trace_id)), traces=(trace_id,))


def test_declined(pair: Pair) -> None:
    """What only stock can do goes there; a span that is twice in such a request would hold a thread of stock's."""
    trace_id, twice = new_trace(), new_trace()
    odd = {"mlflow.llm.cost": "5"}
    compare(pair, body(span(odd, trace_id=trace_id)), traces=(trace_id,), native=False)
    each = span(odd, trace_id=twice)
    got = post(pair.headrace, body(each, each), PROTOBUF)
    assert (got.status, got.native) == (400, True)
    assert rows(pair.headrace, twice)["spans"] == []
