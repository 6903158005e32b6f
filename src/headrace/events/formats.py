"""How an event is told: as MLflow's webhooks are, signed; as Slack's and Microsoft Teams' incoming webhooks take it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from headrace.events.subscriptions import ALIAS, METRIC, VERSION


class Event(Struct, frozen=True):
    """What has happened. `at`: milliseconds since 1970. `data`: as formats.example(kind) has it."""

    kind: str
    at: int
    data: dict[str, Any]


_RUN = {
    "run_id": "0123456789abcdef0123456789abcdef",
    "run_name": "painted-carp-42",
    "experiment_id": "1",
    "experiment_name": "example",
    "status": "FINISHED",
    "start_time": 1,
    "end_time": 2,
    "metrics": {"loss": 0.25},
}


def example(kind: str) -> dict[str, Any]:
    """The data of an event that never was, for a test."""
    if kind == METRIC:
        return _RUN | {"status": "RUNNING", "key": "loss", "value": 0.25, "step": 10, "above": None, "below": 0.3}
    if kind == VERSION:
        return {"name": "example", "version": "1", "source": "models:/m-1", "run_id": None, "tags": {},
                "description": None}  # fmt: skip
    if kind == ALIAS:
        return {"name": "example", "alias": "champion", "version": "1"}
    return _RUN | {"status": kind.partition(".")[2].upper()}


def body(style: str, event: Event, link: str, workspace: str | None) -> bytes:
    """The request's body. `workspace`: where the server has workspaces."""
    if style == "slack":
        return msgspec.json.encode(_slack(event, link))
    if style == "teams":
        return msgspec.json.encode(_teams(event, link))
    entity, _, action = event.kind.partition(".")
    at = datetime.fromtimestamp(event.at / 1000, UTC).isoformat()
    content: dict[str, Any] = {"entity": entity, "action": action, "timestamp": at, "data": event.data}
    if workspace is not None:
        content["workspace"] = workspace
    return msgspec.json.encode(content)


def headers(delivery_id: str, seconds: int, content: bytes, secret: str) -> list[tuple[bytes, bytes]]:
    """Those of MLflow's webhooks (mlflow/webhooks/constants.py); signed where there is a secret."""
    found = [
        (b"content-type", b"application/json"),
        (b"x-mlflow-delivery-id", delivery_id.encode()),
        (b"x-mlflow-timestamp", b"%d" % seconds),
    ]
    if secret:
        signed = hmac.new(secret.encode(), b"%b.%d.%b" % (delivery_id.encode(), seconds, content), hashlib.sha256)
        found.append((b"x-mlflow-signature", b"v1," + base64.b64encode(signed.digest())))
    return found


def title(event: Event) -> str:
    """One line of plain text."""
    data = event.data
    if event.kind == VERSION:
        return f"Model {data['name']} has a new version, {data['version']}"
    if event.kind == ALIAS:
        return f"{data['alias']} of model {data['name']} is version {data['version']} now"
    run = f"Run {data.get('run_name') or data['run_id']}"
    where = f" of experiment {data['experiment_name']}" if data.get("experiment_name") else ""
    if event.kind == METRIC:
        side = f"above {data['above']:g}" if data.get("above") is not None else f"below {data['below']:g}"
        return f"{run}{where}: {data['key']} is {data['value']:g}, {side}"
    return f"{run}{where} has {'been killed' if data['status'] == 'KILLED' else data['status'].lower()}"


def _facts(event: Event) -> list[tuple[str, str]]:
    if event.kind in (VERSION, ALIAS):
        return []
    return [(key, f"{value:g}" if isinstance(value, float) else str(value)) for key, value in _metrics(event)]


def _metrics(event: Event) -> list[tuple[str, Any]]:
    return list(event.data.get("metrics", {}).items())[:10]


def _address(event: Event, link: str) -> str:
    """The page of MLflow's UI that shows it; empty where the server's address is not known."""
    data, base = event.data, link.rstrip("/")
    if not base:
        return ""
    if event.kind in (VERSION, ALIAS):
        return f"{base}/#/models/{quote(data['name'], safe='')}/versions/{data['version']}"
    return f"{base}/#/experiments/{data.get('experiment_id', 0)}/runs/{data['run_id']}"


def _slack(event: Event, link: str) -> dict[str, Any]:
    text = f"*{_of_slack(title(event))}*"
    if address := _address(event, link):
        text = f"<{address}|{_of_slack(title(event))}>"
    return {"text": "\n".join([text, *(f"{_of_slack(key)}: {_of_slack(value)}" for key, value in _facts(event))])}


def _of_slack(text: str) -> str:
    """A name is shown, and never a link or a mention of everybody."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\u2758")
    return " ".join(text.split())


def _teams(event: Event, link: str) -> dict[str, Any]:
    facts = [(_of_markdown(key), _of_markdown(value)) for key, value in _facts(event)]
    content: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "TextBlock", "text": _of_markdown(title(event)), "weight": "bolder", "wrap": True},
            {"type": "FactSet", "facts": [{"title": k, "value": v} for k, v in facts]},
        ],
    }
    if address := _address(event, link):
        content["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": address}]
    card = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return {"type": "message", "attachments": [card]}


def _of_markdown(text: str) -> str:
    """A name is shown, and never a link: a text block, a fact's title and its value read Markdown."""
    return "".join(f"\\{each}" if each in "\\[]()*_`<>" else each for each in " ".join(text.split()))
