"""Traces that are hard to read and search, written by stock's own store in this process."""

from __future__ import annotations

import json
import random
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback, TraceInfo
    from mlflow.entities.assessment import IssueReference
    from mlflow.entities.model_registry import PromptVersion
    from mlflow.entities.span import Span
    from mlflow.entities.trace_location import TraceLocation
    from mlflow.entities.trace_state import TraceState
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.differential.search_data import TEXTS
from tests.unit.traces.spans import MILLION, START, request, span

TRACES = 60
NAMES = ("answer", "Answer", "it's", "日本", "retrieve")
SESSIONS = ("s1", "s2", "S1")
TAG_KEYS = ("t", "a.b", "with space")
METADATA_KEYS = ("m", "mlflow.source.name")
FEEDBACKS: tuple[Any, ...] = (True, False, "yes", "no", 0.5, 5, -1, "5", None, ["a", 1], {"a": 1.5}, "it's")
START_MS = START // MILLION


def fill(store: SqlAlchemyStore) -> tuple[list[str], list[str]]:
    """Two experiments with traces; ids of the experiments and of the traces."""
    chance = random.Random(3)
    experiments = ["0", store.create_experiment("traces")]
    runs = [store.create_run("0", "me", 1, [], "run").info.run_id for _ in range(2)]
    ids = [_trace(store, chance, experiments[number % 2], number, runs) for number in range(TRACES)]
    ids += [_odd(store, number) for number in range(4)]
    return experiments, ids


def _trace(store: SqlAlchemyStore, chance: random.Random, experiment: str, number: int, runs: list[str]) -> str:
    otel_id = b"read" + number.to_bytes(12, "big")
    trace_id = f"tr-{otel_id.hex()}"
    start = START + number // 3 * MILLION
    if chance.random() < 0.9:
        spans = _spans(chance, otel_id, start)
        store.log_spans(experiment, [Span.from_otel_proto(each) for each in spans])
    if chance.random() < 0.8 or not _is_there(store, trace_id):
        store.start_trace(_info(chance, trace_id, experiment, START_MS + number // 3, runs))
    for key in TAG_KEYS:
        if chance.random() < 0.5:
            store.set_trace_tag(trace_id, key, chance.choice(TEXTS))
    for _ in range(chance.randrange(4)):
        store.create_assessment(_assessment(chance, trace_id, START_MS + chance.randrange(9)))
    if chance.random() < 0.3:
        store.link_traces_to_run([trace_id], chance.choice(runs))
    if chance.random() < 0.3:
        store.link_prompts_to_trace(trace_id, [PromptVersion("p", chance.choice([1, 2]), "")])  # type: ignore[abstract]
    return trace_id


def _is_there(store: SqlAlchemyStore, trace_id: str) -> bool:
    return bool(store.batch_get_trace_infos([trace_id]))


def _spans(chance: random.Random, trace_id: bytes, start: int) -> list[Any]:
    values = ["text", 'in "quotes"', 5, 1.5, True, None, ["a", 1, {"b": None}], {"k": "v", "n": 2**60}, "", '{"a": 1}']
    words = [
        span(
            {
                "mlflow.spanType": chance.choice(["LLM", "CHAIN", "UNKNOWN"]),
                "mlflow.spanInputs": chance.choice(values), "foo": chance.choice(values),
                "foo.bar": chance.choice(["needle", "hay", 3]),
                **({"session.id": chance.choice(SESSIONS)} if chance.random() < 0.5 else {}),
                **({"openinference.span.kind": "TOOL"} if chance.random() < 0.3 else {}),
                **({"mlflow.chat.tokenUsage": json.dumps({"input_tokens": 3, "output_tokens": chance.randrange(3),
                                                          "total_tokens": 5})} if chance.random() < 0.5 else {}),
                **({"mlflow.llm.cost": json.dumps({"input_cost": 0.1, "output_cost": 0.25, "total_cost": 0.35})}
                   if chance.random() < 0.3 else {}),
            },
            trace_id=trace_id, span_id=bytes([number + 1]) * 8, parent_id=b"\1" * 8 if number else b"",
            name=chance.choice(NAMES), start=start - number * 1000,
            end=start + chance.randrange(9) * MILLION, status=chance.choice([(0, ""), (1, ""), (2, "broke"), (2, "")]),
            events=[("e", {"a": chance.choice(values), "n": 3})] if chance.random() < 0.3 else [],
            links=[(b"\2" * 16, b"\3" * 8, {"why": "x"})] if chance.random() < 0.3 else [],
        )
        for number in range(chance.randrange(1, 5))
    ]  # fmt: skip
    return list(request(*words).resource_spans[0].scope_spans[0].spans)


def _info(chance: random.Random, trace_id: str, experiment: str, time: int, runs: list[str]) -> TraceInfo:
    metadata = {key: chance.choice(TEXTS) for key in METADATA_KEYS if chance.random() < 0.5}
    if chance.random() < 0.4:
        metadata["mlflow.sourceRun"] = chance.choice(runs)
    if chance.random() < 0.4:
        metadata["mlflow.trace.session"] = chance.choice(SESSIONS)
    if chance.random() < 0.3:
        metadata["mlflow.trace.tokenUsage"] = json.dumps({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
    if chance.random() < 0.1:
        metadata["long"] = "x" * 600
    tags = {key: chance.choice(TEXTS) for key in TAG_KEYS if chance.random() < 0.3}
    if "long" in metadata:
        tags["long"] = "y" * 5_000
    if chance.random() < 0.7:
        tags["mlflow.traceName"] = chance.choice(NAMES)
    return TraceInfo(
        trace_id,
        TraceLocation.from_experiment_id(experiment),
        time,
        chance.choice([TraceState.OK, TraceState.ERROR, TraceState.IN_PROGRESS, TraceState.STATE_UNSPECIFIED]),
        request_preview=chance.choice([None, "in", "日本"]),
        response_preview=chance.choice([None, "out", ""]),
        client_request_id=chance.choice([None, "c1", "C2", ""]),
        execution_duration=chance.choice([None, 0, 5, 1500, 61_000]),
        trace_metadata=metadata,
        tags=tags,
    )


def _assessment(chance: random.Random, trace_id: str, time: int) -> Any:
    source = AssessmentSource(chance.choice(["HUMAN", "LLM_JUDGE", "CODE"]), chance.choice(["me", "judge"]))
    common: dict[str, Any] = {
        "trace_id": trace_id, "source": source, "create_time_ms": time, "last_update_time_ms": time + 1,
        "metadata": chance.choice([None, {"mlflow.trace.session": "s1"}, {"k": "v", "日": "x"}]),
        "span_id": chance.choice([None, "01" * 8]),
    }  # fmt: skip
    kind = chance.randrange(8)
    if kind == 0:
        return IssueReference("iss-1", "an issue", rationale="because", **common)
    if kind in (1, 2):
        value = chance.choice([value for value in FEEDBACKS if value is not None])
        return Expectation("expected", value, **common)
    error = AssessmentError("E", "it broke", "x" * 11_000) if chance.random() < 0.2 else None
    return Feedback(
        chance.choice(["good", "score", "a b"]), chance.choice(FEEDBACKS), error, rationale=chance.choice([None, "r"]),
        valid=chance.random() < 0.8, **common,
    )  # fmt: skip


def _odd(store: SqlAlchemyStore, number: int) -> str:
    """Traces without spans: of older clients, and unfinished."""
    trace_id = f"tr-odd-{number}"
    size = {"mlflow.trace.sizeStats": '{"num_spans": 3, "total_size_bytes": 5}'} if number == 1 else {}
    info = TraceInfo(
        trace_id, TraceLocation.from_experiment_id("0"), START_MS - number, TraceState.OK, trace_metadata=size
    )
    if number == 1:
        spans = request(span(trace_id=b"odd1" * 4)).resource_spans[0].scope_spans[0].spans
        info.trace_id = trace_id = f"tr-{(b'odd1' * 4).hex()}"
        store.log_spans("0", [Span.from_otel_proto(each) for each in spans])
    if number == 2:
        info.tags["mlflow.trace.spansLocation"] = "TRACKING_STORE"
    store.start_trace(info)
    return trace_id
