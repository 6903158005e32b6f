"""The tag mlflow.log-model.history: which models a run logged, as clients before MLflow 3 tell it.

Rules: _log_model of mlflow/server/handlers.py; from_dict and get_tags_dict of mlflow/models/model.py.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.errors import Malformed
from headrace.resources.runs.model_signature import is_plain

_KEPT = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
# what does not end up in the tag
_LEFT_OUT = frozenset(
    {"mlflow_version", "model_id", "model_size_bytes", "metadata", "saved_input_example_info", "databricks_runtime"}
)
# what does not, either, but stock reads it all the same, and may refuse it
_READ_BY_STOCK = frozenset({"signature", "resources", "env_vars", "auth_policy", "prompts"})
# flags of a signature, taken off with it
_OF_SIGNATURE = frozenset({"is_signature_from_type_hint", "type_hint_from_example"})


def entry(model_json: str) -> dict[str, Any]:
    """What the history keeps of a model.

    Raises:
        Declined: stock refuses it, or must read more of it (resources, a default that is a date).
    """
    model = _loads(model_json)
    if not isinstance(model, dict):
        raise Malformed("not a model")
    others = model.keys() - {*_KEPT, *_LEFT_OUT, "flavors"}
    if is_plain(model.get("signature")):
        others -= {"signature", *_OF_SIGNATURE}
    for key in others:
        if key not in _READ_BY_STOCK or model[key] is not None:
            raise Malformed(f"a model with {key!r}, which stock must read")
    texts = (model.get(key) for key in ("run_id", "artifact_path", "utc_time_created"))
    flavors = model.get("flavors")
    if not all(isinstance(text, str) and text for text in texts) or not isinstance(flavors, dict):
        raise Malformed("not a whole model")
    return {key: model.get(key) for key in _KEPT} | {"flavors": {k: _without_config(v) for k, v in flavors.items()}}


def extended(before: str | None, entry: dict[str, Any]) -> str:
    """The value of the tag with one model more. Raises Declined for a value that is no history."""
    history = [] if before is None else _loads(before)
    if not isinstance(history, list):
        raise Malformed("the tag of a run's models holds something else")
    return json.dumps([*history, entry])


def _without_config(flavor: Any) -> Any:
    return {k: v for k, v in flavor.items() if k != "config"} if isinstance(flavor, dict) else flavor


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
