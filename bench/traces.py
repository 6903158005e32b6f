"""Traces beside stock's: `python -m bench.traces [--quick | --once] [--postgresql | --sqlite] [--only PATTERN]`.

--once is one round, --quick one short one with fewer traces, of PostgreSQL unless SQLite is named; --only those rows
whose titles a regular expression finds something in.

There are 50,000 traces (5,000 for --quick) of ten spans, with three tags and two assessments each. What is sent to
/v1/traces are traces of 10 spans with 4 attributes of 300 bytes each; what was acknowledged is counted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench import api, canned, raw_inserts
from bench.databases import KINDS, Database, fetch, run
from bench.turns import ROUNDS, SECONDS, Row, Subject, Table, Task, client, compare

TRACES, QUICK_TRACES = 50_000, 5_000
SPANS, ATTRIBUTES, LENGTH = 10, 4, 300
START = 1_700_000_000_000_000_000
TRACE_ID = b"\xff" * 16
INGESTION = "/v1/traces"
# the experiment that is full, those that new traces go to, and the one of the traced function
FULL, NEW = 1, 2
EXPERIMENTS = 64
TRACED = NEW + EXPERIMENTS


def trace() -> bytes:
    """The body of a request, in which TRACE_ID is to be replaced."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for number in range(SPANS):
        span = spans.add()
        span.trace_id, span.span_id, span.name = TRACE_ID, bytes([number + 1]) * 8, f"step {number}"
        span.parent_span_id = b"\1" * 8 if number else b""
        span.start_time_unix_nano, span.end_time_unix_nano = START + number, START + 1_000_000 * (number + 1)
        for key in range(ATTRIBUTES):
            attribute = span.attributes.add()
            attribute.key = f"attribute {key}"
            attribute.value.string_value = f"{number}{key} ".ljust(LENGTH, "x")
    content: bytes = message.SerializeToString()
    return content


HEAD = (
    "POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
    "x-mlflow-experiment-id: {}\r\nContent-Length: {}\r\n\r\n"
)
BODY = trace()
# of these ids each server gets a trace before all else
KNOWN = [number.to_bytes(16, "big") for number in range(1, 11)]


def export(trace_id: bytes, experiment: int = NEW) -> bytes:
    """A request with a trace."""
    return HEAD.format(experiment, len(BODY)).encode() + BODY.replace(TRACE_ID, trace_id)


def _v3(method: str, path: str, content: Any = None) -> bytes:
    body = None if content is None else json.dumps(content).encode()
    return api.request(method, path, body).replace(b"/api/2.0/", b"/api/3.0/", 1)


def _search(condition: str) -> bytes:
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(FULL)}}
    return _v3(
        "POST",
        "traces/search",
        {"locations": [place], "filter": condition, "max_results": 100, "order_by": ["timestamp_ms DESC"]},
    )


def _start(number: int) -> bytes:
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(NEW)}}
    info = {
        "trace_id": f"tr-{os.urandom(16).hex()}", "trace_location": place, "request_time": "2026-01-02T03:04:05.678Z",
        "execution_duration": "1.500s", "state": "OK", "request_preview": "a question", "response_preview": "an answer",
        "tags": {"team": "a", "number": str(number)}, "trace_metadata": {"mlflow.trace_schema.version": "3"},
    }  # fmt: skip
    return _v3("POST", "traces", {"trace": {"trace_info": info}})


def _assess(number: int) -> bytes:
    trace_id = f"tr-{KNOWN[number % len(KNOWN)].hex()}"
    assessment = {
        "trace_id": trace_id, "assessment_name": "good", "feedback": {"value": True},
        "source": {"source_type": "HUMAN", "source_id": "me"},
    }  # fmt: skip
    return _v3("POST", f"traces/{trace_id}/assessments", {"assessment": assessment})


def _found(body: bytes) -> bool:
    traces = json.loads(body)["traces"]
    return len(traces) == 100 and all(len(each["assessments"]) == 2 for each in traces)


def _got(body: bytes) -> bool:
    found = json.loads(body)
    return all(len(each["spans"]) == SPANS for each in found.get("traces") or [found["trace"]])


_traced_function = partial(client, "bench.traced_function", TRACED)


def _without_server(_: Database, seconds: float) -> float:
    with canned.serving() as port:
        return _traced_function(port, seconds)


_IDS = "&".join(f"trace_ids=tr-{each.hex()}" for each in KNOWN)
ROWS = (
    Row(f"{INGESTION}, p50", 1, lambda _: export(os.urandom(16)), lambda body: not body, 8, latency=True),
    Row(
        f"{INGESTION}, 8 connections", 8, lambda _: export(os.urandom(16)), lambda body: not body, 15,
        limit=lambda database, seconds: raw_inserts.rate(database, f"tr-{KNOWN[0].hex()}", 8, seconds), share=0.6,
    ),
    Row(
        f"{INGESTION}, 64 connections", 64, lambda number: export(os.urandom(16), NEW + number % EXPERIMENTS),
        lambda body: not body, 1,
    ),
    Task("a function with nine children, wall time", _traced_function, 6, limit=_without_server),
    Row("traces/start v3", 1, _start, lambda body: "trace_info" in json.loads(body)["trace"], 12),
    Row(
        "traces/get, 10 spans", 1, lambda _: _v3("GET", f"traces/get?trace_id=tr-{KNOWN[0].hex()}"), _got, 8,
        latency=True,
    ),
    Row("traces/batchGet of 10", 1, lambda _: _v3("GET", f"traces/batchGet?{_IDS}"), _got, 8, latency=True),
    Row("assessments create", 1, _assess, lambda body: "assessment" in json.loads(body), 8),
    Row("traces/search, newest 100", 1, lambda _: _search(""), _found, 10, latency=True),
    Row(
        "traces/search, tag and status", 1, lambda _: _search("tags.team = 'team 3' AND trace.status = 'ERROR'"),
        _found, 10, latency=True,
    ),
    Row("traces/search, feedback", 1, lambda _: _search("feedback.good = 'true'"), _found, 10, latency=True),
    Row(
        "traces/search, a span's attribute", 1, lambda _: _search("span.attributes.kind LIKE '%kind 3%'"), _found, 3,
        latency=True,
    ),
)  # fmt: skip


def fill(traces: int) -> list[str]:
    """The statements that make so many traces."""
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {})"
    new_id = "'tr-0000000000000000000000' || (1000000000 + n)"
    made = f"{numbers.format(traces)}, made (id, n) AS (SELECT {new_id}, n FROM numbers)"
    when = "(1700000000000 + n * 1000)"
    return [
        f"""INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time,
          last_update_time, workspace)
        {numbers.format(TRACED)} SELECT n, 'experiment ' || n, 's3://bucket/' || n, 'active', 0, 0, 'default'
        FROM numbers""",
        f"""INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status,
          request_preview, response_preview, trace_name, db_payload_generation)
        {made} SELECT id, {FULL}, {when}, 1500, CASE WHEN n % 4 = 0 THEN 'ERROR' ELSE 'OK' END, 'a question',
          'an answer', 'answer', 1 FROM made""",
        f"""INSERT INTO trace_tags (request_id, key, value)
        {made}, tags (key) AS (SELECT 'team' UNION ALL SELECT 'stage' UNION ALL SELECT 'note')
        SELECT id, key, key || ' ' || (n / 4 % 5) FROM made CROSS JOIN tags""",
        f"""INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value, created_timestamp,
          last_updated_timestamp, source_type, source_id, valid, experiment_id, trace_timestamp_ms, is_numeric_value)
        {made}, given (name, kind) AS (SELECT 'good', 'feedback' UNION ALL SELECT 'answer', 'expectation')
        SELECT 'a-' || name || n, id, name, kind,
          CASE WHEN kind = 'feedback' THEN CASE WHEN n % 5 = 0 THEN 'true' ELSE 'false' END ELSE '"an answer"' END,
          0, 0, 'HUMAN', 'me', n > 0, {FULL}, {when}, n < 0 FROM made CROSS JOIN given""",
        f"""INSERT INTO spans (trace_id, experiment_id, span_id, parent_span_id, name, type, status,
          start_time_unix_nano, end_time_unix_nano, content)
        {made}, steps (step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < {SPANS})
        SELECT id, {FULL}, '000000000000000' || (step - 1), CASE WHEN step > 1 THEN '0000000000000000' END,
          'step ' || step, 'CHAIN', 'OK', {when} * 1000000, {when} * 1000000 + step,
          '{{"name": "step", "attributes": {{"kind": "\\"kind ' || (n % 10) || '\\"", "text": "\\"{"x" * 300}\\""}}}}'
        FROM made CROSS JOIN steps""",
    ]


def prepare(subject: Subject) -> None:
    """Send the traces that are read."""
    subject.send([export(each) for each in KNOWN])


def check(subject: Subject) -> None:
    """Every acknowledged span is there. Raises RuntimeError."""
    if subject.database.kind != "postgresql":
        return
    sent = sum(number for title, number in subject.answered.items() if title.startswith(INGESTION))
    theirs = f"experiment_id >= {NEW} AND experiment_id < {TRACED} AND trace_id NOT LIKE '{raw_inserts.PREFIX}%'"
    found = run(fetch(subject.database.uri, f"SELECT count(*) FROM spans WHERE {theirs}"))[0][0]
    if found < sent * SPANS:
        raise RuntimeError(f"{subject.name} has lost spans: {sent * SPANS} were acknowledged, {found} are there")


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 where Headrace is not as fast as it must be."""
    parser = argparse.ArgumentParser(prog="bench.traces", description=__doc__)
    for option in ("quick", "once", *KINDS):
        parser.add_argument(f"--{option}", action="store_true")
    parser.add_argument("--only", metavar="PATTERN", default="")
    options = parser.parse_args(arguments)
    kinds = [kind for kind in KINDS if getattr(options, kind)]
    rows = [row for row in ROWS if re.search(options.only, row.title)]
    if options.quick:
        return compare(Table(rows, fill(QUICK_TRACES), prepare, check), kinds or KINDS[:1], rounds=1, seconds=1.5)
    rounds = 1 if options.once else ROUNDS
    return compare(Table(rows, fill(TRACES), prepare, check), kinds or KINDS, rounds, SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
