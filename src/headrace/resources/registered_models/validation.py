"""The registry's rules for names, versions, aliases, stages and tags (mlflow/utils/validation.py), in its words."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from headrace.api.endpoint import Call
from headrace.api.message import invalid
from headrace.db.query import Sql
from headrace.errors import Declined, InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.runs.messages import KeyValue

MAX_NAME = 256  # the column's
MAX_ALIAS = 255
MAX_TAG_VALUE = 100_000
MAX_DESCRIPTION = 5_000  # the column's
STAGES = ("None", "Staging", "Production", "Archived")
IS_PROMPT, PROMPT_TEXT = "mlflow.prompt.is_prompt", "mlflow.prompt.text"
_CANONICAL = {stage.lower(): stage for stage in STAGES}
_ALIAS = re.compile(r"^[\w\-]*$")
_VERSION_ALIAS = re.compile(r"^[vV]\d+$")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,30}\s*")
_SUBSCRIBED = Sql("""
SELECT 1 FROM webhooks w JOIN webhook_events e ON e.webhook_id = w.webhook_id
WHERE w.status = 'ACTIVE' AND w.deleted_timestamp IS NULL AND e.entity IN :entities AND e.action = :action LIMIT 1
""")


def model_name(name: str, field: str = "name") -> str:
    """_validate_model_name, and what the column holds. Raises InvalidParameter."""
    if not name.strip():
        raise InvalidParameter(f"Missing value for required parameter '{field}'.")
    if "/" in name or ":" in name:
        raise InvalidParameter(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    normal = posixpath.normpath(name)
    if normal != name or normal == "." or normal.startswith(("..", "/")):
        reason = (
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such."
            f" This name would resolve to {normal!r}"
        )
        raise invalid("name", name, reason)
    return valid.text(name, MAX_NAME, "name")


def version(text: str, name: str) -> int:
    """_validate_model_version. Raises InvalidParameter; NotFound for a number that the column can't hold."""
    if not _INTEGER.fullmatch(text):
        raise InvalidParameter(f"Parameter 'version' must be an integer, got '{text}'.")
    number = int(text)
    if not -(2**31) <= number < 2**31:
        raise unknown_version(name, number)
    return number


def unknown_model(name: str) -> NotFound:
    """SqlAlchemyStore._get_registered_model."""
    return NotFound(f"Registered Model with name={name} not found")


def unknown_version(name: str, number: int) -> NotFound:
    """SqlAlchemyStore._get_model_version_from_db."""
    return NotFound(f"Model Version (name={name}, version={number}) not found")


def alias(text: str, reserved: bool = False) -> str:
    """_validate_model_alias_name; `reserved`: and _validate_model_alias_name_reserved. Raises InvalidParameter."""
    if not _ALIAS.match(text) or text.endswith("\n"):
        raise InvalidParameter(
            f"Invalid alias name: '{text}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )
    if len(text) > MAX_ALIAS:
        raise valid.too_long("Registered model alias name", MAX_ALIAS)
    if reserved and text.lower() == "latest":
        raise InvalidParameter("'latest' alias name (case insensitive) is reserved.")
    if reserved and _VERSION_ALIAS.match(text):
        raise InvalidParameter(f"Version alias name '{text}' is reserved.")
    return text


def stage(text: str) -> str:
    """get_canonical_stage. Raises InvalidParameter."""
    canonical = _CANONICAL.get(text.lower())
    if canonical is None:
        raise InvalidParameter(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")
    return canonical


def tag(key: str, value: str) -> tuple[str, str]:
    """_validate_registered_model_tag, _validate_model_version_tag. Raises InvalidParameter."""
    valid.key(key)
    if key == PROMPT_TEXT and len(value) > MAX_TAG_VALUE:
        raise InvalidParameter(f"Prompt text exceeds max length of {MAX_TAG_VALUE} characters.")
    return key, valid.text(value, MAX_TAG_VALUE, "value")


def tags(given: Sequence[KeyValue]) -> dict[str, str]:
    """Tags by key; of one that comes twice the last counts."""
    return dict(tag(each.key, each.value) for each in given)


def is_prompt(tags: dict[str, str]) -> bool:
    """handlers._is_prompt_request."""
    return tags.get(IS_PROMPT, "false").lower() == "true"


async def leave_to_webhooks(call: Call, action: str, *entities: str) -> None:
    """Where webhooks are turned on and one waits for this event, stock does what fires it. Raises Declined."""
    if not call.settings.enable_webhooks:
        return
    if await call.db.rows(_SUBSCRIBED(entities=list(entities), action=action)):
        raise Declined("a webhook waits for this")
