"""`python -m bench page`: the experiment's page of MLflow's UI in Chromium, from Headrace and from stock.

What is measured: the bytes over the wire (heads and bodies, as Chromium counts them) and the seconds until the first
run's name is visible, with an empty browser cache and then with what the first visit left in it.
"""

from __future__ import annotations

import datetime
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser

from bench import api, chromium, machine
from bench.databases import Database, Databases
from bench.peers import BY_NAME, REPOSITORY, Peer, make_environment

RESULTS = REPOSITORY / "bench" / "results" / "page.json"
PEERS = {
    # to a browser on another machine, which is what is measured, Headrace compresses its JSON; this one is near
    "headrace": replace(BY_NAME["headrace"], variables={"HEADRACE_COMPRESS_JSON": "always"}),
    "stock-workers-1": BY_NAME["stock-workers-1"],
}
RUNS = 100
PATIENCE_MS = 60_000


class Line(NamedTuple):
    """A network between browser and server. `encodings`: what a browser accepts there.

    Browsers offer brotli to https and to localhost only: over plain HTTP to another machine it is gzip.
    """

    name: str
    encodings: tuple[str, ...] = ()
    megabits: float = 0.0
    milliseconds: float = 0.0


LINES = (
    Line("localhost"),
    Line("100 Mbit/s, 10 ms, https", (), 100, 10),
    Line("100 Mbit/s, 10 ms, http", ("gzip", "deflate"), 100, 10),
    Line("20 Mbit/s, 40 ms, https", (), 20, 40),
)


class Visit(NamedTuple):
    """One opening of the page."""

    bytes: int
    requests: int
    seconds: float


def main(rounds: int, parent: Path, output: Path | None) -> int:
    """Measure, print, and write bench/results/page.json or `output`. 0."""
    for environment in (".venv-stock", ".venv"):
        make_environment(environment)
    folder = Path(tempfile.mkdtemp(prefix="headrace-page-", dir=parent))
    folder.chmod(0o711)  # PostgreSQL may run as another user
    try:
        cases = measure(rounds, folder)
        facts = machine.facts(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(as_text(cases))
    summary = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(REPOSITORY),
        "machine": facts,
        "versions": {name: peer.version() for name, peer in PEERS.items()},
        "rounds": rounds,
        "cases": cases,
    }
    (output or RESULTS).write_text(json.dumps(summary, indent=1) + "\n")
    return 0


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Interleaved rounds; each begins with a fresh server, whose first page is a case of its own.

    Returns case -> peer -> medians of the rounds.
    """
    program = chromium.find()
    if program is None:
        raise SystemExit(f"no browser: none of {', '.join(chromium.PROGRAMS)} is in PATH (apt-get install chromium)")
    found: dict[str, dict[str, list[Visit]]] = {}
    databases = Databases(folder, str(REPOSITORY / ".venv-stock" / "bin" / "mlflow"))
    try:
        made = {name: databases.create("postgresql", name, True) for name in PEERS}
        filled: set[str] = set()
        for round_ in range(rounds):
            for name, peer in PEERS.items():
                print(f"round {round_ + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                with chromium.launch(program) as browser:
                    for case, visit in _round(peer, made[name], folder / name, browser, filled):
                        found.setdefault(case, {}).setdefault(name, []).append(visit)
    finally:
        databases.stop()
    return {case: {name: _median(visits) for name, visits in peers.items()} for case, peers in found.items()}


def _round(
    peer: Peer, database: Database, folder: Path, browser: Browser, filled: set[str]
) -> Iterator[tuple[str, Visit]]:
    server = peer.start(database, folder)
    try:
        server.wait_ready()
        api.call(server.port, "GET", "registered-models/search", patience=180)  # stock is up behind Headrace, too
        if peer.name not in filled:
            _fill(server.port)
            filled.add(peer.name)
        url = f"http://localhost:{server.port}/#/experiments/0/runs"
        yield "first page of the server, localhost", next(visits(browser, url, LINES[0]))
        for line in LINES:
            for case, visit in zip(("empty cache", "second visit"), visits(browser, url, line), strict=True):
                yield f"{case}, {line.name}", visit
    finally:
        server.stop()


def visits(browser: Browser, url: str, line: Line = LINES[0], run: str = "run-0") -> Iterator[Visit]:
    """The page opened with an empty cache, and again in a new tab with what is in the cache then."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    try:
        for _ in range(2):
            page = context.new_page()
            meter = chromium.Meter(page, line.encodings)
            if line.megabits:
                meter.throttle(line.megabits, line.milliseconds)
            started = time.perf_counter()
            page.goto(url, wait_until="commit")
            page.get_by_text(run, exact=True).first.wait_for(state="visible")
            seconds = time.perf_counter() - started
            meter.settle(page)
            yield Visit(meter.bytes, meter.requests, seconds)
            page.close()
    finally:
        context.close()


def _fill(port: int) -> None:
    for number in reversed(range(RUNS)):
        body = {"experiment_id": "0", "start_time": 1_700_000_000_000 + number, "run_name": f"run-{number}"}
        run_id = api.call(port, "POST", "runs/create", body)["run"]["info"]["run_id"]
        batch = {
            "run_id": run_id,
            "metrics": [{"key": f"metric-{key}", "value": key / 7, "timestamp": 1, "step": 0} for key in range(15)],
            "params": [{"key": f"param-{key}", "value": str(key)} for key in range(15)],
        }
        api.call(port, "POST", "runs/log-batch", batch)


def _median(found: Sequence[Visit]) -> dict[str, float]:
    return {
        "bytes": statistics.median(visit.bytes for visit in found),
        "requests": statistics.median(visit.requests for visit in found),
        "seconds": round(statistics.median(visit.seconds for visit in found), 3),
    }


def as_text(cases: dict[str, Any]) -> str:
    """The table that is printed."""
    lines = [f"{'':<42} {'Headrace':>22} {'stock MLflow':>22}"]
    for case, peers in cases.items():
        cells = [f"{peers[name]['bytes'] / 1e6:.3f} MB {peers[name]['seconds']:6.2f} s" for name in PEERS]
        lines.append(f"{case:<42} {cells[0]:>22} {cells[1]:>22}")
    return "\n".join(lines)
