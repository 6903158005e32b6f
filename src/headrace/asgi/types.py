"""ASGI's types, a look at headers, and what Headrace's parts leave in the scope of a request for one another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

# The keys of the scope.
SECURITY = "headrace.security"  # the security headers of a native answer, None where stock must answer
PREFIX = "headrace.prefix"  # what a trusted proxy has taken off the path before --static-prefix; absent: nothing
HELD = "headrace.held"  # how many bytes of its body are counted (asgi/body.py)
MATCH = "headrace.match"  # the api.endpoint.Match of the request
PERMIT = "headrace.permit"  # what the message must pass before it is handled (api.permits.Permit)
PRINCIPAL = "headrace.principal"  # who sent it, where that is known
WORKSPACE = "headrace.workspace"  # the one that it works in, on a server with workspaces
NAMED = "headrace.named"  # the user whom somebody tried to sign in as, where there is such a user
BEGAN = "headrace.began"  # when, by time.perf_counter
OBSERVED = "headrace.observed"  # the monitoring.Observed that wants to know of a whole answer
MESSAGE = "headrace.message"  # the decoded message, once there is one


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of the request with that name, in small letters; None where there is none."""
    return next((value for key, value in scope["headers"] if key == name), None)
