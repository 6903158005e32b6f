"""An application on a real socket, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def running(
    app: Any, sockets: list[socket.socket] | None = None, **options: Any
) -> AsyncIterator[uvicorn.Server]:
    """Uvicorn without what `serve` adds: it would handle the signals of this process, and leave it without Ctrl-C."""
    usual: dict[str, Any] = {"http": "httptools", "ws": "none", "lifespan": "off", "log_config": None}
    config = uvicorn.Config(app, **usual | {"timeout_graceful_shutdown": 1} | options)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets)
    ticking = asyncio.create_task(server.main_loop())
    try:
        yield server
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets)
