"""The table of native endpoints: where each is found, what answers it, which tables it needs as they are expected.

Whatever is not here is stock's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from headrace.db.base import Store
from headrace.resources import server_info
from headrace.resources.experiments import endpoints as experiments
from headrace.resources.graphql import endpoints as graphql
from headrace.resources.metrics import endpoints as metrics
from headrace.resources.model_versions import endpoints as models
from headrace.resources.runs import change_endpoints as run_changes
from headrace.resources.runs import endpoints as runs
from headrace.resources.runs import search_endpoints as search
from headrace.settings import Settings

# (store, body, query string) -> JSON; raises Declined, ApiError
Handler = Callable[[Store, bytes, bytes], Awaitable[bytes]]

AJAX = "/ajax-api/2.0/mlflow/"
RUN = ("runs", "latest_metrics", "params", "tags", "datasets", "inputs", "input_tags")


class Route(Struct, frozen=True):
    """An endpoint of MLflow's, most of them below /api/2.0/mlflow/ and /ajax-api/2.0/mlflow/."""

    method: str
    path: str
    handler: Handler
    tables: tuple[str, ...]
    folders: tuple[str, ...] = ("/api/2.0/mlflow/", AJAX)

    def paths(self) -> list[str]:
        """Where it is found, below --static-prefix."""
        return [folder + self.path for folder in self.folders]


DATASET = ("datasets", "inputs", "input_tags")
EXPERIMENT = ("experiments", "experiment_tags")
MODEL_VERSION = ("model_versions", "model_version_tags")

ROUTES = (
    Route("POST", "experiments/create", experiments.create_experiment, EXPERIMENT),
    Route("GET", "experiments/get", experiments.get_experiment, EXPERIMENT),
    Route("GET", "experiments/get-by-name", experiments.get_experiment_by_name, EXPERIMENT),
    Route("POST", "experiments/set-experiment-tag", experiments.set_experiment_tag, EXPERIMENT),
    Route("POST", "experiments/delete-experiment-tag", experiments.delete_experiment_tag, EXPERIMENT),
    Route("POST", "experiments/update", experiments.update_experiment, ("experiments",)),
    Route("POST", "experiments/delete", experiments.delete_experiment, ("experiments", "runs", "assessments")),
    Route("POST", "experiments/restore", experiments.restore_experiment, ("experiments", "runs")),
    Route("POST", "experiments/search", search.search_experiments, EXPERIMENT),
    Route("GET", "experiments/search", search.search_experiments_by_query, EXPERIMENT),
    Route("POST", "experiments/search-datasets", search.search_datasets, DATASET, (AJAX,)),
    Route("GET", "metrics/get-history", metrics.get_history, ("metrics",)),
    Route("GET", "metrics/get-history-bulk", metrics.get_history_bulk, ("metrics",), (AJAX,)),
    Route("GET", "metrics/get-history-bulk-interval", metrics.get_history_bulk_interval, ("metrics",)),
    Route("POST", "runs/create", runs.create_run, ("experiments", "runs", "tags")),
    Route("GET", "runs/get", runs.get_run, RUN),
    Route("POST", "runs/update", runs.update_run, ("runs", "tags")),
    Route("POST", "runs/log-metric", runs.log_metric, ("runs", "metrics", "latest_metrics")),
    Route("POST", "runs/log-batch", runs.log_batch, ("runs", "metrics", "latest_metrics", "params", "tags")),
    Route("POST", "runs/log-parameter", runs.log_param, ("runs", "metrics", "latest_metrics", "params", "tags")),
    Route("POST", "runs/set-tag", runs.set_tag, ("runs", "metrics", "latest_metrics", "params", "tags")),
    Route("POST", "runs/delete", run_changes.delete_run, ("runs", "assessments")),
    Route("POST", "runs/restore", run_changes.restore_run, ("runs",)),
    Route("POST", "runs/log-inputs", run_changes.log_inputs, ("runs", "datasets", "inputs", "input_tags")),
    Route("POST", "runs/outputs", run_changes.log_outputs, ("runs", "inputs")),
    Route("POST", "runs/log-model", run_changes.log_model, RUN),
    Route("POST", "runs/search", search.search_runs, RUN),
    Route("GET", "model-versions/search", models.search_model_versions, MODEL_VERSION),
    Route("POST", "graphql", graphql.execute, (*RUN, *EXPERIMENT, *MODEL_VERSION), ("/",)),
    Route("POST", "runs/delete-tag", runs.delete_tag, ("runs", "tags")),
)


def server_info_routes(settings: Settings) -> list[Route]:
    """GET server-info; none where stock alone knows the answer."""
    info = server_info.server_info(settings)

    async def answer(store: Store, body: bytes, query: bytes) -> bytes:
        assert info is not None
        return info

    return [] if info is None else [Route("GET", "server-info", answer, (), server_info.FOLDERS)]
