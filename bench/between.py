"""What a pooler and more servers add: `python -m bench.between`, on PostgreSQL, turn by turn.

One server logs straight into the database and one through PgBouncer in transaction mode, which is to reach 90 %. Then
the same 32 clients log over one, two and three servers on one database.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

from tests.support.databases import Databases as Migrated
from tests.support.load import create_run
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres

from bench import api, load
from bench.growth import serve
from bench.machine import facts
from bench.process import ServerProcess

ROUNDS, SECONDS, CLIENTS = 12, 1.0, 32
Requests: TypeAlias = Callable[[str], Iterator[tuple[int, bytes]]]


def one_by_one(run_id: str) -> Iterator[tuple[int, bytes]]:
    for step in itertools.count():
        yield (
            step,
            api.post("runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": 1, "step": step}),
        )


def in_batches(run_id: str) -> Iterator[tuple[int, bytes]]:
    for number in itertools.count():
        steps = range(number * 1_000, (number + 1) * 1_000)
        metrics = [{"key": "m", "value": 1, "timestamp": 1, "step": step} for step in steps]
        yield number, api.post("runs/log-batch", {"run_id": run_id, "metrics": metrics})


def reads(run_id: str) -> Iterator[tuple[int, bytes]]:
    for number in itertools.count():
        yield number, api.request("GET", api.get_run_path(run_id))


def rate(requests: Requests, seconds: float, clients: int, port: int) -> float:
    """Answers a second over so many connections, each with a new run."""
    streams = [requests(create_run(f"http://127.0.0.1:{port}")) for _ in range(clients)]
    outcome = load.run(port, streams, seconds, warm_up=0.2)
    outcome.check()
    return outcome.rate


def pooled(direct: ServerProcess, through: ServerProcess) -> None:
    for name, requests, clients in (
        (f"log-metric, {CLIENTS} connections", one_by_one, CLIENTS),
        ("log-metric, 1 connection", one_by_one, 1),
        ("log-batch of 1,000, 1 connection", in_batches, 1),
        ("runs/get, 1 connection", reads, 1),
    ):
        rounds = []
        for number in range(ROUNDS):
            pair = {each.port: 0.0 for each in ((direct, through) if number % 2 else (through, direct))}
            pair |= {port: rate(requests, SECONDS, clients, port) for port in pair}
            rounds.append((pair[direct.port], pair[through.port]))
        told(name, rounds)


def beside(servers: Sequence[ServerProcess]) -> None:
    with ProcessPoolExecutor(len(servers)) as clients:
        rounds = []
        for _ in range(ROUNDS):
            rates = []
            for count in range(1, len(servers) + 1):
                ask = partial(rate, one_by_one, SECONDS, CLIENTS // count)
                rates.append(sum(clients.map(ask, [each.port for each in servers[:count]])))
            rounds.append(tuple(rates))
    told(f"log-metric, {CLIENTS} connections over 1, 2 and 3 servers", rounds)


def told(name: str, rounds: Sequence[tuple[float, ...]]) -> None:
    """Print the medians, and the median of each round's ratios to its first figure."""
    rates = [statistics.median(column) for column in zip(*rounds, strict=True)]
    ratios = [[value / each[0] for value in each[1:]] for each in rounds]
    columns = list(zip(*ratios, strict=True))
    shown = "; ".join(f"{statistics.median(each):.3f} ({min(each):.2f} to {max(each):.2f})" for each in columns)
    print(f"| {name} | {', '.join(f'{value:,.0f}/s' for value in rates)} | {shown} |", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    argparse.ArgumentParser(prog="bench.between", description=__doc__).parse_args(arguments)  # --help
    postgres = Postgres()
    servers: list[ServerProcess] = []
    pooler: PgBouncer | None = None
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        try:
            postgres.start()
            database = Migrated(postgres, folder, folder).migrated("postgresql")
            pooler = PgBouncer(postgres, "transaction")
            pooler.start()
            servers.append(serve(database.uri, folder))
            servers.append(serve(pooler.uri(database.name), folder))
            print(facts(folder))
            pooled(*servers)
            servers.pop().stop()
            servers += [serve(database.uri, folder) for _ in range(2)]
            beside(servers)
        finally:
            for each in servers:
                each.stop()
            if pooler is not None:
                pooler.remove()
            postgres.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
