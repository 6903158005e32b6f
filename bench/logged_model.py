"""A run that logs a small model and registers it, by MLflow's client: `python -m bench.logged_model PORT SECONDS`.

Printed is the median of the time that the requests of one take together, in ms: without the client's work on its files.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import mlflow.pyfunc
import requests

# MLflow's client sends all of them through this
_send = requests.Session.send
taken = 0.0


def _timed(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    global taken
    began = time.perf_counter()
    try:
        return _send(session, request, **options)
    finally:
        taken += time.perf_counter() - began


class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """A small one."""

    def predict(self, model_input: list[str]) -> list[str]:
        """As they are."""
        return model_input


def log_model() -> float:
    """What its requests took, in ms."""
    before = taken
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model", python_model=Model(), pip_requirements=["mlflow"], registered_model_name="small"
        )
    return (taken - before) * 1000


def main(port: str, seconds: str) -> None:
    requests.Session.send = _timed  # type: ignore[assignment, method-assign]
    mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
    mlflow.set_experiment("small models")
    log_model()
    found: list[float] = []
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end or len(found) < 3:
        found.append(log_model())
    print(statistics.median(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
