"""Something for every page of MLflow's UI, made through a server with MLflow's client."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.support.fork_server import client_environment

_SCRIPT = """
import json, sys
import mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
experiment = mlflow.set_experiment("pages")
with mlflow.start_run(run_name="first") as run:
    mlflow.log_params({"depth": 4})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.set_tag("team", "churn")
    mlflow.log_text("an artifact", "notes/a.txt")
    mlflow.log_dict({"columns": ["a"], "data": [[1]]}, "table.json")
    mlflow.log_input(mlflow.data.from_dict({"a": [1]}) if hasattr(mlflow.data, "from_dict") else
                     mlflow.data.from_numpy(__import__("numpy").arange(3), name="numbers"))
client.create_registered_model("churn model", tags={"a": "b"})
version = client.create_model_version("churn model", run.info.artifact_uri + "/notes", run.info.run_id)
client.set_registered_model_alias("churn model", "best", version.version)
logged = mlflow.initialize_logged_model(name="candidate", params={"a": "1"})
mlflow.finalize_logged_model(logged.model_id, "READY")
mlflow.genai.register_prompt(name="greeting", template="Hello {{name}}")
dataset = mlflow.genai.datasets.create_dataset(name="questions", experiment_id=[experiment.experiment_id])
dataset.merge_records([{"inputs": {"q": "why"}, "expectations": {"a": "so"}}])
with mlflow.start_span(name="question") as span:
    span.set_inputs({"q": "why"})
    span.set_outputs({"a": "because"})
mlflow.flush_trace_async_logging()
trace_id = span.trace_id
mlflow.log_feedback(trace_id=trace_id, name="good", value=True)
print(json.dumps({"experiment_id": experiment.experiment_id, "run_id": run.info.run_id, "trace_id": trace_id,
                  "model_id": logged.model_id, "dataset_id": dataset.dataset_id}))
"""


@dataclass
class Data:
    """Ids and names of what was made. `parameters` fits the queries and bodies of stock's reading calls."""

    experiment_id: str
    run_id: str
    trace_id: str
    model_id: str
    dataset_id: str
    model: str = "churn model"
    artifact: str = "notes/a.txt"

    @property
    def parameters(self) -> dict[str, Any]:
        experiment, run, trace = self.experiment_id, self.run_id, self.trace_id
        return {
            "experiment_id": experiment,
            "experiment_ids": [experiment],
            "experiment_name": "pages",
            "run_id": run,
            "run_uuid": run,
            "run_ids": [run],
            "name": self.model,
            "version": "1",
            "alias": "best",
            "path": self.artifact,
            "artifact_path": self.artifact,
            "metric_key": "loss",
            "metric_keys": ["loss"],
            "key": "loss",
            "request_id": trace,
            "trace_id": trace,
            "trace_ids": [trace],
            "model_id": self.model_id,
            "model_ids": [self.model_id],
            "dataset_id": self.dataset_id,
            "max_results": 10,
            "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}],
        }


def make_data(url: str) -> Data:
    """Needs a whole environment of MLflow's, such as this one."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, url], capture_output=True, text=True, env=client_environment()
    )
    assert done.returncode == 0, done.stderr
    return Data(**json.loads(done.stdout.splitlines()[-1]))
