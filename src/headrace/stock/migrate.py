"""A process that makes or upgrades MLflow's tables with MLflow's own code, configured through headrace.child; it reads
the configuration of trace archival, too."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from headrace import child
from headrace.stock.passwords import let_engines_try_each


def main() -> None:
    """Do one `action` (initialise, upgrade) on the store of one `role` (tracking, registry), or read the file of
    `archival`, and end."""
    parent = child.Parent()
    configuration = parent.read_configuration()
    parent.when_gone(lambda: os._exit(1))
    with child.importing():
        let_engines_try_each()
    try:
        _act(configuration)
    except Exception as error:  # MLflow's, SQLAlchemy's, alembic's, a driver's: what is wrong with the database
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(1)


def _act(configuration: dict[str, Any]) -> None:
    if configuration["action"] == "archival":
        from mlflow.tracing.trace_archival_config import load_trace_archival_server_config

        load_trace_archival_server_config(configuration["file"])
        return
    uri: str = configuration["uri"]
    _connect(uri, configuration["wait"])
    if configuration["action"] == "upgrade":
        upgrade(uri)
    elif configuration["role"] == "registry":
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore

        RegistryStore(uri)
    else:
        # The whole store, as stock's server opens it: it makes the experiment "Default", too.
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, configuration["default_artifact_root"])


def _connect(uri: str, wait: float) -> None:
    """Return when the database can be reached, or raise after `wait` seconds: MLflow itself tries for 100."""
    from mlflow.store.db import utils
    from sqlalchemy.exc import SQLAlchemyError

    deadline, said = time.monotonic() + wait, False
    while True:
        engine = utils.create_sqlalchemy_engine(uri)
        try:
            engine.connect().close()
        except SQLAlchemyError as error:
            if time.monotonic() >= deadline:
                raise
            if not said:
                print(
                    f"{' '.join(str(error).split())} Waiting for it, {wait:g} s at most.", file=sys.stderr, flush=True
                )
            said = True
            time.sleep(1)
        else:
            return
        finally:
            engine.dispose()


def upgrade(uri: str) -> None:
    """What `mlflow db upgrade` does (mlflow/db.py)."""
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(uri)
    if utils._is_empty_database(engine):
        utils._initialize_tables(engine)
    else:
        utils._upgrade_db(engine)


if __name__ == "__main__":
    main()
