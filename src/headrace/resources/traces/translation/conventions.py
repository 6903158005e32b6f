"""What each convention calls things, in the order in which MLflow asks them (its list _TRANSLATORS).

Where two of them use one key, the first one that MLflow asks decides, so each key stands once.
"""

from __future__ import annotations

import re

from msgspec import Struct


class TokenKeys(Struct, frozen=True, gc=False):
    """Where a convention counts tokens; of several keys the first that is there counts."""

    input: tuple[str, ...]
    output: tuple[str, ...]
    total: tuple[str, ...] = ()
    cache_read: tuple[str, ...] = ()
    cache_creation: tuple[str, ...] = ()


# OpenTelemetry's GenAI semantic conventions, gen_ai.operation.name
GENAI_TYPES = {
    "chat": "CHAT_MODEL",
    "create_agent": "AGENT",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "generate_content": "LLM",
    "invoke_agent": "AGENT",
    "text_completion": "LLM",
    "response": "LLM",
}
_OPENINFERENCE_TYPES = {
    kind: kind
    for kind in (
        *("TOOL", "CHAIN", "LLM", "RETRIEVER", "EMBEDDING", "AGENT"),
        *("RERANKER", "UNKNOWN", "GUARDRAIL", "EVALUATOR"),
    )
}
_VERCEL_TYPES = {
    **dict.fromkeys(
        (
            *("ai.generateText", "ai.generateText.doGenerate", "ai.streamText", "ai.streamText.doStream"),
            *("ai.generateObject", "ai.generateObject.doGenerate", "ai.streamObject", "ai.streamObject.doStream"),
        ),
        "LLM",
    ),
    "ai.toolCall": "TOOL",
    **dict.fromkeys(("ai.embed", "ai.embed.doEmbed", "ai.embedMany"), "EMBEDDING"),
}
# A child's entity.type is its agent's, so span.type comes first.
_VOLTAGENT_TYPES = {"agent": "AGENT", "llm": "LLM", "tool": "TOOL", "memory": "MEMORY"}
LAST_BEFORE_LIVEKIT = "entity.type"
TYPES: tuple[tuple[str, dict[str, str]], ...] = (
    ("openinference.span.kind", _OPENINFERENCE_TYPES),
    ("gen_ai.operation.name", GENAI_TYPES),
    (
        "traceloop.span.kind",
        {"workflow": "WORKFLOW", "task": "TASK", "agent": "AGENT", "tool": "TOOL", "unknown": "UNKNOWN"},
    ),
    ("ai.operationId", _VERCEL_TYPES),
    ("span.type", _VOLTAGENT_TYPES),
    (LAST_BEFORE_LIVEKIT, _VOLTAGENT_TYPES),
    (
        "lmnr.span.type",
        {
            "LLM": "LLM",
            "TOOL": "TOOL",
            "DEFAULT": "CHAIN",
            "PIPELINE": "CHAIN",
            "EXECUTOR": "AGENT",
            "EVALUATOR": "EVALUATOR",
            "HUMAN_EVALUATOR": "EVALUATOR",
            "EVALUATION": "EVALUATOR",
            "CACHED": "LLM",
        },
    ),
    (
        "langfuse.observation.type",
        {
            "generation": "LLM",
            "embedding": "EMBEDDING",
            "tool": "TOOL",
            "retriever": "RETRIEVER",
            "agent": "AGENT",
            "chain": "CHAIN",
            "evaluator": "EVALUATOR",
            "guardrail": "GUARDRAIL",
            "span": "UNKNOWN",
        },
    ),
)
LIVEKIT_TYPES = {
    "lk.retry_count": "LLM",
    **dict.fromkeys(("lk.agent_name", "lk.instructions", "lk.generation_id"), "AGENT"),
    **dict.fromkeys(
        ("lk.input_text", "lk.user_transcript", "lk.transcript_confidence", "lk.transcription_delay"), "UNKNOWN"
    ),
}
LIVEKIT_PREFIXES = (("lk.function_tool", "TOOL"), ("lk.tts", "UNKNOWN"))

INPUTS: tuple[str | re.Pattern[str], ...] = (
    "input.value",
    *("gen_ai.input.messages", "gen_ai.tool.call.arguments"),
    "traceloop.entity.input",
    re.compile(r"gen_ai\.prompt\.\d+\.content"),
    re.compile(r"gen_ai\.completion\.\d+\.tool_calls\.\d+\.arguments"),
    *("gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args"),
    *("ai.prompt", "ai.toolCall.args", "ai.value", "ai.values"),
    *("agent.messages", "llm.messages", "input"),
    *("lk.user_input", "lk.user_transcript", "lk.chat_ctx", "lk.input_text"),
    *("lmnr.span.input", "langfuse.observation.input"),
)
OUTPUTS: tuple[str | re.Pattern[str], ...] = (
    "output.value",
    *("gen_ai.output.messages", "gen_ai.tool.call.result"),
    "traceloop.entity.output",
    re.compile(r"gen_ai\.completion\.\d+\.content"),
    *("gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_response"),
    *("ai.response.text", "ai.toolCall.result", "ai.response.object", "ai.embedding", "ai.embeddings"),
    "output",
    *("lk.response.text", "lk.response.function_calls"),
    *("lmnr.span.output", "langfuse.observation.output"),
)
TOKENS = (
    TokenKeys(  # OpenInference
        ("llm.token_count.prompt",),
        ("llm.token_count.completion",),
        ("llm.token_count.total",),
        ("llm.token_count.prompt_details.cache_read",),
        ("llm.token_count.prompt_details.cache_write",),
    ),
    TokenKeys(  # the GenAI conventions, which have no total
        ("gen_ai.usage.input_tokens",),
        ("gen_ai.usage.output_tokens",),
        cache_read=("gen_ai.usage.cache_read.input_tokens",),
        cache_creation=("gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ),
    TokenKeys(  # Traceloop
        ("gen_ai.usage.prompt_tokens",), ("gen_ai.usage.completion_tokens",), ("llm.usage.total_tokens",)
    ),
    TokenKeys(  # VoltAgent
        ("usage.prompt_tokens", "llm.usage.prompt_tokens"),
        ("usage.completion_tokens", "llm.usage.completion_tokens"),
        ("usage.total_tokens", "llm.usage.total_tokens"),
    ),
)
MODELS = (
    *("llm.response.model_name", "llm.model_name", "llm.request.model_name", "embedding.model_name"),
    *("gen_ai.response.model", "gen_ai.request.model"),
)
PROVIDERS = ("llm.provider", "gen_ai.provider.name", "gen_ai.system")
TOOLS = "gen_ai.tool.definitions"
VOLTAGENT_SPANS = frozenset({"voltagent.operation_id", "voltagent.conversation_id"})
# the older form of the GenAI conventions: an event a message
MESSAGE_ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
}

# what `declines` looks for
CLAUDE_CODE_SPANS = frozenset({"interaction", "llm_request", "tool"})
VERCEL_CONVERSATIONS = frozenset({"ai.generateText.doGenerate", "ai.streamText.doStream"})

KEYS: frozenset[str] = frozenset(
    (
        *(key for key, _ in TYPES),
        *(key for key in (*INPUTS, *OUTPUTS) if isinstance(key, str)),
        *(
            key
            for counts in TOKENS
            for keys in (counts.input, counts.output, counts.total, counts.cache_read, counts.cache_creation)
            for key in keys
        ),
        *MODELS,
        *PROVIDERS,
        TOOLS,
        *VOLTAGENT_SPANS,
        "gen_ai.agent.name",
    )
)
