"""What stands before MLflow's app in the stock process."""

from __future__ import annotations

from contextvars import ContextVar
from urllib.parse import unquote

from headrace.asgi.responses import send_error
from headrace.asgi.types import Application, Receive, Scope, Send
from headrace.errors import Unavailable
from headrace.stock.jobs import JobRunner

# The client's address, scheme and user as our worker saw them; stock/forward.py sets it and drops a client's own.
CLIENT_HEADER = b"headrace-client"
SENDER: ContextVar[str | None] = ContextVar("sender", default=None)  # the user, where the server asks for one
# The key of a provider that comes with it is in the queue of the server that was asked, and nowhere else.
WITH_A_KEY = "/mlflow/issues/invoke"


class AsSeenByWorker:
    """Gives stock the client and the scheme of the connection to our worker instead of the Unix socket's.

    MLflow opens its assistant to clients on 127.0.0.1, so the address must be the true one, and anyone can send
    X-Forwarded-For: that's why this is a header of our own, taken off again here. The user comes with it.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = scope["headers"]
            for index, (name, value) in enumerate(headers):
                if name == CLIENT_HEADER:
                    scheme, port, host, user = value.decode().split(" ")
                    scope["client"], scope["scheme"] = (host, int(port)) if host else None, scheme
                    sender = unquote(user.removeprefix("user=")) or None
                    SENDER.set(sender)
                    scope.setdefault("state", {})["username"] = sender  # MCP servers and the gateway look here
                    del headers[index]
                    break
        await self.app(scope, receive, send)


def name_sender() -> None:
    """Tell MLflow's handlers who sends the request, as its basic-auth does: who owns a review queue, and who has
    answered what is in it, they do not take from the client."""
    from flask import g

    g.mlflow_authenticated_user = SENDER.get()


class WhereJobsRun:
    """The app, without what is of use alone where the jobs run."""

    def __init__(self, app: Application, runner: JobRunner) -> None:
        self.app, self.runner = app, runner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith(WITH_A_KEY) and not self.runner.is_here:
            await send_error(scope, send, Unavailable("Another server of this database runs MLflow's jobs. Try again."))
        else:
            await self.app(scope, receive, send)
