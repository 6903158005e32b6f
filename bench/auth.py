"""What auth costs: `python -m bench auth` measures log-metric with tokens beside the same server without auth.

Both run on PostgreSQL, turn by turn; each connection of the guarded one has a token of its own. Printed are the ratio
of the rates (at least 0.9 is the goal), the CPU time of the workers a request, and what one connection waits (p50).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import api, load
from bench.databases import Database, Postgres
from bench.process import ServerProcess, clean_environment, cpu_seconds, free_port

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 3.0
HEADRACE = Path(sys.executable).with_name("headrace")


class Subject:
    """A running server and the requests of its clients. `tokens`: one a client, none where it asks nobody."""

    def __init__(self, name: str, database: Database, folder: Path, guarded: bool) -> None:
        self.name = name
        self.tokens: list[str] = []
        store = ["--backend-store-uri", database.uri]
        port = free_port()
        command = [str(HEADRACE), "serve", "--port", str(port), "--stock", "lazy", *store]
        self.server = ServerProcess([*command, *(["--auth"] if guarded else [])], port, folder, {})
        self.server.wait_ready()
        if guarded:
            _headrace("user", "add", "bench", "--role", "editor", "--no-password", *store)
            self.tokens = [_headrace("user", "token", "bench", *store) for _ in range(CONNECTIONS)]
        requests = [iter([(number, self._with_token(_new_run(), number))]) for number in range(CONNECTIONS)]
        made = load.run(port, requests, seconds=60).answers
        self.runs = [json.loads(body)["run"]["info"]["run_id"] for _, body in made]

    def measure(self, connections: int) -> tuple[float, float, float]:
        """Requests a second, seconds of the workers' CPU a request, and the p50 in seconds."""
        pids = [pid for pid in self.server.tree() if _is_worker(pid)]
        before = cpu_seconds(pids)
        streams = [self._stream(number) for number in range(connections)]
        outcome = load.run(self.server.port, streams, SECONDS, warm_up=0.5)
        if outcome.failures:
            raise api.ApiFailure(f"{len(outcome.failures)} failed: {outcome.failures[0]}")
        spent = cpu_seconds(pids) - before
        return outcome.rate, spent / len(outcome.answers), statistics.median(outcome.latencies)

    def _stream(self, number: int) -> Iterator[tuple[int, bytes]]:
        run_id, start = self.runs[number], time.time_ns() // 1_000_000
        for step in itertools.count(1):
            content = {"run_id": run_id, "key": "loss", "value": step / 2, "timestamp": start + step, "step": step}
            yield step, self._with_token(api.post("runs/log-metric", content), number)

    def _with_token(self, request: bytes, number: int) -> bytes:
        if not self.tokens:
            return request
        head, _, rest = request.partition(b"\r\n")
        return head + b"\r\nAuthorization: Bearer " + self.tokens[number].encode() + b"\r\n" + rest


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    argparse.ArgumentParser(prog="bench.auth", description=__doc__).parse_args(arguments)  # --help
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        postgres = Postgres(folder / "postgres")
        subjects: list[Subject] = []
        try:
            for kind in ("open", "guarded"):
                database = postgres.create(kind)
                _headrace("db", "create", database.uri)
                subjects.append(Subject(kind, database, folder / kind, guarded=kind == "guarded"))
            for connections in (CONNECTIONS, 1):
                _report(connections, subjects)
        finally:
            for subject in subjects:
                subject.server.stop()
            postgres.stop()
    return 0


def _report(connections: int, subjects: Sequence[Subject]) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {subject.name: [] for subject in subjects}
    for turn in range(ROUNDS):
        for subject in subjects if turn % 2 else reversed(subjects):
            found[subject.name].append(subject.measure(connections))
    print(f"{connections} connections, medians of {ROUNDS} rounds")
    for name, values in found.items():
        rate, cpu, wait = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"  {name:8} {rate:8,.0f} /s  {cpu * 1e6:6.1f} us of CPU a request  p50 {wait * 1000:.3f} ms")
    ratios = [guarded[0] / opened[0] for opened, guarded in zip(found["open"], found["guarded"], strict=True)]
    print(f"  with auth: {statistics.median(ratios):.0%} of the rate")


def _new_run() -> bytes:
    return api.post("runs/create", {"experiment_id": "0", "start_time": 1})


def _is_worker(pid: int) -> bool:
    return b"headrace.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _headrace(*arguments: str) -> str:
    done = subprocess.run([HEADRACE, *arguments], env=clean_environment({}), capture_output=True, text=True, check=True)
    return done.stdout.strip()
