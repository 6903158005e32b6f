"""Traces by unchanged clients: MLflow's SDK and OpenTelemetry's, with its exporter; and who may write to which."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.server.conftest import Serving
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import BACKENDS, Databases
from tests.support.fork_server import client_environment
from tests.support.servers import Server, start_headrace
from tests.unit.traces.spans import SPAN_IDS, body, span

MLFLOW_SDK = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("traced")

@mlflow.trace(span_type="TOOL")
def look_up(word):
    return {"word": word}

@mlflow.trace(span_type="AGENT", attributes={"model": "none"})
def answer(question):
    mlflow.update_current_trace(tags={"team": "blue"}, metadata={"mlflow.trace.session": "s-1"})
    return [look_up(f"{question} {number}") for number in range(9)]

answer("why?")
trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
root, *children = trace.data.spans
print(json.dumps({
    "state": trace.info.state.value, "team": trace.info.tags["team"],
    "session": trace.info.trace_metadata["mlflow.trace.session"],
    "root": [root.name, root.span_type, root.inputs, len(root.outputs)],
    "children": sorted([s.name, s.span_type, s.inputs["word"], s.parent_id == root.span_id] for s in children),
    "location": trace.info.tags["mlflow.trace.spansLocation"],
}))
"""
OTEL_SDK = """
import json, sys, mlflow
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
url = sys.argv[1]
provider = TracerProvider(resource=Resource({"service.name": "shop"}))
exporter = OTLPSpanExporter(url + "/v1/traces", headers={"x-mlflow-experiment-id": "0"}, compression=Compression.Gzip)
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("a third party")
with tracer.start_as_current_span("root", attributes={"gen_ai.operation.name": "chat"}) as root:
    for number in range(9):
        with tracer.start_as_current_span("child", attributes={"number": number, "words": ["a", "b"]}) as child:
            child.add_event("seen", {"at": number})
assert provider.force_flush()
mlflow.set_tracking_uri(url)
trace = mlflow.get_trace(f"tr-{root.get_span_context().trace_id:032x}")
first, *children = trace.data.spans
print(json.dumps({
    "state": trace.info.state.value, "root": [first.name, first.span_type],
    "numbers": sorted(s.attributes["number"] for s in children), "words": children[0].attributes["words"],
    "events": {e.name for s in children for e in s.events} == {"seen"},
    "parents": {s.parent_id for s in children} == {first.span_id},
}))
"""


@pytest.fixture(scope="module", params=BACKENDS)
def server(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = start_headrace(databases.migrated(request.param), tmp_path_factory.mktemp("traces"), until="/health")
    yield server
    server.stop()


def run(script: str, server: Server) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, server.url],
        capture_output=True,
        text=True,
        timeout=120,
        env=client_environment() | {"MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false", "GIT_PYTHON_REFRESH": "quiet"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_mlflows_sdk(server: Server) -> None:
    assert run(MLFLOW_SDK, server) == {
        "state": "OK",
        "team": "blue",
        "session": "s-1",
        "root": ["answer", "AGENT", {"question": "why?"}, 9],
        "children": [["look_up", "TOOL", f"why? {number}", True] for number in range(9)],
        "location": "TRACKING_STORE",
    }


def test_opentelemetrys_sdk_and_exporter(server: Server) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    assert run(OTEL_SDK, server) == {
        "state": "OK",
        "root": ["root", "CHAT_MODEL"],
        "numbers": list(range(9)),
        "words": ["a", "b"],
        "events": True,
        "parents": True,
    }


def test_large_requests_take_turns(server: Server) -> None:
    """Packed they are small, and unpacked each takes five times its size: all at once they took 374 MB, in turns 94."""
    [worker] = Serving(server.url, server.process).workers

    def sent(number: int) -> int:
        spans = [
            span({"text": "x" * 1_000_000}, trace_id=number.to_bytes(16, "big"), span_id=each.to_bytes(8, "big"))
            for each in range(1, 21)
        ]
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0", "Content-Encoding": "gzip"}
        packed = gzip.compress(body(*spans), compresslevel=1)
        return requests.post(f"{server.url}/v1/traces", data=packed, headers=headers, timeout=120).status_code

    before = worker.memory_info().rss
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(sent, range(2**64, 2**64 + 10))) == [200] * 10
    assert most_resident(worker.pid) - before < 200_000_000


def most_resident(pid: int) -> int:
    """In bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


API = "/api/2.0/mlflow/"


@pytest.fixture(scope="module", params=[("postgresql", True), ("sqlite", False)], ids=["grants only", "roles, too"])
def guarded(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """The viewer `writer` may edit the experiment `open`, and not `closed`."""
    backend, grants = request.param
    guarded = start_guarded(
        databases.migrated(backend), tmp_path_factory.mktemp("granted"), *(["--grants"] if grants else []),
        users={"writer": "viewer"},
    )  # fmt: skip
    for name in ("open", "closed"):
        guarded.request("POST", API + "experiments/create", ADMIN_TOKEN, json={"name": name})
    guarded.headrace("user", "grant", "writer", "edit", "--experiment", "open")
    yield guarded
    guarded.server.stop()


def test_what_is_granted(guarded: Guarded) -> None:
    token = guarded.headrace("user", "token", "writer")

    def made(method: str, path: str, **more: Any) -> Any:
        return guarded.request(method, API + path, ADMIN_TOKEN, **more).json()

    ids, runs = {}, {}
    for name in ("open", "closed"):
        found = made("GET", "experiments/get-by-name", params={"experiment_name": name})
        ids[name] = found["experiment"]["experiment_id"]
        run = made("POST", "runs/create", json={"experiment_id": ids[name], "start_time": 1})
        runs[name] = run["run"]["info"]["run_id"]

    def post(who: str, name: str, trace: int, run: str = "", at: int = 1, **attributes: Any) -> int:
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": ids[name]}
        if run:
            headers["x-mlflow-run-id"] = runs.get(run, run)
        content = body(span(attributes, trace_id=bytes([trace]) * 16, span_id=SPAN_IDS[at]))
        return guarded.status("POST", "/v1/traces", who, data=content, headers=headers)

    assert post(token, "open", 1) == 200
    assert post(token, "open", 1, run="open") == 200
    assert post(token, "closed", 2) == 403
    assert post(token, "open", 2, run="closed") == 403
    assert post(ADMIN_TOKEN, "closed", 3) == 200
    assert post(token, "open", 3, at=2) == 403
    declined: dict[str, Any] = {"mlflow.llm.cost": "5"}
    assert post(token, "open", 3, at=2, **declined) == 403
    assert post(token, "open", 4, **declined) == 422  # stock's answer
    assert post(ADMIN_TOKEN, "open", 3, at=3) == 200
    spans = guarded.database.query("SELECT trace_id, span_id, experiment_id FROM spans ORDER BY trace_id, span_id")
    found = [(row["trace_id"][3:5], row["span_id"][:2], str(row["experiment_id"])) for row in spans]
    assert found == [
        ("01", "01", ids["open"]),
        ("03", "01", ids["closed"]),
        ("03", "03", ids["closed"]),
    ]
    nobody = guarded.request("POST", "/v1/traces", token, data=body(span()))
    assert nobody.status_code in (403, 422)
