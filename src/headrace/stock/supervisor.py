"""Stock MLflow as a child: one process, on a Unix socket in a directory that only this user can enter."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from headrace import database_url, log
from headrace.asgi.security import with_ports
from headrace.process import BackOff, Child, Supervisor
from headrace.settings import Settings
from headrace.stock.probe import Probe

# A request that needs stock says so in a datagram to this socket (stock/forward.py), and again while it is under way.
WANTED = "wanted"
LONGEST_REQUEST = 400  # bytes of what a datagram says
_LONGEST_PATH = 100  # bytes; sun_path holds 108 on Linux, 104 on macOS


def make_runtime_directory() -> str:
    """A new directory for the sockets, mode 0700."""
    path = tempfile.mkdtemp(prefix="headrace-")
    if len(os.fsencode(path)) + len("/stock.sock") > _LONGEST_PATH:
        os.rmdir(path)
        path = tempfile.mkdtemp(prefix="headrace-", dir="/tmp")
    return path


def environment(settings: Settings) -> dict[str, str]:
    """What `mlflow server` sets for its server processes (mlflow.server._run_server, mlflow.cli.server)."""
    backend = database_url.stock_url(settings.backend_store_uri)
    values: dict[str, str | None] = {
        "_MLFLOW_SERVER_FILE_STORE": backend,
        "_MLFLOW_SERVER_REGISTRY_STORE": database_url.stock_url(settings.registry_store_uri or backend),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": settings.default_artifact_root,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": settings.artifacts_destination,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true" if settings.serve_artifacts else None,
        "_MLFLOW_SERVER_ARTIFACTS_ONLY": "true" if settings.artifacts_only else None,
        "_MLFLOW_STATIC_PREFIX": settings.static_prefix or None,
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true" if settings.enable_jobs else "false",
        "_MLFLOW_HUEY_STORAGE_PATH": _queues(settings) if settings.enable_jobs else None,
        "MLFLOW_TRACE_ARCHIVAL_CONFIG": settings.trace_archival_config,
        "MLFLOW_ENABLE_WORKSPACES": "true" if settings.enable_workspaces else "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "true" if settings.enable_ai_gateway else "false",
        # no URL has this scheme: stock sends nothing to webhooks that are in the database already
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": None if settings.enable_webhooks else "off",
        # One that is disabled, deleted or of another workspace is told nothing, one that is new is told at once: who is
        # to be told is read for each event. Stock remembers it for a minute, for all workspaces alike.
        "MLFLOW_WEBHOOK_CACHE_TTL": os.environ.get("MLFLOW_WEBHOOK_CACHE_TTL", "0"),
        "MLFLOW_SERVER_SECRETS_CACHE_TTL": str(settings.secrets_cache_ttl),
        "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE": str(settings.secrets_cache_max_size),
    }
    if isinstance(settings.database, database_url.PostgresURL):
        # One engine for all stores (stock/launch.py). MLflow takes an overflow of 0 for none given, which means 10.
        values["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = ""
        values["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] = str(settings.connections.stock - 1)
        values["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"] = "1"
    if settings.disable_security_middleware:
        values["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
    else:
        values["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(with_ports(settings.allowed_hosts)) or None
        values["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] = settings.cors_allowed_origins
        values["MLFLOW_SERVER_X_FRAME_OPTIONS"] = settings.x_frame_options
    return {name: value for name, value in values.items() if value is not None}


class Stock:
    """Stock is started at once (--stock background), or when it is wanted and ended when it is not (lazy).

    Restarts are the Supervisor's.
    """

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._socket = settings.stock_socket
        self._idle = settings.stock_idle if settings.stock == "lazy" and not settings.enable_jobs else None
        self._child = Child("stock MLflow", "headrace.stock.launch", stage=1, back_off=BackOff(0.5), source="stock")
        self._child.configure(_configuration(settings))
        supervisor.add(self._child)
        self._wanted = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wanted.bind(str(Path(settings.stock_socket).with_name(WANTED)))
        self._wanted.setblocking(False)
        supervisor.watch(self._wanted, self._on_wanted)
        self._probe: Probe | None = None

    def start(self) -> bool:
        """Start it, unless it runs or is about to; whether that was done."""
        if self._probe is None:
            self._probe = Probe(self._child, self._socket, lambda text: log.say(text, "WARNING"))
            self._probe.start()
        return self._supervisor.wake(self._child)

    def _on_wanted(self) -> None:
        request = b""
        with contextlib.suppress(BlockingIOError):
            while message := self._wanted.recv(LONGEST_REQUEST):
                request = request or message
        if self.start():
            log.say(f"stock MLflow starts: {request.decode(errors='replace')}")
        if self._idle is not None:
            self._supervisor.call_at(time.monotonic() + self._idle, self._rest)

    def _rest(self) -> None:
        log.say(f"no request has needed stock MLflow for {self._idle:g} s; it ends")
        # First its address: who comes from now on waits for the next one, who is connected gets an answer.
        with contextlib.suppress(OSError):
            os.unlink(self._socket)
        self._supervisor.rest(self._child)


def _queues(settings: Settings) -> str:
    """The folder of the jobs' queues, which need not outlive the server: what is to be done is in the database."""
    return str(Path(settings.stock_socket).with_name("jobs"))


def environment_of_jobs(settings: Settings) -> dict[str, str]:
    """What `mlflow server` sets for its job runner (mlflow.server._run_server), beside what its server has."""
    backend = database_url.stock_url(settings.backend_store_uri)
    assert backend is not None
    values = {
        "MLFLOW_BACKEND_STORE_URI": backend,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.default_artifact_root,
        "MLFLOW_TRACKING_URI": settings.url,
        "MLFLOW_GATEWAY_URI": os.environ.get("MLFLOW_GATEWAY_URI") or settings.url,
    }
    if settings.jobs_token:  # as a password: what asks the AI gateway knows no MLFLOW_TRACKING_TOKEN
        values |= {"MLFLOW_TRACKING_USERNAME": "jobs", "MLFLOW_TRACKING_PASSWORD": settings.jobs_token}
    return values


# By what people and jobs come in, which stock's process has no need to know.
_OF_ACCOUNTS = {"admin_token": "", "admin_hashes": "", "oidc_client_secret": "", "jobs_token": ""}


def _configuration(settings: Settings) -> dict[str, Any]:
    of_database = msgspec.structs.replace(settings, **_OF_ACCOUNTS)
    return {
        # where the key of the webhooks' secrets is
        "database": msgspec.to_builtins(of_database) if settings.enable_webhooks and settings.native else None,
        "stock": environment(settings),
        "jobs": environment_of_jobs(settings) if settings.enable_jobs else None,
        "socket": settings.stock_socket,
        "log_level": settings.log_level,
        "shutdown_timeout": settings.shutdown_timeout,
    }
