"""What a training script does, with only what every mlflow client has; run by test_clients.py.

Prints one JSON object of what it reads back. Works with mlflow 2.9 and with 3.
"""

from __future__ import annotations

import json
import math
import sys

import mlflow
from mlflow.entities import Metric, Param, RunTag


def main(tracking_uri: str, experiment: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment(experiment)
    client = mlflow.MlflowClient()
    with mlflow.start_run(run_name="outer", tags={"team": "größe"}) as outer:
        mlflow.log_param("depth", 4)
        mlflow.log_params({"rate": 0.005, "objective": "binary:logistic"})
        mlflow.log_param("depth", 4)
        try:
            mlflow.log_param("depth", 5)
            changed = "accepted"
        except mlflow.exceptions.MlflowException as error:
            changed = str(error.error_code)
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "F1": 0.5})
        mlflow.set_tag("stage", "first")
        mlflow.set_tags({"stage": "second", "gone": "soon"})
        mlflow.delete_tag("gone")
        mlflow.set_tag("mlflow.note.content", "A *note*.")
        with mlflow.start_run(run_name="inner", nested=True) as inner:
            mlflow.log_metric("m", 1)
    run_id = outer.info.run_id
    client.log_batch(
        run_id,
        metrics=[Metric("batch", float(i), 1000 + i, i) for i in range(1000)],
        params=[Param(f"p{i}", str(i)) for i in range(100)],
    )
    client.log_batch(run_id, tags=[RunTag("batch", "yes")])
    client.update_run(run_id, status="FINISHED", name="renamed")
    client.set_terminated(inner.info.run_id, "FAILED")
    run = client.get_run(run_id)
    print(
        json.dumps(
            {
                "version": mlflow.__version__,
                "status": run.info.status,
                "name": run.info.run_name,
                "ended": run.info.end_time >= run.info.start_time,
                "params": run.data.params,
                "metrics": {key: repr(value) for key, value in run.data.metrics.items()},
                "tags": {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.source")},
                "changed param": changed,
                "losses": [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")],
                "points": len(client.get_metric_history(run_id, "batch")),
                "parent": client.get_run(inner.info.run_id).data.tags["mlflow.parentRunId"] == run_id,
                "inner": client.get_run(inner.info.run_id).info.status,
                "found": len(client.search_runs([run.info.experiment_id], "metrics.F1 = 0.5")),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
