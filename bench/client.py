"""A plain client: log metrics one by one. Runs in the environment .venv-bench-client, which has mlflow-skinny alone.

Arguments: the tracking URI, a run's id, how many metrics. Prints JSON: the seconds that the log calls took, and the
points as [step, timestamp, value]. Importing mlflow is not timed: it is the same for every server.
"""

from __future__ import annotations

import json
import sys
import time

from mlflow import MlflowClient


def main() -> None:
    uri, run_id, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    client = MlflowClient(uri)
    timestamp = int(time.time() * 1000)
    points = [(step, timestamp + step, step + 0.5) for step in range(count + 1)]
    for step, at, value in points[:1]:  # connects
        client.log_metric(run_id, "loss", value, at, step)
    started = time.perf_counter()
    for step, at, value in points[1:]:
        client.log_metric(run_id, "loss", value, at, step)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "points": points}))


if __name__ == "__main__":
    main()
