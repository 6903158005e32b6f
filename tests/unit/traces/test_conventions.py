"""Spans as the SDKs and conventions make them: which are native, and that their rows are stock's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.traces import Pair
from tests.unit.traces.spans import SPAN_IDS, body, request, span

OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "input.value": '{"messages": [{"role": "user", "content": "What is a headrace?"}], "model": "gpt-4o-mini"}',
    "input.mime_type": "application/json",
    "output.value": '{"choices": [{"message": {"role": "assistant", "content": "A channel."}}]}',
    "output.mime_type": "application/json",
    "llm.model_name": "gpt-4o-mini-2024-07-18",
    "llm.provider": "openai",
    "llm.invocation_parameters": '{"temperature": 0}',
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "What is a headrace?",
    "llm.token_count.prompt": 12,
    "llm.token_count.completion": 34,
    "llm.token_count.total": 46,
    "session.id": "a session",
    "user.id": "a user",
}
GENAI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-3-haiku-20240307",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.usage.cache_read.input_tokens": 60,
    "gen_ai.conversation.id": "conversation 1",
    "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "Salut, ça va?"}]}]',
    "gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Oui"}]}]',
    "gen_ai.tool.definitions": '[{"type": "function", "name": "weather"}]',
}
OLDER_GENAI: tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]] = (
    {"gen_ai.system": "openai", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"},
    [
        ("gen_ai.system.message", {"content": "Be brief."}),
        ("gen_ai.user.message", {"content": "Hello"}),
        ("gen_ai.choice", {"content": '"Hi"', "index": 0, "finish_reason": "stop"}),
    ],
)
NATIVE: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    "OpenInference": (OPENINFERENCE, []),
    "OpenInference, an embedding": (
        {"openinference.span.kind": "EMBEDDING", "embedding.model_name": "text-embedding-3-small"},
        [],
    ),
    "GenAI": (GENAI, []),
    "GenAI, a tool": (
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "weather",
            "gen_ai.tool.call.arguments": '{"city": "Bern"}',
            "gen_ai.tool.call.result": "sunny",
        },
        [],
    ),
    "GenAI, messages as events": OLDER_GENAI,
    "Traceloop": (
        {
            "traceloop.span.kind": "task",
            "gen_ai.system": "OpenAI",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "Hello",
            "gen_ai.completion.0.content": "Hi",
            "gen_ai.usage.prompt_tokens": 3,
            "gen_ai.usage.completion_tokens": 4,
            "llm.usage.total_tokens": 7,
            "gen_ai.response.model": "gpt-4o",
        },
        [],
    ),
    "Google ADK": ({"gcp.vertex.agent.llm_request": '{"model": "gemini-2.0-flash"}', "gen_ai.system": "gcp"}, []),
    "Vercel, a tool": (
        {"ai.operationId": "ai.toolCall", "ai.toolCall.args": '{"a": 1}', "ai.toolCall.result": '"b"'},
        [],
    ),
    "VoltAgent": ({"entity.type": "agent", "voltagent.operation_id": "1", "agent.messages": "[1]", "output": "o"}, []),
    "LiveKit": ({"lk.agent_name": "a", "lk.user_input": "hello", "lk.response.text": "hi"}, []),
    "Laminar": ({"lmnr.span.type": "LLM", "lmnr.span.input": "[1]", "lmnr.span.output": "[2]"}, []),
    "Langfuse": ({"langfuse.observation.type": "generation", "langfuse.observation.input": "hello"}, []),
    "Spring AI": (
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": "5"},
        [
            ("gen_ai.content.prompt", {"gen_ai.prompt": "hello"}),
            ("gen_ai.content.completion", {"gen_ai.completion": "hi"}),
        ],
    ),
    "OpenTelemetry's own": (
        {"http.request.method": "GET", "http.response.status_code": 500, "server.port": 443, "flags": [True, False]},
        [("exception", {"exception.type": "ValueError", "exception.message": "no", "exception.stacktrace": "a\nb"})],
    ),
}
DECLINED: dict[str, dict[str, Any]] = {
    "Gemini CLI": {"gen_ai.agent.name": "gemini-cli", "gen_ai.operation.name": "llm_call"},
    "Claude Code": {"span.type": "claude_code.llm_request", "input_tokens": 5, "cache_read_tokens": 7},
    "Claude Code, shorter": {"span.type": "interaction", "user_prompt": "hello"},
    "Vercel": {"ai.operationId": "ai.generateText.doGenerate", "ai.prompt.messages": "[]", "ai.response.text": "x"},
}


@pytest.mark.parametrize("convention", NATIVE)
def test_native(pair: Pair, convention: str) -> None:
    pair.clear()
    attributes, events = NATIVE[convention]
    assert pair.post(body(span(attributes, events=events), resource={"service.name": "shop"}))
    pair.same()


@pytest.mark.parametrize("convention", DECLINED)
def test_declined(pair: Pair, convention: str) -> None:
    pair.clear()
    assert not pair.post(body(span(DECLINED[convention]), resource={"service.name": "gemini-cli"}))
    pair.same()


def test_spans_of_mlflows_sdk(pair: Pair) -> None:
    """As its exporter writes them: a tree of three spans, one with an exception."""
    from mlflow.entities.span import create_mlflow_span
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import set_span_in_context

    tracer = TracerProvider().get_tracer("mlflow")
    sent = request()
    root = tracer.start_span("predict")
    trace_id = f"tr-{root.get_span_context().trace_id:032x}"
    spans: list[Any] = [create_mlflow_span(root, trace_id, "AGENT")]
    for kind in ("CHAT_MODEL", "TOOL"):
        child = tracer.start_span(kind.lower(), context=set_span_in_context(root))
        spans.append(create_mlflow_span(child, trace_id, kind))
    messages = {"messages": [{"role": "user", "content": "Wie heißt der Kanal?"}], "model": "gpt-4o", "n": 1.5}
    for each in spans:
        each.set_inputs(messages)
        each.set_outputs({"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": []}}]})
    spans[1].set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11})
    spans[1].set_attribute("mlflow.llm.model", "gpt-4o")
    spans[2].record_exception(ValueError("no such city"))
    for each in reversed(spans):
        each.end()
    for each in spans:
        sent.resource_spans[0].scope_spans[0].spans.append(each.to_otel_proto())
    pair.clear()
    assert pair.post(sent.SerializeToString())
    pair.same()
    found = pair.databases[1].query("SELECT input_tokens, total_cost, request_preview, status FROM trace_info")[0]
    assert found["input_tokens"] == 9
    assert found["total_cost"] > 0
    assert found["request_preview"] == "Wie heißt der Kanal?"


def test_prices_without_a_provider(pair: Pair) -> None:
    """Every list is looked through, in the order of its name."""
    pair.clear()
    usage = json.dumps({"input_tokens": 1000, "output_tokens": 7, "cache_creation_input_tokens": 300})
    models = ["claude-3-haiku-20240307", "x/gpt-4o-mini", "no such model"]
    spans = [
        span({"mlflow.chat.tokenUsage": usage, "mlflow.llm.model": model}, span_id=SPAN_IDS[number + 1])
        for number, model in enumerate(models)
    ]
    assert pair.post(body(*spans))
    pair.same()
