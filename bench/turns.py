"""Servers on copies of the same data, turn by turn: Headrace against the best of stock's set-ups, a line a row.

`python -m bench.registry` and `python -m bench.traces` are such tables.
"""

from __future__ import annotations

import math
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench import load
from bench.databases import KINDS, Database, Databases, run
from bench.machine import facts
from bench.process import ServerProcess, cpu_seconds, descendants, free_port

BIN = Path(sys.executable).parent
ROUNDS = 3
SECONDS = 3.0
# of half a second each, until all rest
_MOST_PAUSES = 120
SUBJECTS = {
    "headrace": ("headrace", "serve", "--stock", "lazy"),
    "stock, 1 worker": ("mlflow", "server", "--workers", "1"),
    "stock, 4 workers": ("mlflow", "server", "--workers", "4"),
}


@dataclass(frozen=True)
class Row:
    """`at_least`: so many times as fast as stock's best. `latency`: the p50 counts, else answers a second.

    `limit`: how often a second the database itself does the same, of which Headrace must reach `share`.
    """

    title: str
    connections: int
    request: Callable[[int], bytes]
    right: Callable[[bytes], bool]
    at_least: float
    latency: bool = False
    limit: Callable[[Database, float], float] | None = None
    share: float = 0.0

    def measure(self, subject: Subject, seconds: float) -> float:
        """Answers a second, or the p50 in ms."""
        outcome = load.run(subject.server.port, [self._stream(subject) for _ in range(self.connections)], seconds, 1)
        outcome.check()
        subject.answered[self.title] += len(outcome.answers)
        if not all(self.right(load.decode(body)) for body in {body for _, body in outcome.answers[-200:]}):
            raise RuntimeError(f"a wrong answer to {self.title}")
        # no answer within the time is none in any time
        return statistics.median(outcome.latencies or [math.inf]) * 1000 if self.latency else outcome.rate

    def _stream(self, subject: Subject) -> Iterator[tuple[int, bytes]]:
        while True:
            subject.number += 1
            yield subject.number, self.request(subject.number)


@dataclass(frozen=True)
class Task:
    """What a client does, which measures itself. `run`: with a server's port and seconds; the median in ms.

    `limit`: what it takes without a server, of which Headrace's time must not be more than 1 / `share`.
    """

    title: str
    run: Callable[[int, float], float]
    at_least: float
    latency: bool = True
    limit: Callable[[Database, float], float] | None = None
    share: float = 0.0

    def measure(self, subject: Subject, seconds: float) -> float:
        return self.run(subject.server.port, seconds)


def client(module: str, *rest: object) -> float:
    """What a client says that it measured, as its last word. `rest`: what it takes, then a port and seconds.

    It tells nobody else about it: MLflow's telemetry is off, as the servers' is.
    """
    command = [sys.executable, "-m", module, *map(str, rest)]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


class Subject:
    """A running server."""

    def __init__(self, name: str, database: Database, folder: Path) -> None:
        port = free_port()
        program, *options = SUBJECTS[name]
        uri = database.uri if program == "headrace" else database.sqlalchemy_uri
        command = [str(BIN / program), *options, "--port", str(port), "--backend-store-uri", uri]
        self.name, self.database = name, database
        # how many answers there were to each row
        self.answered: Counter[str] = Counter()
        self.server = ServerProcess(
            command, port, folder, {"MLFLOW_MODEL_CATALOG_URI": "", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        )
        self.server.wait_ready()
        # of the last request
        self.number = 0

    def send(self, requests: Sequence[bytes]) -> None:
        """Send them, one after the other. Raises RuntimeError where one is not answered with 200."""
        outcome = load.run(self.server.port, [enumerate(requests)], seconds=60)
        outcome.check()


def fill(database: Database, statements: Sequence[str]) -> None:
    """Run the statements, which both databases understand."""
    if database.kind == "sqlite":
        with closing(sqlite3.connect(database.uri.removeprefix("sqlite:///"))) as connection, connection:
            for statement in statements:
                connection.execute(statement)
    else:
        run(_fill_postgres(database.uri, statements))


async def _fill_postgres(uri: str, statements: Sequence[str]) -> None:
    connection = await asyncpg.connect(uri)
    try:
        for statement in (*statements, "VACUUM ANALYZE"):
            await connection.execute(statement)
    finally:
        await connection.close()


@dataclass(frozen=True)
class Table:
    """The rows of a bench. `fill`: statements that make the data; `prepare` is called with each server before all rows,
    and `check` with each after them."""

    rows: Sequence[Row | Task]
    fill: Sequence[str]
    prepare: Callable[[Subject], None] = lambda _: None
    check: Callable[[Subject], None] = lambda _: None


def compare(table: Table, kinds: Sequence[str] = KINDS, rounds: int = ROUNDS, seconds: float = SECONDS) -> int:
    """Print the table; 1 where Headrace is not as fast as it must be."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        databases = Databases(folder / "databases", str(BIN / "mlflow"), lambda database: fill(database, table.fill))
        print(facts(folder))
        try:
            for kind in kinds:
                missed += _measure(table, kind, databases, folder, rounds, seconds)
        finally:
            databases.stop()
    return 1 if missed else 0


def _settle(roots: Sequence[int]) -> None:
    """Wait until these processes and their descendants rest: stock answers while its other workers are still importing,
    and PostgreSQL's autovacuum still works on the rows of the row before."""

    def busy() -> float:
        return sum(cpu_seconds(descendants(root)) for root in roots)

    for _ in range(_MOST_PAUSES):
        before = busy()
        time.sleep(0.5)
        if busy() - before < 0.05:
            return


def _measure(table: Table, kind: str, databases: Databases, folder: Path, rounds: int, seconds: float) -> int:
    """Print the rows of a kind of database; how many miss their target."""
    subjects: list[Subject] = []
    try:
        for number, each in enumerate(SUBJECTS):
            database = databases.create(kind, f"subject{number}", migrated=True)
            subjects.append(Subject(each, database, folder / f"{kind}{number}"))
            table.prepare(subjects[-1])
        missed = 0
        for row in table.rows:
            _settle([*(subject.server.pid for subject in subjects), databases.postgres.pid])
            found: dict[str, list[float]] = {subject.name: [] for subject in subjects}
            limits: list[float] = []
            for _ in range(rounds):
                for subject in subjects:
                    found[subject.name].append(row.measure(subject, seconds))
                if row.limit is not None and kind == "postgresql":
                    limits.append(row.limit(subjects[0].database, seconds))
            ours, *stocks = (statistics.median(values) for values in found.values())
            times = min(stocks) / ours if row.latency else ours / max(stocks)
            needed = row.at_least if kind == "postgresql" else 1
            missed += times < needed
            unit = "ms" if row.latency else "/s"
            figures = "  ".join(f"{value:8.2f} {unit}" for value in (ours, *stocks))
            print(f"{kind:10} {row.title:47} {figures}  {times:5.1f} x (at least {needed:g})", flush=True)
            if limits:
                limit = statistics.median(limits)
                reached = limit / ours if row.latency else ours / limit
                missed += reached < row.share
                most = min(stocks) / limit if row.latency else limit / max(stocks)
                share = f"{reached:.0%} of the limit (at least {row.share:.0%}), which is {most:.1f} x stock's best"
                print(f"{kind:10} {'  the same without a server':47} {limit:8.2f} {unit}  {share}", flush=True)
        for subject in subjects:
            table.check(subject)
        return missed
    finally:
        for subject in subjects:
            subject.server.stop()
