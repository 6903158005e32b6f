"""The stock process: `uvicorn mlflow.server.fastapi_app:app` on a Unix socket.

MLflow is imported here, in stock/jobs.py and in stock/migrate.py, nowhere else, and is not changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import warnings
from typing import Any

import msgspec

from headrace import child
from headrace.errors import HeadraceError
from headrace.settings import Settings
from headrace.stock.app import AsSeenByWorker, WhereJobsRun, name_sender
from headrace.stock.database_errors import tell_less
from headrace.stock.jobs import JobRunner
from headrace.stock.passwords import let_engines_try_each


def share_engine(uris: set[str]) -> None:
    """Let the stores of runs, of models and of jobs in one database have one pool of connections, not one each.

    Their classes keep an engine for each URI; where a later MLflow has no such table, they have a pool each again.
    """
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

    for uri in uris:
        engine = create_sqlalchemy_engine(uri)
        for store in (TrackingStore, RegistryStore, SqlAlchemyJobStore):
            engines: dict[str, Any] = getattr(store, "_engine_map", {})
            engines.setdefault(uri, engine)


def keep_webhook_key(settings: Settings) -> None:
    """Let the secrets of webhooks be encrypted with a key that the next process, and the next server, has, too.

    MLflow makes one for each process, where no variable has one: with the next no webhook can be read any more.
    """
    from headrace.db import connected
    from headrace.events.store import KEY_VARIABLE, EventStore

    async def key() -> str:
        async with connected(settings) as database:
            return await EventStore(database).key()

    if os.environ.get(KEY_VARIABLE):
        return
    try:
        os.environ[KEY_VARIABLE] = asyncio.run(key())
    except HeadraceError as error:
        print(f"webhooks with a secret can't be read by the next process: {error} Set {KEY_VARIABLE}.", file=sys.stderr)


def main() -> None:
    """Run until SIGTERM, or until the parent ends."""
    parent = child.Parent()
    configuration = parent.read_configuration()
    os.environ.update(configuration["stock"])
    path: str = configuration["socket"]

    if configuration["database"] is not None:  # before MLflow is imported, which makes a key of its own otherwise
        keep_webhook_key(msgspec.convert(configuration["database"], Settings))

    def gone() -> None:
        child.remove_runtime_directory(os.path.dirname(path))
        os._exit(0)

    parent.when_gone(gone)
    debug = configuration["log_level"] == "debug"
    if not debug:
        warnings.simplefilter("ignore")  # MLflow's own, of no use to who runs it
    with child.importing():
        import uvicorn
        from mlflow.server import app as flask_app
        from mlflow.server.fastapi_app import app
        from sqlalchemy.engine import Engine

    flask_app.before_request(name_sender)
    jobs: JobRunner | None = None
    if configuration["jobs"] is not None:
        os.makedirs(os.environ["_MLFLOW_HUEY_STORAGE_PATH"], mode=0o700, exist_ok=True)
        jobs = JobRunner(configuration["jobs"])
    let_engines_try_each()
    tell_less(Engine)
    stores = {configuration["stock"][f"_MLFLOW_SERVER_{kind}_STORE"] for kind in ("FILE", "REGISTRY")}
    share_engine({uri for uri in stores if uri.startswith("postgresql")})

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if jobs is not None:
                jobs.start()
            parent.ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if jobs is not None:
                jobs.end()
            await super().shutdown(sockets)

    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    config = uvicorn.Config(
        AsSeenByWorker(app if jobs is None else WhereJobsRun(app, jobs)),
        uds=path,
        log_level="debug" if debug else "warning",
        access_log=debug,
        proxy_headers=False,  # done in our worker
        server_header=False,
        date_header=False,
        timeout_keep_alive=3600,  # the forwarder closes idle connections first
        timeout_graceful_shutdown=int(configuration["shutdown_timeout"]),
    )
    Server(config).run()


if __name__ == "__main__":
    main()
