"""--database-connections is never exceeded: stock, the workers and the index builder together, whatever clients do."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from typing import Any

import requests

from tests.server.conftest import Serve, Serving
from tests.support.databases import Database, Databases
from tests.support.servers import PASSED_THROUGH, STOCK_SECONDS

CLIENTS = 500


class Watch(threading.Thread):
    """How many connections of others the database has had at once, looked at all the time."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._ended = threading.Event()
        self.most = 0

    def run(self) -> None:
        with self._database.connect() as connection:
            while not self._ended.is_set():
                connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")  # else a transaction sees the first one
                rows = connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
                self.most = max(self.most, rows.scalar_one())

    def end(self) -> int:
        self._ended.set()
        self.join()
        return self.most


async def ask(server: Serving, connection: tuple[Any, Any], path: str, body: object = None) -> int:
    """The status of the answer, which is read to its end."""
    reader, writer = connection
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: localhost\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(answer.split()[1])


async def storm(server: Serving, run_id: str) -> tuple[Counter[int], list[float]]:
    """Each client logs, reads, searches, and some ask stock for something, all at the same time."""
    statuses: Counter[int] = Counter()
    times = []
    host, port = server.url.removeprefix("http://").split(":")

    async def client(number: int) -> None:
        connection = await asyncio.open_connection(host, int(port))
        metric = {"run_id": run_id, "key": "m", "value": number, "timestamp": 1, "step": number}
        requests: list[tuple[str, object]] = [
            ("/api/2.0/mlflow/runs/log-metric", metric),
            (f"/api/2.0/mlflow/runs/get?run_id={run_id}", None),
            ("/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]}),
        ]
        if number % 10 == 0:
            requests.append((PASSED_THROUGH, None))
        for path, body in requests:
            since = time.monotonic()
            statuses[await ask(server, connection, path, body)] += 1
            times.append(time.monotonic() - since)
        connection[1].close()

    await asyncio.gather(*map(client, range(CLIENTS)))
    return statuses, sorted(times)


def test_500_clients(databases: Databases, serve: Serve) -> None:
    workers, budget = 2, 8
    database = databases.migrated("postgresql")
    watch = Watch(database)
    watch.start()
    options = ("--workers", str(workers), "--database-connections", str(budget), "--stock-wait", str(STOCK_SECONDS))
    server = serve("--backend-store-uri", database.uri, *options, until=PASSED_THROUGH)
    created = requests.post(f"{server.url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, timeout=60)
    statuses, times = asyncio.run(storm(server, created.json()["run"]["info"]["run_id"]))
    assert 2 <= watch.end() <= budget
    assert statuses.keys() == {200}
    assert len(times) == CLIENTS * 3 + CLIENTS // 10
    print(f"{budget} connections: p50 {times[len(times) // 2]:.2f} s, p99 {times[-len(times) // 100]:.2f} s")
