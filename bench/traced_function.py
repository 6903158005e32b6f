"""A function with @mlflow.trace and nine children, which MLflow's client sends as eleven requests:
`python -m bench.traced_function EXPERIMENT_ID PORT SECONDS` prints the median of its wall time in ms."""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # else the function is done before its trace is sent

import mlflow

CHILDREN = 9


@mlflow.trace
def step(number: int) -> int:
    """A child."""
    return number + 1


@mlflow.trace
def answer(question: str) -> int:
    """The function."""
    return sum(map(step, range(CHILDREN))) + len(question)


def main(experiment_id: str, port: str, seconds: str) -> None:
    mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
    mlflow.set_experiment(experiment_id=experiment_id)
    answer("warm-up")
    taken: list[float] = []
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end or len(taken) < 3:
        began = time.perf_counter()
        answer("what is measured?")
        taken.append((time.perf_counter() - began) * 1000)
    print(statistics.median(taken))


if __name__ == "__main__":
    main(*sys.argv[1:])
