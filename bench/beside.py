"""Logging of runs while spans come to the same process: `python -m bench.beside`, on PostgreSQL.

One server, round by round: metrics are logged alone, then while traces of ten spans (those of bench.traces) come at a
steady rate from a process of their own. More than 5 % less at the first rate is a failure. What comes as fast as the
server takes it is shown, too: there the machine's cores are shared out, and nobody's goal.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import api, load, traces
from bench.databases import Databases
from bench.machine import facts
from bench.turns import BIN, Subject, fill

ROUNDS, SECONDS = 5, 1.5
CONNECTIONS = (1, 8)
# traces a second; 50 are what stock takes at its best (docs/traces.md), 0: one after the other, over 8 connections
RATES = (50, 200, 0)
LEAST = 0.95


def _send(port: int, rate: int) -> None:
    """Traces, each when its time has come; ends with an error where one is not taken."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        for number in itertools.count():
            if rate:
                time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            connection.sendall(traces.export(os.urandom(16)))
            answer = connection.recv(65_536)  # it has no body
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a trace was answered with {answer[:200]!r}")


@contextmanager
def _ingestion(port: int, rate: int) -> Iterator[None]:
    senders = [multiprocessing.Process(target=_send, args=(port, rate)) for _ in range(1 if rate else 8)]
    try:
        for sender in senders:
            sender.start()
        yield
        if not all(sender.is_alive() for sender in senders):
            raise RuntimeError("traces were refused")
    finally:
        for sender in senders:
            sender.terminate()
            sender.join()


class _Runs:
    """Clients that log metrics, each to a run of its own."""

    def __init__(self, port: int) -> None:
        self._port, self._step = port, itertools.count()
        asked = {"experiment_id": "0"}
        self._ids = [
            api.call(port, "POST", "runs/create", asked)["run"]["info"]["run_id"] for _ in range(max(CONNECTIONS))
        ]

    def _stream(self, run_id: str) -> Iterator[tuple[int, bytes]]:
        for step in self._step:
            point = {"run_id": run_id, "key": "loss", "value": 0.5, "timestamp": 1_700_000_000_000, "step": step}
            yield step, api.post("runs/log-metric", point)

    def rate(self, connections: int) -> float:
        """Metrics a second."""
        streams = [self._stream(run_id) for run_id in self._ids[:connections]]
        outcome = load.run(self._port, streams, SECONDS, warm_up=0.3)
        outcome.check()
        return outcome.rate


def _round(runs: _Runs, port: int, rate: int, connections: int, number: int) -> tuple[float, float]:
    """Metrics a second alone and beside traces: now these first and now those, since the tables grow meanwhile."""

    def beside() -> float:
        with _ingestion(port, rate):
            return runs.rate(connections)

    if number % 2:
        second = beside()
        return runs.rate(connections), second
    return runs.rate(connections), beside()


def main() -> int:
    """Print the table; 1 where logging is slowed by more than it may be."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        experiments = traces.fill(1)[:1]
        databases = Databases(folder / "databases", str(BIN / "mlflow"), lambda database: fill(database, experiments))
        print(facts(folder))
        try:
            subject = Subject("headrace", databases.create("postgresql", "beside", migrated=True), folder / "server")
            try:
                port = subject.server.port
                runs = _Runs(port)
                for rate, connections in itertools.product(RATES, CONNECTIONS):
                    rounds = [_round(runs, port, rate, connections, number) for number in range(ROUNDS)]
                    alone, beside = (statistics.median(values) for values in zip(*rounds, strict=True))
                    ratio = statistics.median(beside / alone for alone, beside in rounds)
                    goal = f" (at least {LEAST})" if rate == RATES[0] else ""
                    missed += bool(goal) and ratio < LEAST
                    what = f"{rate} traces/s" if rate else "as many traces as there can be"
                    print(
                        f"log-metric, {connections} connections: {alone:.0f}/s alone, {beside:.0f}/s beside {what},"
                        f" {ratio:.3f}{goal}",
                        flush=True,
                    )
            finally:
                subject.server.stop()
        finally:
            databases.stop()
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
