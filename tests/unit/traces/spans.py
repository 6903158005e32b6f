"""OTLP requests for the tests: spans made of plain Python values, and strategies for whole groups of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MILLION = 1_000_000
START = 1_700_000_000_000 * MILLION

TRACE_IDS = (b"\0" * 16, b"\x01" * 16, bytes(range(16)))
SPAN_IDS = (b"\0" * 8, *(bytes([number]) * 8 for number in range(1, 7)))


def put(any_value: Any, value: Any) -> None:
    """A Python value into an AnyValue; None leaves it unset."""
    if isinstance(value, bool):
        any_value.bool_value = value
    elif isinstance(value, str):
        any_value.string_value = value
    elif isinstance(value, int):
        any_value.int_value = value
    elif isinstance(value, float):
        any_value.double_value = value
    elif isinstance(value, bytes):
        any_value.bytes_value = value
    elif isinstance(value, list):
        any_value.array_value.SetInParent()
        for each in value:
            put(any_value.array_value.values.add(), each)
    elif isinstance(value, dict):
        any_value.kvlist_value.SetInParent()
        put_all(any_value.kvlist_value.values, value)


def put_all(attributes: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        attribute = attributes.add()
        attribute.key = key
        put(attribute.value, value)


def span(
    attributes: dict[str, Any] | None = None,
    *,
    trace_id: bytes = TRACE_IDS[1],
    span_id: bytes = SPAN_IDS[1],
    parent_id: bytes = b"",
    name: str = "answer",
    start: int = START,
    end: int = START + 5 * MILLION,
    status: tuple[int, str] = (0, ""),
    events: Sequence[tuple[str, dict[str, Any]]] = (),
    links: Sequence[tuple[bytes, bytes, dict[str, Any]]] = (),
) -> dict[str, Any]:
    """A span in words; `request` writes it."""
    return {**locals(), "attributes": attributes or {}}


def request(*spans: dict[str, Any], resource: dict[str, Any] | None = None) -> Any:
    """The message with these spans, all of one resource."""
    message = ExportTraceServiceRequest()
    sent = message.resource_spans.add()
    put_all(sent.resource.attributes, resource or {})
    scope = sent.scope_spans.add()
    for words in spans:
        new = scope.spans.add()
        new.trace_id, new.span_id, new.parent_span_id = words["trace_id"], words["span_id"], words["parent_id"]
        new.name, new.start_time_unix_nano, new.end_time_unix_nano = words["name"], words["start"], words["end"]
        new.status.code, new.status.message = words["status"]
        put_all(new.attributes, words["attributes"])
        for number, (name, attributes) in enumerate(words["events"]):
            event = new.events.add()
            event.name, event.time_unix_nano = name, words["start"] + number
            put_all(event.attributes, attributes)
        for trace_id, span_id, attributes in words["links"]:
            link = new.links.add()
            link.trace_id, link.span_id = trace_id, span_id
            put_all(link.attributes, attributes)
    return message


def body(*spans: dict[str, Any], resource: dict[str, Any] | None = None) -> bytes:
    return bytes(request(*spans, resource=resource).SerializeToString())


TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *(
                "",
                " ",
                "null",
                "1",
                "-1.5",
                "true",
                '"quoted"',
                '""',
                "{}",
                "[ ]",
                '{"a": 1}',
                "[1, 2",
                '{"a": NaN}',
                ' {"a":2} ',
            ),
            *(
                '"\\ud800"',
                '{"model": "m", "messages": [{"role": "user", "content": "hi"}]}',
                "\0",
                "a\0b",
                "\U0001f600",
            ),
            *(
                '{"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]}',
                "x" * 1100,
                "CHAT_MODEL",
            ),
            *(
                '{"choices": [{"message": {"role": "assistant", "content": "out"}}]}',
                '{"model": 5}',
                '{"request": {"input": "x"}}',
            ),
            '{"output": [{"role": "assistant", "content": [{"type": "output_text", "text": "o"}]}]}',
            '{"model": "gpt-4o"}',
        ]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        TEXTS,
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.binary(max_size=6),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=4,
)
COUNTS = st.one_of(st.integers(0, 5000), st.sampled_from([0, 1, 2**62, 1.5, 2.0, True]))
USAGES = st.dictionaries(
    st.sampled_from(
        [
            *("input_tokens", "output_tokens", "total_tokens"),
            *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation_input_tokens_above_1hr"),
        ]
    ),
    COUNTS,
)
COSTS = st.dictionaries(
    st.sampled_from(["input_cost", "output_cost", "total_cost"]), st.one_of(st.floats(0, 1), st.integers(0, 3))
)
MODELS = st.sampled_from(["gpt-4o", "claude-3-haiku-20240307", "openai/gpt-4o-mini", "nobody's", "gateway:/x", ""])

MLFLOW = st.fixed_dictionaries(
    {},
    optional={
        "mlflow.spanType": st.one_of(st.sampled_from(["LLM", "UNKNOWN", "CHAIN"]), TEXTS),
        "mlflow.spanInputs": VALUES,
        "mlflow.spanOutputs": VALUES,
        "mlflow.spanFunctionName": TEXTS,
        "mlflow.chat.tokenUsage": USAGES,
        "mlflow.llm.cost": COSTS,
        "mlflow.llm.model": MODELS,
        "mlflow.llm.provider": st.sampled_from(["openai", "Anthropic", "none", ""]),
        "mlflow.traceRequestId": TEXTS,
        "session.id": TEXTS,
        "user.id": TEXTS,
        "mlflow.traceTag.mlflow.traceName": TEXTS,
        "mlflow.traceTag.team": VALUES,
        "mlflow.traceTag.bad/../key": TEXTS,
        "own": VALUES,
    },
)
TOKENS = st.one_of(st.integers(0, 100), st.sampled_from(["12", '"7"', "x", 1.5, True, None]))
FOREIGN_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "openinference.span.kind": st.sampled_from(["LLM", "CHAIN", "UNKNOWN", "other", 5]),
    "input.value": VALUES,
    "output.value": VALUES,
    "llm.token_count.prompt": TOKENS,
    "llm.token_count.completion": TOKENS,
    "llm.token_count.total": TOKENS,
    "llm.token_count.prompt_details.cache_read": TOKENS,
    "llm.model_name": MODELS,
    "llm.provider": st.sampled_from(["openai", "anthropic"]),
    "gen_ai.operation.name": st.sampled_from(["chat", "execute_tool", "EMBEDDINGS", "none"]),
    "gen_ai.input.messages": VALUES,
    "gen_ai.output.messages": VALUES,
    "gen_ai.tool.call.arguments": VALUES,
    "gen_ai.tool.definitions": VALUES,
    "gen_ai.usage.input_tokens": TOKENS,
    "gen_ai.usage.output_tokens": TOKENS,
    "gen_ai.usage.cache_read.input_tokens": TOKENS,
    "gen_ai.usage.cache_creation.input_tokens": TOKENS,
    "gen_ai.request.model": MODELS,
    "gen_ai.response.model": VALUES,
    "gen_ai.provider.name": st.sampled_from(["openai", "anthropic", 7]),
    "gen_ai.system": TEXTS,
    "gen_ai.conversation.id": TEXTS,
    "gen_ai.agent.name": st.sampled_from(["gemini-cli", "other"]),
    "traceloop.span.kind": st.sampled_from(["workflow", "tool", "unknown"]),
    "traceloop.entity.input": VALUES,
    "gen_ai.prompt.0.content": TEXTS,
    "gen_ai.completion.0.content": TEXTS,
    "gen_ai.completion.0.tool_calls.1.arguments": TEXTS,
    "gen_ai.usage.prompt_tokens": TOKENS,
    "llm.usage.total_tokens": TOKENS,
    "gcp.vertex.agent.llm_request": VALUES,
    "ai.operationId": st.sampled_from(["ai.generateText", "ai.embed", "ai.generateText.doGenerate", '"ai.toolCall"']),
    "ai.prompt": VALUES,
    "ai.response.text": VALUES,
    "ai.response.model": TEXTS,
    "span.type": st.sampled_from(["llm", "tool", "agent", "claude_code.interaction"]),
    "entity.type": st.sampled_from(["agent", "memory", ""]),
    "voltagent.operation_id": TEXTS,
    "agent.messages": VALUES,
    "input": VALUES,
    "output": VALUES,
    "usage.prompt_tokens": TOKENS,
    "llm.usage.completion_tokens": TOKENS,
    "lk.user_input": VALUES,
    "lk.response.text": VALUES,
    "lk.function_tool.name": TEXTS,
    "lk.retry_count": TOKENS,
    "lmnr.span.type": st.sampled_from(["LLM", "CACHED", "no"]),
    "lmnr.span.input": VALUES,
    "langfuse.observation.type": st.sampled_from(["span", "generation"]),
    "langfuse.observation.output": VALUES,
}


@st.composite
def foreign(draw: st.DrawFn) -> dict[str, Any]:
    """Some attributes of several conventions at once."""
    keys = draw(st.lists(st.sampled_from(sorted(FOREIGN_KEYS)), max_size=6, unique=True))
    return {key: draw(FOREIGN_KEYS[key]) for key in keys}


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("exception", "gen_ai.user.message", "gen_ai.system.message", "gen_ai.choice"),
                *("gen_ai.content.prompt", "gen_ai.content.completion"),
            ]
        ),
        st.fixed_dictionaries(
            {}, optional={"content": VALUES, "role": TEXTS, "gen_ai.prompt": TEXTS, "gen_ai.completion": VALUES}
        ),
    ),
    max_size=2,
)
LINKS = st.lists(
    st.tuples(
        st.sampled_from(TRACE_IDS), st.sampled_from(SPAN_IDS), st.dictionaries(st.text(max_size=3), VALUES, max_size=2)
    ),
    max_size=1,
)
TIMES = st.integers(0, 20).map(lambda step: START + step * MILLION // 2)


@st.composite
def spans(draw: st.DrawFn, attributes: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """Spans of three traces that know one another, or don't: orphans, circles, several roots, clocks that disagree."""
    return span(
        draw(attributes),
        trace_id=draw(st.sampled_from(TRACE_IDS)),
        span_id=draw(st.sampled_from(SPAN_IDS)),
        parent_id=draw(st.sampled_from((b"", *SPAN_IDS))),
        name=draw(st.sampled_from(["answer", "", "naïve \U0001f600"])),
        start=draw(TIMES),
        end=draw(st.one_of(st.just(0), TIMES)),
        status=draw(st.sampled_from([(0, ""), (1, "fine"), (2, "it\nbroke"), (2, ""), (7, "?")])),
        events=draw(EVENTS),
        links=draw(LINKS),
    )


RESOURCES = st.dictionaries(
    st.sampled_from(["service.name", "telemetry.sdk.name", "mlflow.x", "host.name", "a b", "bad\n", "../up", ""]),
    st.one_of(VALUES, st.just("claude-code")),
    max_size=3,
)
