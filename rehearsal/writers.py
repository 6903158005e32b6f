"""Writes and reads by MLflow's client, all the time: `python -m rehearsal.writers THREADS`.

A line of JSON for each write that was acknowledged, and for what the client raised after its own retries. Ends at the
end of its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

_ended = threading.Event()
_lock = threading.Lock()


def say(**what: object) -> None:
    with _lock:
        print(json.dumps(what), flush=True)


def write(client: MlflowClient, number: int) -> Iterator[None]:
    """Runs of a param and ten metrics each."""
    while True:
        run = client.create_run("0", run_name=f"writer {number}").info.run_id
        client.log_batch(run, params=[Param("writer", str(number))])
        say(writer=number, run=run, param=str(number))
        yield
        for step in range(10):
            client.log_batch(run, metrics=[Metric("loss", 1 / (step + 1), 1, step)])
            say(writer=number, run=run, step=step)
            yield
        client.set_terminated(run)


def read(client: MlflowClient, number: int) -> Iterator[None]:
    while True:
        found = client.search_runs(["0"], max_results=5)
        say(writer=number, found=len(found))
        yield


def work(what: Callable[[MlflowClient, int], Iterator[None]], number: int) -> None:
    try:
        for _ in what(MlflowClient(), number):
            if _ended.is_set():
                return
    except Exception as error:  # whatever it is, somebody's program would have ended
        say(writer=number, failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    threads = [
        threading.Thread(target=work, args=(read if number == 0 else write, number))
        for number in range(int(sys.argv[1]))
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    _ended.set()
    for thread in threads:
        thread.join()
