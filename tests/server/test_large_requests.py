"""A large request beside small ones of others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from tests.support.databases import Databases
from tests.support.servers import start_headrace

API = "/api/2.0/mlflow/"


def test_others_are_answered_while_it_is_read(databases: Databases, tmp_path: Path) -> None:
    """Its numbers are texts, which are read one by one: 3 s of processor time."""
    metrics = [{"key": "k", "value": "1", "timestamp": 1, "step": step} for step in range(190_000)]
    body = json.dumps({"run_id": 32 * "a", "metrics": metrics})
    server = start_headrace(databases.migrated("sqlite"), tmp_path)

    def send() -> requests.Response:
        return requests.post(f"{server.url}{API}runs/log-batch", data=body, timeout=120)

    answered = 0
    try:
        with ThreadPoolExecutor(1) as pool, requests.Session() as other:
            large = pool.submit(send)
            while not large.done():
                answer = other.get(f"{server.url}{API}experiments/get?experiment_id=0", timeout=120)
                answered += answer.status_code == 200
        assert (large.result().status_code, "at most 1000" in large.result().text) == (400, True)
    finally:
        server.stop()
    assert answered >= 20
