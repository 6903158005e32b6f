"""What is measured. A workload is added here: a subclass with its row of the table, and an entry in WORKLOADS."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar

from bench import api, check, limits, load, sqlite_limits
from bench.check import Point
from bench.databases import KINDS, Database
from bench.dataset import Dataset
from bench.peers import REPOSITORY
from bench.process import clean_environment
from bench.rows import AtMost, Ratio, Row


@dataclass(frozen=True)
class Effort:
    """How long one measurement takes, in seconds, and how many runs and metrics the counted workloads have."""

    seconds: float = 2.0
    warm_up: float = 0.5
    batches: int = 100
    client_metrics: int = 500


@dataclass(frozen=True)
class Measurement:
    """One round's value in the row's unit, more figures about it, and what was found wrong."""

    value: float
    detail: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """What a workload is let loose on. `experiment_id`: where it may log to; `dataset`: what there is to be read."""

    port: int
    family: str
    database: Database | None
    experiment_id: str = ""
    dataset: Dataset | None = None

    @property
    def answers_anything(self) -> bool:
        """The bare app: it keeps nothing, so that there is nothing to prepare or to check."""
        return self.database is None


class Workload(ABC):
    """`families`: who takes part, `kinds`: on which databases; `row`: how it is shown and what it must reach."""

    row: Row
    kinds: ClassVar[tuple[str, ...]] = KINDS
    families: ClassVar[frozenset[str]] = frozenset({"headrace", "stock", "fasttrackml"})

    @abstractmethod
    def measure(self, server: Server, effort: Effort) -> Measurement:
        """Load the server once, and check what it answered and stored."""

    def measure_raw(self, database: Database, effort: Effort) -> Measurement:
        """The same rows written to the database without a server; only for those with the family `raw`."""
        raise NotImplementedError


def create_runs(server: Server, count: int) -> list[str]:
    """Create runs, eight at a time, and return their ids."""
    if server.answers_anything:
        return [uuid.uuid4().hex for _ in range(count)]
    requests = iter([(number, new_run(server, f"bench-{number}")) for number in range(count)])
    outcome = load.run(server.port, [requests] * 8, seconds=120)
    if len(outcome.answers) != count:
        raise api.ApiFailure(f"{count - len(outcome.answers)} of {count} runs/create failed: {outcome.failures[:1]}")
    return [json.loads(body)["run"]["info"]["run_id"] for _, body in outcome.answers]


def new_run(server: Server, name: str) -> bytes:
    """A runs/create as the client's start_run sends it."""
    tags = {"mlflow.user": "bench", "mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL"}
    content = {
        "experiment_id": server.experiment_id,
        "user_id": "bench",
        "run_name": name,
        "start_time": now(),
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    return api.post("runs/create", content)


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def latency(outcome: load.Outcome[Any], faults: list[str]) -> Measurement:
    """The median latency in ms."""
    return _measurement(statistics.median(outcome.latencies or [float("inf")]) * 1000, outcome, faults)


def rate(outcome: load.Outcome[Any], faults: list[str]) -> Measurement:
    """Answers a second."""
    return _measurement(outcome.rate, outcome, faults)


def _measurement(value: float, outcome: load.Outcome[Any], faults: list[str]) -> Measurement:
    if outcome.failures:
        _, status, body = outcome.failures[0]
        first = f"first: {status} {body[:120].decode(errors='replace')}"
        faults = [*faults, f"{len(outcome.failures)} requests failed ({first})"]
    return Measurement(value, percentiles(outcome.latencies), faults)


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Figures beside the value: how many, and the latencies' percentiles in ms."""
    if not latencies:
        return {"requests": 0}
    ordered = sorted(latencies)
    figures = {f"p{p}_ms": ordered[min(len(ordered) * p // 100, len(ordered) - 1)] * 1000 for p in (50, 99)}
    return {"requests": len(ordered), **figures}


def _limits(database: Database) -> ModuleType:
    return {"postgresql": limits, "sqlite": sqlite_limits}[database.kind]


class LogMetric(Workload):
    """runs/log-metric over some connections; each walks over all runs in an order of its own.

    So a run has several writers at a time, as in distributed training.
    """

    def __init__(self, connections: int, row: Row, families: frozenset[str]) -> None:
        self.connections = connections
        self.row = row
        self.families = families  # type: ignore[misc]

    def measure(self, server: Server, effort: Effort) -> Measurement:
        runs = create_runs(server, self.connections)
        steps = itertools.count(1_000_000)  # of one width, so that requests of a run have one length
        base = now()
        streams = [self._stream(runs, steps, base, seed) for seed in range(self.connections)]
        outcome = load.run(server.port, streams, effort.seconds, effort.warm_up)
        faults = []
        if server.database:
            acknowledged = [_point(*token, base) for token, _ in outcome.answers]
            sent = [_point(*token, base) for token, _, _ in outcome.failures]
            faults = check.metrics(server.database, server.port, acknowledged, sent)
        return (latency if self.row.unit == "ms" else rate)(outcome, faults)

    def _stream(
        self, runs: list[str], steps: Iterator[int], base: int, seed: int
    ) -> Iterator[tuple[tuple[str, int], bytes]]:
        order = random.Random(seed).sample(runs, len(runs))
        templates = [(run_id, self._template(run_id)) for run_id in order]
        for run_id, template in itertools.cycle(templates):
            step = next(steps)
            yield (run_id, step), template % (step, base + step, step)

    @staticmethod
    def _template(run_id: str) -> bytes:
        body = '{"run_uuid": "%s", "key": "loss", "value": %%07d.5, "timestamp": %%013d, "step": %%07d, "run_id": "%s"}'
        text = body % (run_id, run_id)
        example = text % (1_000_000, now(), 1_000_000)
        return api.request("POST", "runs/log-metric", example.encode()).partition(b"{")[0] + text.encode()

    def measure_raw(self, database: Database, effort: Effort) -> Measurement:
        latencies = _limits(database).one_row_commits(database, effort.seconds)
        return Measurement(statistics.median(latencies) * 1000, percentiles(latencies))


def _point(run_id: str, step: int, base: int) -> Point:
    return (run_id, "loss", step + 0.5, base + step, step)


class LogBatchMetrics(Workload):
    """runs/log-batch of 1,000 metrics, 100 keys at 10 steps each, to one run, over one connection."""

    families = frozenset({"headrace", "stock", "fasttrackml", "raw"})
    row = Row(
        "log-batch-1000",
        "log-batch of 1,000 metrics, one connection",
        "ms",
        (Ratio("stock", 6), Ratio("fasttrackml", 1.4), Ratio("raw", 0.7)),
        on_sqlite=(Ratio("stock", 10), Ratio("raw", None)),
    )

    def measure(self, server: Server, effort: Effort) -> Measurement:
        [run_id] = create_runs(server, 1)
        stream = ((points, log_batch(run_id, points, {}, {})) for points in self._batches(run_id))
        outcome = load.run(server.port, [stream], effort.seconds, effort.warm_up)
        assert server.database is not None
        acknowledged = [point for points, _ in outcome.answers for point in points]
        sent = [point for points, _, _ in outcome.failures for point in points]
        return latency(outcome, check.metrics(server.database, server.port, acknowledged, sent))

    @staticmethod
    def _batches(run_id: str) -> Iterator[list[Point]]:
        base = now()
        for first in itertools.count(0, 10):
            yield [
                (run_id, f"layer_{key}/gradient_norm", step + key / 128, base + step, step)
                for step in range(first, first + 10)
                for key in range(100)
            ]

    def measure_raw(self, database: Database, effort: Effort) -> Measurement:
        latencies = _limits(database).raw_inserts(database, self._batches(""), effort.seconds)
        return Measurement(statistics.median(latencies) * 1000, percentiles(latencies))


def log_batch(run_id: str, points: list[Point], params: dict[str, str], tags: dict[str, str]) -> bytes:
    """A runs/log-batch as the client sends it."""
    content = {
        "run_id": run_id,
        "metrics": [{"key": p[1], "value": p[2], "timestamp": p[3], "step": p[4]} for p in points],
        "params": [{"key": key, "value": value} for key, value in params.items()],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    return api.post("runs/log-batch", content)


class LogBatchNewRuns(Workload):
    """runs/log-batch of 100 params, 20 tags and 100 metrics, each to a new run, over one connection."""

    families = frozenset({"headrace", "stock", "fasttrackml", "raw"})
    row = Row(
        "log-batch-new-runs",
        "log-batch of 100 params, 20 tags, 100 metrics, new runs",
        "ms",
        (Ratio("stock", 6), Ratio("fasttrackml", 3), Ratio("raw", None)),
        on_sqlite=(Ratio("stock", 1), Ratio("raw", None)),
    )
    params: ClassVar = {f"model.layers.{number}.units": str(number * 16) for number in range(100)}
    tags: ClassVar = {f"team.tag-{number}": f"value {number}" for number in range(20)}

    def measure(self, server: Server, effort: Effort) -> Measurement:
        batches = [self._points(run) for run in create_runs(server, effort.batches)]
        requests = [(batch, log_batch(batch[0][0], batch, self.params, self.tags)) for batch in batches]
        outcome = load.run(server.port, [iter(requests)], effort.seconds + effort.warm_up)
        assert server.database is not None
        done = [batch for batch, _ in outcome.answers]
        faults = check.metrics(server.database, server.port, [point for batch in done for point in batch])
        faults += check.parameters_and_tags(server.port, {batch[0][0]: (self.params, self.tags) for batch in done})
        return latency(outcome, faults)

    def measure_raw(self, database: Database, effort: Effort) -> Measurement:
        latencies = _limits(database).raw_new_runs(database, self._points(""), self.params, self.tags, effort.seconds)
        return Measurement(statistics.median(latencies) * 1000, percentiles(latencies))

    @staticmethod
    def _points(run_id: str) -> list[Point]:
        at = now()
        return [(run_id, f"validation/metric_{number}", number + 0.25, at, 0) for number in range(100)]


class CreateRuns(Workload):
    row = Row(
        "runs-create",
        "runs/create, 8 connections",
        "requests/s",
        (Ratio("stock", 12), Ratio("fasttrackml", 3)),
        on_sqlite=(Ratio("stock", 1),),
    )

    def measure(self, server: Server, effort: Effort) -> Measurement:
        names = (f"bench-{number:06}" for number in itertools.count())
        requests = ((name, new_run(server, name)) for name in names)
        outcome = load.run(server.port, [requests] * 8, effort.seconds, effort.warm_up)
        assert server.database is not None
        return rate(outcome, check.created_runs(server.database, {body: name for name, body in outcome.answers}))


class GetRuns(Workload):
    """runs/get of 8 runs with 30 metrics and 30 params each, over 8 connections."""

    row = Row(
        "runs-get",
        "runs/get, 8 connections (30 metrics, 30 params)",
        "requests/s",
        (Ratio("stock", 8), Ratio("fasttrackml", None)),
        on_sqlite=(Ratio("stock", 1),),
    )

    def measure(self, server: Server, effort: Effort) -> Measurement:
        runs = create_runs(server, 8)
        params = {f"param_{number}": f"value {number}" for number in range(30)}
        base = now()
        expected = {}
        for run_id in runs:
            points: list[Point] = [(run_id, f"metric_{n}", n + 0.5, base, 1) for n in range(30)]
            load.run(server.port, [iter([(run_id, log_batch(run_id, points, params, {}))])], seconds=60)
            expected[run_id] = check.newest(points)
        streams = [itertools.repeat((run_id, api.request("GET", api.get_run_path(run_id)))) for run_id in runs]
        outcome = load.run(server.port, streams, effort.seconds, effort.warm_up)
        wrong = 0
        for run_id, body in set(outcome.answers):  # equal answers once
            run = json.loads(body)["run"]
            right = check.latest_values(run) == expected[run_id] and check.pairs(run["data"], "params") == params
            wrong += run["info"]["run_id"] != run_id or not right
        return rate(outcome, [f"{wrong} different answers were wrong"] if wrong else [])


class PlainClient(Workload):
    """A process with mlflow-skinny that logs metrics one by one; the time that the log calls take."""

    families = frozenset({"headrace", "stock", "fasttrackml", "bare"})
    row = Row(
        "client-500",
        "a plain client (mlflow-skinny) logging 500 metrics one by one",
        "s",
        (Ratio("stock", 2), Ratio("fasttrackml", 2), Ratio("bare", 1 / 1.7)),
        on_sqlite=(Ratio("stock", 1),),
    )

    def measure(self, server: Server, effort: Effort) -> Measurement:
        [run_id] = create_runs(server, 1)
        python = REPOSITORY / ".venv-bench-client" / "bin" / "python"
        program = REPOSITORY / "bench" / "client.py"
        uri = f"http://127.0.0.1:{server.port}"
        printed = subprocess.run(
            [python, "-P", program, uri, run_id, str(effort.client_metrics)],
            env=clean_environment({}),
            check=True,
            stdout=subprocess.PIPE,
            timeout=300,
        ).stdout
        said = json.loads(printed)
        faults = []
        if server.database:
            points: list[Point] = [(run_id, "loss", value, at, step) for step, at, value in said["points"]]
            faults = check.metrics(server.database, server.port, points)
        return Measurement(said["seconds"] * 500 / effort.client_metrics, {}, faults)


WORKLOADS: tuple[Workload, ...] = (
    LogMetric(
        32,
        Row(
            "log-metric-32",
            "log-metric, 32 connections over 32 runs",
            "requests/s",
            (Ratio("stock", 35), Ratio("fasttrackml", 10), Ratio("bare", 0.35)),
            on_sqlite=(Ratio("stock", 10),),
        ),
        frozenset({"headrace", "stock", "fasttrackml", "bare"}),
    ),
    LogMetric(
        1,
        Row(
            "log-metric-1",
            "log-metric, one connection, p50",
            "ms",
            (Ratio("stock", 5), Ratio("fasttrackml", 3), Ratio("bare+raw", 0.5)),
            on_sqlite=(Ratio("stock", 1),),
        ),
        frozenset({"headrace", "stock", "fasttrackml", "bare", "raw"}),
    ),
    LogBatchMetrics(),
    LogBatchNewRuns(),
    CreateRuns(),
    GetRuns(),
    PlainClient(),
)

# The rows of the start-up measurements (bench/startup.py).
READY = Row("ready", "/health answers after the start, initialised database", "s", (AtMost(1), Ratio("stock", None)))
MEMORY_LAZY = Row(
    "memory-lazy", "process tree after start, stock not started", "MB", (AtMost(80), Ratio("stock", None))
)
MEMORY = Row("memory", "process tree after start, with stock running", "MB", (AtMost(350), Ratio("stock", None)))
