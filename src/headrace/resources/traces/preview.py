"""What the list of traces shows of inputs and outputs: the last message of a conversation, or how the JSON begins.

Source: mlflow/tracing/utils/truncation.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

from headrace.errors import Declined

_MAX_LENGTH = 1000
# without one of these names there is no conversation in it, and it need not be read
_CONVERSATION = re.compile(r'"(?:messages|choices|input|output|request)"|\\u')


def preview(text: str, role: str) -> str:
    """Inputs or outputs in at most 1000 characters; of a conversation, the last message of this role.

    Raises Declined where a message's text is none: stock then writes no preview at all, or fails.
    """
    shown = text
    if _CONVERSATION.search(text):
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = None
        except (ValueError, RecursionError):
            raise Declined("JSON too large or too deep for Python") from None
        if messages := _messages(value):
            last = next((message for message in reversed(messages) if message["role"] == role), messages[-1])
            said = _text_of(last["content"]) or text
            if not isinstance(said, str):
                raise Declined("a message whose text is none")
            shown = said
    return shown if len(shown) <= _MAX_LENGTH else shown[: _MAX_LENGTH - 3] + "..."


def _messages(value: Any) -> list[dict[str, Any]]:
    """The messages of OpenAI's chat completions and responses, and of MLflow's ResponsesAgent."""
    while isinstance(value, dict):
        if (messages := value.get("messages")) and isinstance(messages, list):
            return [message for message in messages if _is_message(message)]
        if (choices := value.get("choices")) and isinstance(choices, list) and isinstance(choices[0], dict):
            message: Any = choices[0].get("message")
            if _is_message(message):
                return [message]
        for key in ("input", "output"):
            if (items := value.get(key)) and isinstance(items, list):
                return [item for item in items if _is_message(item)]
        value = value.get("request")
    return []


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and "content" in value


def _text_of(content: Any) -> Any:
    """A message's text, or the first of its parts that is one."""
    if isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                return part
            if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
                return part.get("text")
        return ""
    return content if isinstance(content, str) else ""
