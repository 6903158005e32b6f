"""What a server weighs and how fast it is there: `python -m bench.footprint`, about a minute.

On SQLite and on PostgreSQL with MLflow's tables in them: the seconds from the start of the process to the first 200 of
/ready, and the processor seconds that went into it (the least of five: whatever else the machine does only adds); the
proportional set size of the whole tree when idle, and after 1,000 runs and 1,000 traces of 10 spans. One worker, stock
only when it is wanted.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests

from bench import traces
from bench.databases import KINDS, Database, Databases
from bench.machine import facts
from bench.process import ServerProcess, cpu_seconds, free_port

BIN = Path(sys.executable).parent
STARTS, COUNT = 5, 1_000


def start(database: Database, folder: Path) -> ServerProcess:
    port = free_port()
    options = ["--port", str(port), "--backend-store-uri", database.uri]
    return ServerProcess([str(BIN / "headrace"), "serve", *options], port, folder, {})


def ready(database: Database, folder: Path) -> tuple[float, float]:
    """Seconds from the start of the process to the first 200 of /ready, and the tree's processor seconds until then."""
    server = start(database, folder)
    try:
        return server.wait_ready("/ready"), cpu_seconds(server.tree())
    finally:
        server.stop()


def fill(port: int) -> None:
    """Log runs and traces, one after the other, as a client does."""
    url = f"http://127.0.0.1:{port}"
    numbers = itertools.count(1)
    with requests.Session() as session:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = session.post(f"{url}/api/2.0/mlflow/{path}", json=body, timeout=60)
            answer.raise_for_status()
            content: dict[str, Any] = answer.json()
            return content

        experiment = post("experiments/create", {"name": "footprint"})["experiment_id"]
        for _ in range(COUNT):
            run_id = post("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
            metrics = [{"key": f"m{key}", "value": 0.5, "timestamp": 1, "step": 0} for key in range(10)]
            params = [{"key": f"p{key}", "value": "x"} for key in range(5)]
            post("runs/log-batch", {"run_id": run_id, "metrics": metrics, "params": params})
            post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 2})
            body = traces.BODY.replace(traces.TRACE_ID, next(numbers).to_bytes(16, "big"))
            headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment}
            session.post(f"{url}/v1/traces", body, headers=headers, timeout=60).raise_for_status()


def measure(database: Database, folder: Path) -> dict[str, float]:
    times = [ready(database, folder) for _ in range(STARTS)]
    server = start(database, folder)
    try:
        server.wait_ready("/ready")
        idle = server.settled_memory()
        fill(server.port)
        used = server.settled_memory()
        processes = len(server.tree())
    finally:
        server.stop()
    seconds, processor = map(min, zip(*times, strict=True))
    weights = {"idle_mb": idle, "used_mb": used, "processes": processes}
    return {"ready_seconds": seconds, "ready_processor_seconds": processor, **weights}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user
        databases = Databases(folder, str(BIN / "mlflow"))
        try:
            found = {kind: measure(databases.create(kind, "footprint", True), folder / kind) for kind in KINDS}
        finally:
            databases.stop()
        print(json.dumps({**found, "machine": facts(folder)}, indent=1))


if __name__ == "__main__":
    main()
