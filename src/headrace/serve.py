"""`headrace serve`: take the port, prepare the database, start workers and stock MLflow, look after them."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import msgspec

from headrace import log, renewal, uri, workers
from headrace.database import prepare
from headrace.errors import ConfigurationError
from headrace.listeners import close, listen
from headrace.process import Supervisor, run_once
from headrace.settings import Settings
from headrace.settings.table import OF_STOCK
from headrace.stock.supervisor import Stock, make_runtime_directory


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code.

    Raises ConfigurationError and SchemaOutOfDate for what keeps the server from starting.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor's loop takes it over
    listeners = listen(settings.host, settings.port, settings.workers)
    directory = make_runtime_directory()
    settings = msgspec.structs.replace(
        settings, port=listeners[0].port, stock_socket=os.path.join(directory, "stock.sock")
    )
    supervisor = Supervisor(stop_timeout=settings.shutdown_delay + settings.shutdown_timeout + 1)
    try:
        settings = renewal.begun(settings, directory)
        if settings.enable_jobs and settings.protected:
            settings = msgspec.structs.replace(settings, jobs_token=secrets.token_urlsafe(32))
        _make_metrics_directory(settings)
        running = workers.make(settings.workers)  # they import while the database is made ready
        for worker in running:
            supervisor.add(worker)
        prepare(settings, log.say)
        if settings.protected:
            _set_up_auth(settings)
        stock = Stock(settings, supervisor) if settings.stock != "never" else None
        for number, (worker, listener) in enumerate(zip(running, listeners, strict=True)):
            of_worker = msgspec.structs.replace(settings, builds_indexes=number == 0)
            worker.configure({"settings": msgspec.to_builtins(of_worker)}, listener)
        supervisor.on_all_ready = lambda: _on_ready(settings, stock)
        # Our copies keep connections waiting while a worker is replaced; now nobody will come for them.
        supervisor.on_stop = partial(close, listeners)
        return supervisor.run()
    finally:
        supervisor.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _make_metrics_directory(settings: Settings) -> None:
    """Empty, for the workers to come: their files are for their process ids. Raises ConfigurationError."""
    directory = Path(settings.expose_prometheus or Path(settings.stock_socket).with_name("metrics"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in directory.glob("*.db"):
            file.unlink()
        (directory / ".writable").touch()
        (directory / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(
            f"--expose-prometheus is {directory}, but {error.strerror}. Name a folder where this user may write."
        ) from None


def _set_up_auth(settings: Settings) -> None:
    """Make the tables of users, and the first administrator's token where there is nobody yet.

    In a process of its own: the supervisor carries no database driver. Raises ConfigurationError.
    """
    configuration = {"settings": msgspec.to_builtins(settings), "url": settings.url}
    if code := run_once("headrace.auth.setup_process", configuration, source="headrace"):
        raise ConfigurationError(
            f"The tables of users and tokens can't be made (exit code {code}); why is said above. The database's role "
            "needs the right to create tables."
        )


def _on_ready(settings: Settings, stock: Stock | None) -> None:
    if stock is not None and (settings.stock == "background" or settings.enable_jobs):
        stock.start()
    artifacts = settings.artifacts_destination + ", through this server"
    if not settings.serve_artifacts:
        artifacts = settings.default_artifact_root
    if os.path.exists("mlflow.db") and settings.backend_store_uri == Settings().backend_store_uri:
        log.say("the mlflow.db in this folder is not used; for it: --backend-store-uri sqlite:///mlflow.db")
    log.say(f"MLflow is on {settings.url}")
    if not settings.artifacts_only:
        log.say(f"  database   {uri.redact(settings.backend_store_uri)}")
    log.say(f"  artifacts  {uri.redact(artifacts)}")
    off = [f"--{name.replace('_', '-')}" for name in OF_STOCK if not getattr(settings, name)]
    if off and stock is not None and not settings.artifacts_only:
        log.say(f"  off        what {', '.join(off)} turn on; --enable-all: all of it")
    if settings.audit_table and not settings.protected:
        log.say(
            "--audit-table is set, but this server asks nobody who they are and keeps no audit log: --auth", "WARNING"
        )
    log.say(f"  next step  export MLFLOW_TRACKING_URI={settings.url}")
    if settings.insecure_no_auth:
        log.say(
            "  ANYBODY who reaches this address may read, change and delete everything (--insecure-no-auth)", "WARNING"
        )
