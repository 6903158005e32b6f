"""What Prometheus is told: counted in each worker, kept in files that all workers share, answered by any of them.

The files (prometheus-client's multi-process mode) are in the server's runtime directory, or where --expose-prometheus
says. What was counted by a worker that has died still counts; its gauges go with it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.access_log import AccessLog
from headrace.api.endpoint import Endpoint, Router
from headrace.asgi.protocol import ANSWER, CLIENT_GONE, Answer
from headrace.asgi.responses import ERROR_ID, NATIVE
from headrace.asgi.types import BEGAN, MATCH, OBSERVED, Application, Headers, Receive, Scope, Send
from headrace.asgi.types import Message as AsgiMessage
from headrace.db.database import Database
from headrace.db.group_commit import Group
from headrace.settings import Settings
from headrace.versions import installed_version

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
REFRESH_SECONDS = 1.0
MOST_NOTES = 512  # 0.3 ms to put together
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_WRITES = (1, 2, 4, 8, 16, 32, 64, 128, 512)


class Observations:
    """Values since the files got them: how many in each bucket of a histogram (the last one: larger), and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def number(self) -> int:
        return sum(self._counts)

    def give(self, histogram: Histogram) -> None:
        """What observe() does, for many at once."""
        for bucket, count in zip(histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        histogram._sum.inc(self._sum)
        self._counts, self._sum = [0] * len(self._counts), 0.0


def _told(method: str) -> str:
    """A label: never a client's own text."""
    return method if method in _METHODS else "other"


def _seconds() -> Observations:
    return Observations(_SECONDS)


class Families:
    """What the files have, by prometheus-client."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self.requests: Counter = prometheus.Counter(
            "headrace_requests_total",
            "Requests answered, by endpoint, status and who answered: native or stock.",
            ("method", "endpoint", "status", "answered_by"),
        )
        self.of_stock: Counter = prometheus.Counter(
            "headrace_stock_requests_total",
            "Requests that only stock can answer, by route; without stock they are answered 501.",
            ("method", "endpoint"),
        )
        self.seconds: Histogram = prometheus.Histogram(
            "headrace_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("endpoint",),
            buckets=_SECONDS,
        )
        self.in_flight: Gauge = prometheus.Gauge(
            "headrace_requests_in_flight", "Requests that are being answered.", multiprocess_mode="livesum"
        )
        self.artifacts: Gauge = prometheus.Gauge(
            "headrace_artifacts_in_flight",
            "Artifacts on their way through this server, by method: GET downloads, PUT and POST upload.",
            ("method",),
            multiprocess_mode="livesum",
        )
        for method in ("GET", "PUT", "POST"):
            self.artifacts.labels(method).set(0)
        self.group_writes: Histogram = prometheus.Histogram(
            "headrace_group_commit_writes", "Writes that shared a commit.", buckets=_WRITES
        )
        self.group_wait: Histogram = prometheus.Histogram(
            "headrace_group_commit_wait_seconds",
            "Seconds that the first write of a group waited for its turn.",
            buckets=_SECONDS,
        )
        self.group_seconds: Histogram = prometheus.Histogram(
            "headrace_group_commit_seconds", "Seconds that a group took until it was durable.", buckets=_SECONDS
        )
        self.queue: Gauge = prometheus.Gauge(
            "headrace_queue_writes", "Writes that wait for the database.", multiprocess_mode="livesum"
        )
        self.connections: Gauge = prometheus.Gauge(
            "headrace_database_connections",
            "The workers' connections to PostgreSQL: open, and idle among them.",
            ("state",),
            multiprocess_mode="livesum",
        )
        self.stock: Gauge = prometheus.Gauge(
            "headrace_stock_running", "1 while stock MLflow takes requests.", multiprocess_mode="livemax"
        )
        self.memory: Gauge = prometheus.Gauge(
            "headrace_worker_resident_memory_bytes", "A worker's resident memory.", multiprocess_mode="liveall"
        )
        self.files: Gauge = prometheus.Gauge(
            "headrace_worker_open_fds", "A worker's open file descriptors.", multiprocess_mode="liveall"
        )
        self.cpu: Counter = prometheus.Counter("headrace_cpu_seconds_total", "Processor seconds of the workers.")
        information: Gauge = prometheus.Gauge(
            "headrace_info", "1, with the versions.", ("version", "mlflow", "python"), multiprocess_mode="livemax"
        )
        python = ".".join(map(str, sys.version_info[:3]))
        information.labels(installed_version("headrace"), installed_version("mlflow"), python).set(1)


class Metrics:
    """What a worker counts. Once a second the files get it."""

    def __init__(self, settings: Settings) -> None:
        self.directory = directory_of(settings)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = self.directory  # before anything imports prometheus_client
        self._stock_socket = settings.stock_socket
        self.under_way = 0
        self.artifacts_under_way: Counts[str] = Counts()
        # by method, the endpoint's declared path, status, and who answered
        self.answered: defaultdict[tuple[str, str, int, str], Observations] = defaultdict(_seconds)
        # of a handler's answers: which endpoint, status, seconds. Put together later, when nobody waits
        self.answered_whole: list[tuple[Endpoint, int, float]] = []
        self._whole: defaultdict[tuple[Endpoint, int], Observations] = defaultdict(_seconds)
        self._groups: list[Group] = []
        self._of_stock: Counts[tuple[str, str]] = Counts()
        self._writes, self._waits, self._commits = Observations(_WRITES), _seconds(), _seconds()
        self._cpu_before = 0.0
        self._refreshing: asyncio.Task[None] | None = None

    @cached_property
    def _families(self) -> Families:
        """Made after the start, of which they would be a tenth."""
        return Families()

    def start(self, database: Database | None) -> None:
        """Look at what is not counted from now on."""
        if database is not None:
            database.observe_groups(self._groups.append)
        self._refreshing = asyncio.create_task(self._keep_refreshing(database))

    def stop(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()

    def put_together(self) -> None:
        """What was noted of each answer and group, so that the notes don't grow."""
        for endpoint, status, seconds in self.answered_whole:
            self._whole[endpoint, status].add(seconds)
        self.answered_whole.clear()
        for writes, waited, took in self._groups:
            self._writes.add(writes)
            self._waits.add(waited)
            self._commits.add(took)
        self._groups.clear()

    def of_stock(self, method: str, path: str) -> None:
        """A request goes to stock; `path`: the endpoint's declared one."""
        self._of_stock[_told(method), path] += 1

    def render(self) -> bytes:
        """All workers' metrics in Prometheus's text format."""
        from prometheus_client import generate_latest

        return generate_latest(registry_of(self.directory))

    async def _keep_refreshing(self, database: Database | None) -> None:
        await asyncio.sleep(REFRESH_SECONDS)  # the start does not wait for it
        await asyncio.to_thread(importlib.import_module, "prometheus_client")
        while True:
            self.refresh(database)
            await asyncio.sleep(REFRESH_SECONDS)

    def refresh(self, database: Database | None) -> None:
        """Look once, and give the files what was counted."""
        families = self._families
        answered, self.answered = self.answered, defaultdict(_seconds)
        for (method, path, status, by), seconds in answered.items():
            self._give(method, path or "other", status, by, seconds)  # never a client's own text, which has no end
        of_stock, self._of_stock = self._of_stock, Counts()
        for (method, path), number in of_stock.items():
            families.of_stock.labels(method, path or "other").inc(number)
        self.put_together()
        whole, self._whole = self._whole, defaultdict(_seconds)
        for (endpoint, status), seconds in whole.items():
            self._give(endpoint.method, endpoint.path, status, "native", seconds)
        self._writes.give(families.group_writes)
        self._waits.give(families.group_wait)
        self._commits.give(families.group_seconds)
        families.in_flight.set(self.under_way)
        for method, number in self.artifacts_under_way.items():
            families.artifacts.labels(method).set(number)
        if database is not None:
            load = database.load()
            families.queue.set(load.queue)
            families.connections.labels("open").set(load.connections)
            families.connections.labels("idle").set(load.idle)
        families.stock.set(os.path.exists(self._stock_socket))
        cpu = time.process_time()
        families.cpu.inc(cpu - self._cpu_before)
        self._cpu_before = cpu
        if os.path.exists("/proc/self/statm"):
            families.memory.set(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            families.files.set(len(os.listdir("/proc/self/fd")))

    def _give(self, method: str, endpoint: str, status: int, by: str, seconds: Observations) -> None:
        self._families.requests.labels(method, endpoint, status, by).inc(seconds.number)
        seconds.give(self._families.seconds.labels(endpoint))


class Observed:
    """An ASGI application around all others: nothing is answered that it does not count.

    Counted in dictionaries, which the files get once a second: for the files a request would pay 15 us more. A handler
    of a declaration answers in one piece, of which the server tells (`OBSERVED`): no coroutine more for the usual
    request. By cachegrind log-metric's share of this is 6,000 instructions of 184,000, and was 13,000 with one.
    """

    def __init__(self, app: Application, metrics: Metrics, router: Router, log: AccessLog | None) -> None:
        self._app, self._metrics, self._find, self._log = app, metrics, router.find, log

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        method = scope["method"]
        match = scope[MATCH] = self._find(method, scope["path"])
        scope[BEGAN] = time.perf_counter()
        if match.endpoint.handler is None or method == "HEAD" or ANSWER not in scope.get("extensions", ()):
            return self._watch(self._app, scope, receive, send)
        self._metrics.under_way += 1
        scope[OBSERVED] = self
        return self._app(scope, receive, send)

    def answered(self, scope: Scope, status: int, headers: Headers, body: bytes) -> None:
        """The server has sent a whole answer, or has nobody to send it to."""
        seconds = time.perf_counter() - scope[BEGAN]
        metrics = self._metrics
        metrics.under_way -= 1
        metrics.answered_whole.append((scope[MATCH].endpoint, status, seconds))
        if len(metrics.answered_whole) == MOST_NOTES:
            metrics.put_together()
        if self._log is not None:
            error = dict(headers).get(ERROR_ID, b"").decode() if status >= 500 else ""
            self._log.write(scope, status, len(body), seconds, "native", error)

    def watch(self, app: Application, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let another application answer, in pieces, a request that was to be answered whole."""
        del scope[OBSERVED]
        self._metrics.under_way -= 1
        return self._watch(app, scope, receive, send)

    async def _watch(self, app: Application, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, send)
        metrics = self._metrics
        method = _told(scope["method"])
        is_artifact = "artifact" in scope["path"]
        metrics.under_way += 1
        if is_artifact:
            metrics.artifacts_under_way[method] += 1
        try:
            await app(scope, receive, exchange.send)
        finally:
            seconds = time.perf_counter() - scope[BEGAN]
            metrics.under_way -= 1
            if is_artifact:
                metrics.artifacts_under_way[method] -= 1
            metrics.answered[method, scope[MATCH].endpoint.path, exchange.status, exchange.by].add(seconds)
            if self._log is not None:
                self._log.write(scope, exchange.status, exchange.sent, seconds, exchange.by, exchange.error)


class Exchange:
    """What is seen of an answer. `status` 499: the client went away before there was one. `by`: native or stock."""

    __slots__ = ("_send", "by", "error", "send_whole", "sent", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self.status, self.by, self.sent, self.error = CLIENT_GONE, "native", 0, ""
        extensions = scope.get("extensions")
        if extensions and ANSWER in extensions:
            self.send_whole: Answer = extensions[ANSWER]
            extensions[ANSWER] = self._answer

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.sent = status, len(body)
        if status >= 500:
            self.error = dict(headers).get(ERROR_ID, b"").decode()
        self.send_whole(status, headers, body)

    async def send(self, message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name == NATIVE[0]:
                    self.by = value.decode()
                elif name == ERROR_ID:
                    self.error = value.decode()
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)


def registry_of(directory: str) -> CollectorRegistry:
    """What all workers have counted; without the gauges of those that have died."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    for pid in {path.stem.rpartition("_")[2] for path in Path(directory).glob("gauge_live*_*.db")}:
        if not os.path.exists(f"/proc/{pid}") and os.path.exists("/proc/self"):
            mark_process_dead(int(pid), directory)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return registry


def directory_of(settings: Settings) -> str:
    """Where the workers' files are."""
    return settings.expose_prometheus or os.path.join(os.path.dirname(settings.stock_socket), "metrics")
