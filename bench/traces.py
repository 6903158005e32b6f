"""What ingestion of traces costs: `python -m bench.traces` measures POST /v1/traces of Headrace beside stock's.

A request is a trace of 10 spans with 4 attributes of 300 bytes each. Both run on PostgreSQL, turn by turn; printed are
the p50 of one connection, and the spans a second of one and of eight.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench import api, load
from bench.databases import Database, Databases, fetch, run
from bench.machine import facts
from bench.process import ServerProcess, free_port

BIN = Path(sys.executable).parent
SPANS, ATTRIBUTES, LENGTH = 10, 4, 300
ROUNDS = 3
SECONDS = 3.0
START = 1_700_000_000_000_000_000
TRACE_ID = b"\xff" * 16
SUBJECTS = {
    "headrace": ("headrace", "serve", "--stock", "lazy"),
    "stock, 1 worker": ("mlflow", "server", "--workers", "1"),
    "stock, 4 workers": ("mlflow", "server", "--workers", "4"),
}


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


class Subject:
    """A running server."""

    def __init__(self, name: str, database: Database, folder: Path) -> None:
        self.name, self.database = name, database
        port = free_port()
        program, *options = SUBJECTS[name]
        uri = database.uri if program == "headrace" else database.sqlalchemy_uri
        command = [str(BIN / program), *options, "--port", str(port), "--backend-store-uri", uri]
        self.server = ServerProcess(command, port, folder, {"MLFLOW_MODEL_CATALOG_URI": ""})
        self.server.wait_ready()
        self.acknowledged = 0
        made = load.run(port, [iter([(0, api.post("experiments/create", {"name": "traces"}))])], seconds=60).answers
        self._request = HEAD.format(json.loads(made[0][1])["experiment_id"], len(BODY)).encode() + BODY

    def measure(self, connections: int) -> tuple[float, float]:
        """Spans a second, and the p50 in seconds."""
        outcome = load.run(self.server.port, [self._stream() for _ in range(connections)], SECONDS, warm_up=1)
        if outcome.failures:
            raise RuntimeError(f"{len(outcome.failures)} failed: {outcome.failures[0]}")
        self.acknowledged += len(outcome.answers)
        return outcome.rate * SPANS, statistics.median(outcome.latencies)

    def _stream(self) -> Iterator[tuple[int, bytes]]:
        for number in itertools.count():
            yield number, self._request.replace(TRACE_ID, os.urandom(16))

    def spans(self) -> int:
        return int(run(fetch(self.database.uri, "SELECT count(*) FROM spans"))[0][0])


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        databases = Databases(folder / "databases", str(BIN / "mlflow"))
        subjects: list[Subject] = []
        try:
            for number, each in enumerate(SUBJECTS):
                database = databases.create("postgresql", f"peer{number}", migrated=True)
                subjects.append(Subject(each, database, folder / f"server{number}"))
            found: dict[tuple[str, int], list[tuple[float, float]]] = {}
            for _, connections, subject in itertools.product(range(ROUNDS), (1, 8), subjects):
                found.setdefault((subject.name, connections), []).append(subject.measure(connections))
            print(facts(folder))
            for (peer, connections), rounds in found.items():
                rate = statistics.median(rate for rate, _ in rounds)
                wait = statistics.median(wait for _, wait in rounds)
                print(f"{peer:17} {connections} connections {rate:7.0f} spans/s  p50 {wait * 1000:6.2f} ms")
            for subject in subjects:
                if subject.spans() < subject.acknowledged * SPANS:
                    raise RuntimeError(f"{subject.name} has lost spans")
        finally:
            for subject in subjects:
                subject.server.stop()
            databases.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
