"""--stock never: there is no stock process, and what only it could answer is a 501 that says so."""

from __future__ import annotations

import logging

from headrace.asgi.responses import send_error
from headrace.asgi.types import SECURITY, Receive, Scope, Send
from headrace.errors import NeedsStock

_log = logging.getLogger(__name__)


class NoStock:
    """Stands where the Forwarder does."""

    async def close(self) -> None:
        """Nothing is open."""

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes | None = None,
        *,
        route: str = "",
        reason: str = "",
    ) -> None:
        """Refuse a request that stock would answer."""
        _log.info("answered 501, for want of stock: %s %s", route, reason)
        why = f" ({reason})" if reason else ""
        error = NeedsStock(
            f"Only stock MLflow answers {scope['method']} {scope['path']}{why}, and this server runs without it. "
            "Start it with --stock lazy (HEADRACE_STOCK=lazy) instead of --stock never."
        )
        await send_error(scope, send, error, scope[SECURITY])
