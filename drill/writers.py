"""Clients that write without a pause, repeat what was not answered as MLflow's client does, and keep what was
acknowledged; and what is in the database of it in the end.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import requests
from tests.support.databases import Database
from tests.support.load import RETRIED
from tests.support.processes import wait_until
from tests.unit.traces.spans import body, span

from drill.outcome import Outcome

PAUSE_SECONDS = 0.05
GIVE_UP_SECONDS = 60.0
API = "/api/2.0/mlflow/"
BATCH = 50
SPANS = 3
SIZES = (1_000, 100_000, 1_000_000, 12_000_000)  # the last one is sent to S3 in parts


class Writer(threading.Thread, ABC):
    """One kind of write, one after the other. `acknowledged` are its keys, `times` when each was; `refused`: so many
    answers asked to come again."""

    kind: ClassVar[str]

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.number, self._stopping = url, number, stopping
        self.acknowledged: list[Any] = []
        self.times: list[tuple[float, float]] = []  # sent, acknowledged
        self.unanswered: list[str] = []
        self.refused = 0
        self._session = requests.Session()

    def run(self) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            since = time.monotonic()
            if self.acknowledge(count):
                self.times.append((since, time.monotonic()))

    @abstractmethod
    def acknowledge(self, count: int) -> bool:
        """Send one and keep its key."""

    def post(self, path: str, json: Any = None, data: bytes | None = None, **headers: str) -> Any:
        """The answer's JSON; None when it was given up, or refused, which `unanswered` then says."""
        answer = self.answered("POST", path, data, json, headers)
        if answer is None:
            return None
        return answer.json() if answer.content and not data else {}

    def answered(
        self, method: str, path: str, data: bytes | None = None, json: Any = None, headers: Any = None
    ) -> requests.Response | None:
        """The 200 that it gets in the end; None when it was given up, or refused, which `unanswered` then says."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        said = ""
        while time.monotonic() < deadline:
            try:
                answer = self._session.request(
                    method, self.url + path, data=data, json=json, headers=headers, timeout=30
                )
            except requests.RequestException as error:
                said = type(error).__name__
            else:
                if answer.status_code == 200:
                    return answer
                said = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in RETRIED:
                    break
                self.refused += 1
            time.sleep(PAUSE_SECONDS)
        self.unanswered.append(f"{self.kind}: {said}")
        return None

    @staticmethod
    @abstractmethod
    def count(database: Database, writers: Sequence[Any], outcome: Outcome) -> None:
        """Add to the outcome what of the acknowledged is lost, doubled or wrong."""


class OfARun(Writer):
    """Writes to a run of its own."""

    run_id = ""

    def run(self) -> None:
        if made := self.post(API + "runs/create", {"experiment_id": "0", "start_time": 1}):
            self.run_id = made["run"]["info"]["run_id"]
            super().run()


class Metrics(OfARun):
    """log-metric: each value once, whatever was repeated."""

    kind = "log-metric"

    def acknowledge(self, count: int) -> bool:
        point = {"run_id": self.run_id, "key": "m", "value": count, "timestamp": count, "step": count}
        if self.post(API + "runs/log-metric", point) is None:
            return False
        self.acknowledged.append(count)
        return True

    @staticmethod
    def count(database: Database, writers: Sequence[Metrics], outcome: Outcome) -> None:
        _count_metrics(database, {each.run_id: each.acknowledged for each in writers if each.run_id}, outcome)


class Batches(OfARun):
    """log-batch of 50 metrics, a param and a tag: all or nothing."""

    kind = "log-batch"

    def acknowledge(self, count: int) -> bool:
        steps = range(count * BATCH, (count + 1) * BATCH)
        batch = {
            "run_id": self.run_id,
            "metrics": [{"key": "m", "value": step, "timestamp": step, "step": step} for step in steps],
            "params": [{"key": f"p{count}", "value": str(count)}],
            "tags": [{"key": "last", "value": str(count)}],
        }
        if self.post(API + "runs/log-batch", batch) is None:
            return False
        self.acknowledged.append(count)
        return True

    @staticmethod
    def count(database: Database, writers: Sequence[Batches], outcome: Outcome) -> None:
        runs = {each.run_id: each.acknowledged for each in writers if each.run_id}
        steps = {run: [s for c in counts for s in range(c * BATCH, (c + 1) * BATCH)] for run, counts in runs.items()}
        _count_metrics(database, steps, outcome)
        params: dict[str, set[str]] = {}
        for row in database.query("SELECT run_uuid, value FROM params"):
            params.setdefault(row["run_uuid"], set()).add(row["value"])
        for run, counts in runs.items():
            outcome.lost += len(set(map(str, counts)) - params.get(run, set()))


class Traces(Writer):
    """A trace of three spans in one request of OTLP."""

    kind = "/v1/traces"

    def acknowledge(self, count: int) -> bool:
        trace_id = os.urandom(16)
        ids = [bytes([number + 1]) * 8 for number in range(SPANS)]
        spans = [span(trace_id=trace_id, span_id=own, parent_id=ids[0] if n else b"") for n, own in enumerate(ids)]
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
        if self.post("/v1/traces", data=body(*spans), **headers) is None:
            return False
        self.acknowledged.append(f"tr-{trace_id.hex()}")
        return True

    @staticmethod
    def count(database: Database, writers: Sequence[Traces], outcome: Outcome) -> None:
        rows = database.query("SELECT trace_id, count(*) AS spans FROM spans GROUP BY trace_id")
        spans = {row["trace_id"]: row["spans"] for row in rows}
        infos = {row["request_id"] for row in database.query("SELECT request_id FROM trace_info WHERE status = 'OK'")}
        for trace_id in (trace_id for each in writers for trace_id in each.acknowledged):
            outcome.lost += trace_id not in spans or trace_id not in infos
            outcome.wrong += spans.get(trace_id, SPANS) != SPANS


class Versions(Writer):
    """A version of a model of its own, and an alias on it. One whose answer was lost is made again, as another."""

    kind = "model-versions/create"

    def acknowledge(self, count: int) -> bool:
        name = f"model {self.number}"
        if count == 1:
            self.post(API + "registered-models/create", {"name": name})
        made = self.post(API + "model-versions/create", {"name": name, "source": f"s3://bucket/{count}"})
        if made is None:
            return False
        version = made["model_version"]["version"]
        self.acknowledged.append((name, int(version), f"s3://bucket/{count}"))
        return self.post(API + "registered-models/alias", {"name": name, "alias": "a", "version": version}) is not None

    @staticmethod
    def count(database: Database, writers: Sequence[Versions], outcome: Outcome) -> None:
        rows = database.query("SELECT name, version, source FROM model_versions")
        found = {(row["name"], row["version"]): row["source"] for row in rows}
        for name, version, source in (key for each in writers for key in each.acknowledged):
            outcome.lost += (name, version) not in found
            outcome.wrong += found.get((name, version), source) != source
        outcome.doubled += len(rows) - len(found)


class Files(Writer):
    """An artifact of 1 kB to 12 MB, uploaded and read back at once by another request."""

    kind = "artifacts"

    def acknowledge(self, count: int) -> bool:
        path = f"/api/2.0/mlflow-artifacts/artifacts/drill/{self.number}/{count}"
        content = os.urandom(SIZES[(count + self.number) % len(SIZES)]) + str(count).encode()
        if not self.answered("PUT", path, content):
            return False
        found = self.answered("GET", path)
        self.acknowledged.append(found is not None and found.content == content)
        return True

    @staticmethod
    def count(database: Database, writers: Sequence[Files], outcome: Outcome) -> None:
        """Each was read back when it was acknowledged."""
        outcome.wrong += sum(each.acknowledged.count(False) for each in writers)


KINDS: tuple[type[Writer], ...] = (Metrics, Batches, Traces, Versions)


class Writing:
    """Writers at work."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = writers

    def total(self) -> int:
        return sum(len(each.acknowledged) for each in self.writers)

    def refused(self) -> int:
        """How many answers have asked to come again."""
        return sum(each.refused for each in self.writers)

    def wait_for_progress(self, writes: int = 50) -> None:
        """Wait until that many more are acknowledged."""
        goal = self.total() + writes
        wait_until(lambda: self.total() > goal, "writes go on")

    def back_after(self, fault: float, seconds: float = GIVE_UP_SECONDS) -> float:
        """Wait until a write that was sent after `fault` (time.monotonic) is acknowledged; how long that took."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            first = [
                next((done for sent, done in reversed(each.times[-50:]) if sent >= fault), None)
                for each in self.writers
            ]
            if found := [done for done in first if done is not None]:
                return min(found) - fault
            time.sleep(0.02)
        return seconds

    def count(self, database: Database, outcome: Outcome) -> None:
        outcome.acknowledged += self.total()
        kinds: tuple[type[Writer], ...] = (*KINDS, Files)
        for kind in kinds:
            kind.count(database, [each for each in self.writers if isinstance(each, kind)], outcome)
        gone = [text for each in self.writers for text in each.unanswered]
        outcome.unanswered += len(gone)
        outcome.notes += sorted(set(gone))[:3]


@contextmanager
def writing(url: str, each_kind: int = 8, kinds: Sequence[type[Writer]] = KINDS) -> Iterator[Writing]:
    """Writers until the block ends."""
    stopping = threading.Event()
    writers = [kind(url, number, stopping) for number in range(each_kind) for kind in kinds]
    for each in writers:
        each.start()
    try:
        yield Writing(writers)
    finally:
        stopping.set()
        for each in writers:
            each.join(2 * GIVE_UP_SECONDS)


def _count_metrics(database: Database, wanted: dict[str, list[int]], outcome: Outcome) -> None:
    found: dict[str, list[int]] = {}
    for row in database.query("SELECT run_uuid, step, value FROM metrics"):
        found.setdefault(row["run_uuid"], []).append(row["step"])
        outcome.wrong += row["value"] != row["step"]
    latest = {row["run_uuid"]: row["step"] for row in database.query("SELECT run_uuid, step FROM latest_metrics")}
    for run, steps in wanted.items():
        there = found.get(run, [])
        outcome.lost += len(set(steps) - set(there))
        outcome.doubled += len(there) - len(set(there))
        outcome.wrong += bool(there) and latest.get(run) != max(there)
