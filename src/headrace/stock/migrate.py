"""A process that makes or upgrades MLflow's tables with MLflow's own code, configured through headrace.child."""

from __future__ import annotations

import os

from headrace import child


def main() -> None:
    """Do one `action` (initialise, upgrade) on the store of one `role` (tracking, registry), and end."""
    parent = child.Parent()
    configuration = parent.read_configuration()
    parent.when_gone(lambda: os._exit(1))
    uri: str = configuration["uri"]
    if configuration["action"] == "upgrade":
        upgrade(uri)
    elif configuration["role"] == "registry":
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore

        RegistryStore(uri)
    else:
        # The whole store, as stock's server opens it: it makes the experiment "Default", too.
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, configuration["default_artifact_root"])


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
