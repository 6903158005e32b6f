"""What a worker process does: uvicorn on the listening socket that the parent gives, as the parent configures it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from types import FrameType, TracebackType

import msgspec

from headrace import child, log
from headrace.app import create_app
from headrace.asgi import uvicorn
from headrace.asgi.protocol import AnsweringProtocol, Doorman
from headrace.asgi.shield import proxies_of
from headrace.errors import ConfigurationError, HeadraceError, SchemaOutOfDate
from headrace.readiness import Readiness
from headrace.settings import Settings, is_loopback

_LONGEST_END = 10.0  # seconds that the queue may take to drain when nobody is left to kill us


class Server(uvicorn.Server):
    """uvicorn's server. It says when it is ready, stays for `delay` seconds when told to stop, ends with its parent."""

    def __init__(
        self, config: uvicorn.Config, parent: child.Parent, directory: str, readiness: Readiness, delay: float
    ) -> None:
        super().__init__(config)
        self.parent, self.directory = parent, directory
        self._readiness, self._delay = readiness, delay
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the parent. Ends the process with 1 when the app's start failed."""
        try:
            await super().startup(sockets)
        except SystemExit:
            raise SystemExit(1) from None  # uvicorn's 3 is our "schema out of date"
        self._loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()  # what start-up made stays; don't look at it in every collection
        self._loop.add_reader(self.parent.fd, self._on_parent)
        self.parent.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say first that we are not ready, so that balancers send nobody here, and take connections for a while yet."""
        first, self._readiness.leaving = not self._readiness.leaving, True
        if first and self._delay and sig == signal.SIGTERM and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._delay, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)

    def _on_parent(self) -> None:
        if not self.parent.read():
            asyncio.get_running_loop().remove_reader(self.parent.fd)
            child.remove_runtime_directory(self.directory)
            self.config.timeout_graceful_shutdown = 1
            self.should_exit = True
            asyncio.get_running_loop().call_later(_LONGEST_END, os._exit, 1)


def serve(parent: child.Parent) -> None:
    """Serve until SIGTERM, or until the parent ends."""
    configuration = parent.read_configuration()
    settings = msgspec.convert(configuration["settings"], Settings)
    log.set_format(settings.log_format)
    logging.basicConfig(level=settings.log_level.upper(), format="%(message)s", handlers=[log.Handler()])
    logging.captureWarnings(True)
    sys.excepthook = _log_exception
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # it logs headers
    if settings.log_level == "info":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    readiness = Readiness()
    try:
        app = create_app(settings, readiness)
    except HeadraceError as error:
        log.say(str(error), "ERROR")
        raise SystemExit({ConfigurationError: 2, SchemaOutOfDate: 3}.get(type(error), 1)) from None
    AnsweringProtocol.doorman = _doorman(settings)
    config = uvicorn.Config(
        app,
        http=AnsweringProtocol,
        interface="asgi3",
        proxy_headers=False,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=int(settings.shutdown_timeout),
    )
    assert parent.listener is not None
    directory = os.path.dirname(settings.stock_socket)
    Server(config, parent, directory, readiness, settings.shutdown_delay).run(sockets=[parent.listener])


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody has caught ends this process; in the log's format, too."""
    log.say("".join(traceback.format_exception(kind, error, trace)).rstrip(), "ERROR")


def _doorman(settings: Settings) -> Doorman | None:
    """For connections, of which the process may have as many as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says more than it allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not settings.connections_per_client:
        return None
    is_proxy = proxies_of(settings)
    return Doorman(settings.connections_per_client, lambda address: is_loopback(address) or is_proxy(address))
