"""`python -m tests.support.stock_tables URI [REVISION]`: MLflow's tables in an empty database, by stock's own code.

As its server makes them, with the first rows; or those of an older revision, by its migrations.
"""

from __future__ import annotations

import sys

from headrace.child import importing


def main(uri: str, revision: str = "") -> None:
    with importing():
        from mlflow.store.db import utils
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if not revision:
        SqlAlchemyStore(uri, "mlflow-artifacts:/")
        return
    from alembic import command
    from mlflow.store.tracking.dbmodels import initial_models

    engine = utils.create_sqlalchemy_engine_with_retry(uri)
    initial_models.Base.metadata.create_all(engine)
    command.upgrade(utils._get_alembic_config(uri), revision)


if __name__ == "__main__":
    main(*sys.argv[1:])
