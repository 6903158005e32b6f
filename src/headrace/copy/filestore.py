"""`python -m headrace.copy.filestore FILE`: a folder of runs as a SQLite file, by MLflow's own code.

Standard input says, as JSON, which folder (`source`). It is what `mlflow migrate-filestore` runs, in a process that
ends with it. That one fails at a point that was logged twice, which a file store has as soon as a model is logged in
a run; here it is taken once, as a database has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any


def main(file: str) -> None:
    """Make the database. Raises what MLflow does of a folder that it can't read."""
    folder = json.load(sys.stdin)["source"]
    from mlflow.store.fs2db import migrate
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def once(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return statement.replace("INSERT INTO metrics ", "INSERT OR IGNORE INTO metrics ", 1), parameters

    with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing):
        migrate(Path(folder), f"sqlite:///{file}", progress=False)
    with contextlib.closing(sqlite3.connect(file)) as database:
        _find_moved(database, Path(folder))


def _find_moved(database: sqlite3.Connection, folder: Path) -> None:
    """Where the folder has been moved to another place, or machine, say where its artifacts are now."""
    for number, location in database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
        here = next((each for each in folder.glob(f"**/{number}") if (each / "meta.yaml").is_file()), None)
        if here is None or not location or Path(location.removeprefix("file://")).is_dir():
            continue
        now = str(here.resolve())
        for table, column in (
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("experiments", "artifact_location"),
        ):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE experiment_id = ?",  # noqa: S608
                (location, now, number),
            )
        for column in ("source", "storage_location"):
            database.execute(f"UPDATE model_versions SET {column} = replace({column}, ?, ?)", (location, now))  # noqa: S608
    database.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
