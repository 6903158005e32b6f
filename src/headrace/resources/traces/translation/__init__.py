"""Spans of other conventions get MLflow's attributes: type, inputs, outputs, token usage, model, tools.

OpenInference, the GenAI semantic conventions (attributes and events), Traceloop, Google's ADK, VoltAgent, LiveKit,
Laminar, Langfuse, Spring AI and the simple half of Vercel's AI SDK are tables of keys, tried one after another in
MLflow's order (conventions.py). Three write new JSON or look into their own event: `declines` knows their spans, and
stock translates them. Source: mlflow/tracing/otel/translation, translate_span_when_storing.

All values are JSON texts here, as MLflow stores them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.errors import Declined
from headrace.resources.traces.json_text import dumped, loaded
from headrace.resources.traces.otlp import Event
from headrace.resources.traces.token_sums import CHAT_USAGE
from headrace.resources.traces.translation import conventions

SPAN_TYPE = "mlflow.spanType"
INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
CHAT_TOOLS = "mlflow.chat.tools"
MESSAGE_FORMAT = "mlflow.message.format"
MODEL = "mlflow.llm.model"
MODEL_PROVIDER = "mlflow.llm.provider"
UNKNOWN = "UNKNOWN"

_SPACE = " \t\n\r"


def declines(attributes: Mapping[str, str]) -> str | None:
    """The convention whose spans are left to stock: Claude Code, Gemini CLI, Vercel's AI SDK with a conversation."""
    if "gen_ai.agent.name" in attributes and loaded(attributes["gen_ai.agent.name"]) == "gemini-cli":
        return "Gemini CLI"
    if "span.type" in attributes:
        kind = loaded(attributes["span.type"])
        if isinstance(kind, str) and kind.removeprefix("claude_code.") in conventions.CLAUDE_CODE_SPANS:
            return "Claude Code"
    if "ai.operationId" in attributes and _unwrapped(attributes["ai.operationId"]) in conventions.VERCEL_CONVERSATIONS:
        return "Vercel AI SDK"
    return None


def is_foreign(attributes: Mapping[str, Any]) -> bool:
    """Whether a key may be of another convention; most spans are MLflow's own, and this is all that they cost."""
    if not conventions.KEYS.isdisjoint(attributes):
        return True
    keys = "\n".join(attributes)
    return "lk." in keys or "gen_ai." in keys


def translate(attributes: dict[str, str], events: Sequence[Event]) -> None:
    """Add what MLflow's own attributes lack. Raises Declined where stock must look."""
    foreign = is_foreign(attributes)
    if foreign:
        if convention := declines(attributes):
            raise Declined(f"a span of {convention}")
        _set_type(attributes)
    if INPUTS not in attributes and (foreign or events):
        _put(attributes, INPUTS, _first(attributes, conventions.INPUTS) if foreign else None, events, _input_of)
    if OUTPUTS not in attributes and (foreign or events):
        _put(attributes, OUTPUTS, _first(attributes, conventions.OUTPUTS) if foreign else None, events, _output_of)
    if foreign:
        if CHAT_USAGE not in attributes and (usage := _token_usage(attributes)):
            attributes[CHAT_USAGE] = dumped(usage)
        if MESSAGE_FORMAT not in attributes and (message_format := _message_format(attributes)):
            attributes[MESSAGE_FORMAT] = dumped(message_format)
        if CHAT_TOOLS not in attributes and (tools := _truthy(attributes, conventions.TOOLS)):
            attributes[CHAT_TOOLS] = tools
    if MODEL not in attributes and (model := _model(attributes, foreign)):
        attributes[MODEL] = dumped(model)
    if foreign and MODEL_PROVIDER not in attributes:
        for key in conventions.PROVIDERS:
            if provider := _truthy(attributes, key):
                attributes[MODEL_PROVIDER] = dumped(loaded(provider))
                break


def loaded_type(attributes: Mapping[str, Any]) -> str | None:
    """The JSON of the type of a span that was stored without one; None where it has one, or no convention tells."""
    if SPAN_TYPE in attributes and attributes[SPAN_TYPE] not in ("", "null", f'"{UNKNOWN}"', UNKNOWN):
        return None
    kind = _type(attributes) if is_foreign(attributes) else None
    return dumped(kind) if kind else None


def _set_type(attributes: dict[str, str]) -> None:
    if SPAN_TYPE in attributes and loaded(attributes[SPAN_TYPE]) not in (None, UNKNOWN):
        return
    if kind := _type(attributes):
        attributes[SPAN_TYPE] = dumped(kind)


def _type(attributes: Mapping[str, str]) -> str | None:
    for key, types in conventions.TYPES:
        if key in attributes:
            kind = loaded(attributes[key])
            if isinstance(kind, (dict, list)):
                raise Declined("a kind of span that is no text")
            if kind in types:
                return types[kind]
        if key == conventions.LAST_BEFORE_LIVEKIT and (found := _livekit_type(attributes)):
            return found
    return None


def _livekit_type(attributes: Mapping[str, str]) -> str | None:
    """LiveKit's spans are known by what they carry; others that name a model are an LLM's, too."""
    if "gen_ai.request.model" in attributes:
        return "LLM"
    if "gen_ai.operation.name" in attributes:
        operation = str(loaded(attributes["gen_ai.operation.name"])).lower()
        if operation in conventions.GENAI_TYPES:
            return conventions.GENAI_TYPES[operation]
    for key in attributes:
        for prefix, kind in conventions.LIVEKIT_PREFIXES:
            if key.startswith(prefix):
                return kind
        if key in conventions.LIVEKIT_TYPES:
            return conventions.LIVEKIT_TYPES[key]
    return None


def _put(attributes: dict[str, str], name: str, value: str | None, events: Sequence[Event], read: Any) -> None:
    """Set inputs or outputs: from an attribute, or else from an event."""
    if value is None and events and (value := read(events)) is not None and not isinstance(value, str):
        raise Declined("an event whose content is no text")
    if value is not None:
        attributes[name] = value


def _first(attributes: Mapping[str, str], keys: Iterable[str | re.Pattern[str]]) -> str | None:
    """The first value that says something."""
    for key in keys:
        if isinstance(key, str):
            if value := _truthy(attributes, key):
                return value
        else:
            for name in attributes:
                if key.match(name) and (value := _truthy(attributes, name)):
                    return value
    return None


def _truthy(attributes: Mapping[str, str], key: str) -> str | None:
    """The value of an attribute, unless it is empty, zero, false or null."""
    value = attributes.get(key)
    if value is None:
        return None
    if value[0] in '"[{':  # JSON, so it needs no reading to see whether it is empty
        return None if value[1:3].lstrip(_SPACE)[:1] in ("]", "}", '"', "") and not loaded(value) else value
    return value if loaded(value) else None


def _unwrapped(text: Any) -> Any:
    """JSON within JSON, up to three times; what can't be compared is None."""
    for _ in range(3):
        if isinstance(text, str):
            text = loaded(text)
    return text if isinstance(text, str) else None


def _integer(value: str | None) -> int | None:
    """A number of tokens, also one in quotes."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and value[0] != "0" and len(value) < 19:
        return int(value)
    number = loaded(value)
    if isinstance(number, int):
        return number
    for text in (number, value):
        if isinstance(text, str):
            try:
                return int(text)
            except ValueError:
                pass
    return None


def _token_usage(attributes: Mapping[str, str]) -> dict[str, int] | None:
    """Of the first convention that counts any tokens."""
    for counts in conventions.TOKENS:
        read, written, total = (
            _integer(next((attributes[key] for key in keys if key in attributes), None))
            for keys in (counts.input, counts.output, counts.total)
        )
        if total is None and read is not None and written is not None:
            total = read + written
        usage = {"input_tokens": read, "output_tokens": written, "total_tokens": total}
        if read is None and written is None and total is None:
            continue
        for name, keys in (
            ("cache_read_input_tokens", counts.cache_read),
            ("cache_creation_input_tokens", counts.cache_creation),
        ):
            usage[name] = _integer(next((attributes[key] for key in keys if key in attributes), None))
        return {name: count for name, count in usage.items() if count is not None}
    return None


def _message_format(attributes: Mapping[str, str]) -> str | None:
    if not conventions.VOLTAGENT_SPANS.isdisjoint(attributes):
        return "voltagent"
    if any(key.startswith("lk.") for key in attributes):
        return "livekit"
    return "openai" if "lmnr.span.type" in attributes else None


def _model(attributes: Mapping[str, str], foreign: bool) -> Any:
    """The model's name, from a convention's key, or else the field `model` of the inputs or the outputs."""
    if foreign and (name := _first(attributes, conventions.MODELS)):
        return loaded(name)
    for key in (INPUTS, OUTPUTS):
        text = attributes.get(key)
        if text and ('"model"' in text or "\\u" in text):
            try:
                message = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(message, dict) and (model := message.get("model")):
                return model if isinstance(model, str) else None
    return None


def _input_of(events: Sequence[Event]) -> Any:
    """Spring AI's event, or else the messages of the GenAI conventions' events."""
    return _spring_ai(events, "gen_ai.content.prompt", "gen_ai.prompt") or _messages(
        (conventions.MESSAGE_ROLES[event.name], event) for event in events if event.name in conventions.MESSAGE_ROLES
    )


def _output_of(events: Sequence[Event]) -> Any:
    return _spring_ai(events, "gen_ai.content.completion", "gen_ai.completion") or _messages(
        (_text_or_json(event.attributes.get("role", "assistant")), event)
        for event in events
        if event.name == "gen_ai.choice"
    )


def _spring_ai(events: Sequence[Event], name: str, attribute: str) -> Any:
    return next((value for event in events if event.name == name and (value := event.attributes.get(attribute))), None)


def _messages(events: Iterable[tuple[Any, Event]]) -> str | None:
    messages = [
        {"role": role, "content": _text_or_json(content)}
        for role, event in events
        if (content := event.attributes.get("content"))
    ]
    try:
        return json.dumps(messages) if messages else None
    except TypeError:
        raise Declined("a message of bytes") from None


def _text_or_json(value: Any) -> Any:
    return loaded(value) if isinstance(value, str) else value
