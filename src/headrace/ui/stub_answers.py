"""What the UI asks on every page about features that this server has not got: known answers that never change.

They are native because a browser has six connections to a server, and requests that wait for stock to start would hold
up those that show the page.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from headrace.asgi.types import Application, Receive, Scope, Send
from headrace.settings import Settings


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    content_type: bytes
    body: bytes


# No user, as the UI takes stock's 404, too; a browser's console would count that as an error of each page.
NOBODY = Answer(200, b"application/json", b"{}\n")
# Whose use of the gateway its page shows; stock without users: 404.
NO_USERS = Answer(200, b"application/json", b'{"users":[]}\n')
# The UI reports to its makers what is clicked, unless its server says no: mlflow.telemetry.constant.FALLBACK_UI_CONFIG,
# and what handlers.post_ui_telemetry_handler says then to a page that is open already.
NO_TELEMETRY = Answer(
    200, b"application/json", b'{"disable_ui_telemetry":true,"disable_ui_events":[],"ui_rollout_percentage":0}\n'
)
NO_REPORTS = Answer(200, b"application/json", b'{"status":"disabled"}\n')


class Absent:
    """The answers of a server with these settings."""

    def __init__(self, settings: Settings) -> None:
        api = f"{settings.static_prefix}/ajax-api"
        self._answers: dict[tuple[str, str], Answer] = {
            ("GET", f"{api}/3.0/mlflow/ui-telemetry"): NO_TELEMETRY,
            ("POST", f"{api}/3.0/mlflow/ui-telemetry"): NO_REPORTS,
        }
        if not settings.protected:
            self._answers["GET", f"{api}/2.0/mlflow/users/current"] = NOBODY
            self._answers["GET", f"{api}/2.0/mlflow/users/list"] = NO_USERS

    def find(self, method: str, path: str) -> Application | None:
        """What answers such a request; None: stock does."""
        answer = self._answers.get((method, path))
        return partial(_send, answer) if answer is not None else None


async def _send(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
