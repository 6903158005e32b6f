"""Logging of runs while spans come to the same process: `python -m bench.beside`, on PostgreSQL.

Round by round metrics are logged to one server: alone, while traces of ten spans (those of bench.traces) come to it at
a steady rate from a process of their own, and while they come to a second server on the same database. The last tells
what the machine's cores and the database have to share anyway; the first two together what it is to the client. More
than 5 % less than alone at the first rate is a failure. What comes as fast as the server takes it is shown, too: there
the cores are shared out, and nobody's goal.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bench import api, load, traces
from bench.databases import Databases
from bench.growth import serve
from bench.machine import facts
from bench.process import ServerProcess
from bench.turns import BIN, Subject, fill

ROUNDS, SECONDS = 9, 1.0
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


def _round(runs: _Runs, ports: Sequence[int], rate: int, connections: int, number: int) -> tuple[float, ...]:
    """Metrics a second alone, and beside traces to each of the ports: in another order each time, as tables grow."""

    def measured(port: int | None) -> float:
        with nullcontext() if port is None else _ingestion(port, rate):
            return runs.rate(connections)

    ways = [None, *ports]
    order = ways[number % len(ways) :] + ways[: number % len(ways)]
    rates = {port: measured(port) for port in order}
    return tuple(rates[port] for port in ways)


def main(arguments: Sequence[str]) -> int:
    """Print the table; 1 where logging is slowed by more than it may be."""
    argparse.ArgumentParser(prog="bench.beside", description=__doc__).parse_args(arguments)  # --help
    missed = 0
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        experiments = traces.fill(1)[:1]
        databases = Databases(folder / "databases", str(BIN / "mlflow"), lambda database: fill(database, experiments))
        print(facts(folder))
        servers: list[ServerProcess] = []
        try:
            subject = Subject("headrace", databases.create("postgresql", "beside", migrated=True), folder / "server")
            servers.append(subject.server)
            servers.append(serve(subject.database.uri, folder))
            ports = [server.port for server in servers]
            runs = _Runs(ports[0])
            for rate, connections in itertools.product(RATES, CONNECTIONS):
                rounds = [_round(runs, ports, rate, connections, number) for number in range(ROUNDS)]
                alone, beside, elsewhere = (statistics.median(values) for values in zip(*rounds, strict=True))
                ratio = statistics.median(beside / alone for alone, beside, _ in rounds)
                process = statistics.median(beside / elsewhere for _, beside, elsewhere in rounds)
                goal = f" (at least {LEAST})" if rate == RATES[0] else ""
                missed += bool(goal) and ratio < LEAST
                what = f"{rate} traces/s" if rate else "as many traces as there can be"
                print(
                    f"log-metric, {connections} connections: {alone:.0f}/s alone, {beside:.0f}/s beside {what},"
                    f" {ratio:.3f}{goal}; {elsewhere:.0f}/s while another server takes them, {process:.3f} of that",
                    flush=True,
                )
        finally:
            for server in servers:
                server.stop()
            databases.stop()
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
