"""Where drills take place: a PostgreSQL of their own, fresh databases, servers that end with the drill."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.server.conftest import Serving
from tests.support.databases import Database, Databases
from tests.support.postgres import Postgres
from tests.support.processes import Process, free_port
from tests.support.servers import SCRIPTS


class Field:
    """`long`: the drill may take its time; without it all of them take five minutes together.

    `judges_times`: a write that is acknowledged later than promised is a failure. `seed`: which requests are generated.
    """

    def __init__(self, folder: Path, long: bool, judges_times: bool, seed: int, stack: ExitStack) -> None:
        self.folder, self.long, self.judges_times, self.seed, self._stack = folder, long, judges_times, seed, stack
        self.postgres = Postgres()
        stack.callback(self.postgres.remove)
        self.postgres.start()
        self._databases = Databases(self.postgres, folder, folder)

    def database(self) -> Database:
        return self._databases.migrated("postgresql")

    def sqlite(self) -> Database:
        return self._databases.migrated("sqlite")

    def serve(
        self,
        database: Database,
        *options: str,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Serving:
        """A ready `headrace serve` without stock; `under`: the command that starts it."""
        port = port or free_port()
        folder = self.folder / f"server-{port}"
        folder.mkdir(exist_ok=True)
        command: list[str | Path] = [*under, SCRIPTS / "headrace", "serve", "--port", str(port), "--stock", "never"]
        stores = ["--backend-store-uri", database.uri, "--artifacts-destination", str(folder / "artifacts")]
        process = Process([*command, *stores, *options], folder / "log", cwd=folder, env=env)
        server = Serving(f"http://127.0.0.1:{port}", process)
        process.wait_until(lambda: server.answers("/ready"), "Headrace answers")
        self._stack.callback(server.stop)
        return server


@contextmanager
def opened(long: bool, judges_times: bool, seed: int) -> Iterator[Field]:
    folder = Path(tempfile.mkdtemp(prefix="headrace-drill-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Field(folder, long, judges_times, seed, stack)
