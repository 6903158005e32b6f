"""Clients that log metrics without a pause and, like MLflow's client, repeat what was not acknowledged."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import requests

from tests.support.databases import Database
from tests.support.processes import wait_until

# What MLflow's client repeats (mlflow/utils/request_utils.py).
RETRIED = {408, 429, 500, 502, 503, 504}
RETRY_PAUSE_SECONDS = 0.1
GIVE_UP_SECONDS = 60
LOG_METRIC = "/api/2.0/mlflow/runs/log-metric"


class Point(NamedTuple):
    """A metric's value; ordered as latest_metrics is: by step, then timestamp, then value."""

    step: int
    timestamp: int
    value: float


class Client(threading.Thread):
    """Logs one metric of one run, each point once it has the answer to the one before."""

    def __init__(
        self, url: str, run_id: str, key: str, number: int, stopping: threading.Event, headers: dict[str, str]
    ) -> None:
        super().__init__(daemon=True)
        self.run_id = run_id
        self.key = key
        self.acknowledged: list[Point] = []
        # (status, Retry-After) of each answer that asked to try again
        self.refusals: list[tuple[int, str | None]] = []
        self.failure: str | None = None
        self._address = url.removeprefix("http://")
        self._number = number
        self._stopping = stopping
        self._headers = {"Content-Type": "application/json", **headers}
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        for point in self._points():
            if self._stopping.is_set() or not self._acknowledge(point):
                break
            self.acknowledged.append(point)
        self._disconnect()

    def _points(self) -> Iterator[Point]:
        """No two the same, of all clients; steps go up and down, so that the last one is rarely the latest."""
        count = 0
        while True:
            count += 1
            step = count if count % 3 else count // 2
            yield Point(step, timestamp=1000 + count % 7, value=float(count * 1000 + self._number))

    def _acknowledge(self, point: Point) -> bool:
        """Send a point until it is accepted. Other answers end this client."""
        body = json.dumps({"run_id": self.run_id, "key": self.key, **point._asdict()})
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                status, retry_after, text = self._post(body)
            except (OSError, http.client.HTTPException):
                self._disconnect()
                time.sleep(RETRY_PAUSE_SECONDS)
                continue
            if status == 200:
                return True
            if status not in RETRIED:
                self.failure = f"{status}: {text}"
                return False
            self.refusals.append((status, retry_after))
            time.sleep(RETRY_PAUSE_SECONDS)
        self.failure = f"{point} was not acknowledged within {GIVE_UP_SECONDS} s"
        return False

    def _post(self, body: str) -> tuple[int, str | None, str]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=60)
        self._connection.request("POST", LOG_METRIC, body, self._headers)
        response = self._connection.getresponse()
        return response.status, response.headers["Retry-After"], response.read().decode(errors="replace")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Load:
    """Running clients."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients

    def wait_for_progress(self, points: int = 20) -> None:
        """Wait until every client has that many more points acknowledged."""
        goals = [len(client.acknowledged) + points for client in self.clients]

        def reached() -> bool:
            assert not self.failures(), self.failures()
            return all(len(c.acknowledged) >= goal for c, goal in zip(self.clients, goals, strict=True))

        wait_until(reached, f"every client logs {points} more points", 2 * GIVE_UP_SECONDS)

    def failures(self) -> list[str]:
        return [client.failure for client in self.clients if client.failure]


@contextmanager
def load(url: str, clients: int = 32, runs: int = 16, token: str = "") -> Iterator[Load]:
    """Clients that log until the block ends; two of them share a run and its metric."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    run_ids = [create_run(url, headers) for _ in range(runs)]
    stopping = threading.Event()
    running = [Client(url, run_ids[n % runs], f"metric {n % 2}", n, stopping, headers) for n in range(clients)]
    for client in running:
        client.start()
    try:
        yield Load(running)
    finally:
        stopping.set()
        for client in running:
            client.join(2 * GIVE_UP_SECONDS)


def assert_all_there(database: Database, load: Load) -> None:
    """Every acknowledged point is in the database once, nothing else of its runs is, and latest_metrics is right."""
    assert not load.failures()
    assert not any(client.is_alive() for client in load.clients)
    expected: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for client in load.clients:
        expected[client.run_id, client.key] += client.acknowledged
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    runs = {client.run_id for client in load.clients}
    for row in database.query("SELECT run_uuid, key, step, timestamp, value FROM metrics"):
        if row["run_uuid"] in runs:
            found[row["run_uuid"], row["key"]].append(Point(row["step"], row["timestamp"], row["value"]))
    assert {metric: sorted(points) for metric, points in found.items()} == {
        metric: sorted(points) for metric, points in expected.items()
    }
    latest = {
        (row["run_uuid"], row["key"]): Point(row["step"], row["timestamp"], row["value"])
        for row in database.query("SELECT run_uuid, key, step, timestamp, value FROM latest_metrics")
        if row["run_uuid"] in runs
    }
    assert latest == {metric: max(points) for metric, points in expected.items()}


def create_run(url: str, headers: Mapping[str, str] | None = None) -> str:
    """A new run's id."""
    body = {"experiment_id": "0", "start_time": 1}
    answer = requests.post(f"{url}/api/2.0/mlflow/runs/create", json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    run_id: str = answer.json()["run"]["info"]["run_id"]
    return run_id
