"""MLflow's API, a folder for each resource. `all_endpoints` is the one table of what there is."""

from __future__ import annotations

from headrace.api.endpoint import ENDPOINTS, Endpoint
from headrace.pages import audit, events, state, storage
from headrace.pages import endpoints as pages
from headrace.resources import deployments_server, server_info, stock_only
from headrace.resources.assessments import endpoints as assessments
from headrace.resources.evaluation_datasets import endpoints as evaluation_datasets
from headrace.resources.experiments import endpoints as experiments
from headrace.resources.graphql import endpoints as graphql
from headrace.resources.issues import endpoints as issues
from headrace.resources.logged_models import endpoints as logged_models
from headrace.resources.metrics import endpoints as metrics
from headrace.resources.model_versions import endpoints as model_versions
from headrace.resources.registered_models import endpoints as registered_models
from headrace.resources.reviews import endpoints as reviews
from headrace.resources.runs import change_endpoints, endpoints
from headrace.resources.scorers import endpoints as scorers
from headrace.resources.traces import change_endpoints as change_traces
from headrace.resources.traces import endpoints as traces
from headrace.resources.traces import metric_endpoints as measure_traces
from headrace.resources.traces import read_endpoints as read_traces
from headrace.resources.workspaces import endpoints as workspaces
from headrace.settings import Settings

# Importing a resource declares its endpoints.
RESOURCES = (
    *(experiments, metrics, endpoints, change_endpoints, logged_models, registered_models, model_versions, graphql),
    *(traces, read_traces, change_traces, measure_traces, assessments, evaluation_datasets),
    *(scorers, issues, reviews, workspaces, deployments_server, pages, storage, audit, state, events),
)


def all_endpoints(settings: Settings) -> list[Endpoint]:
    """The native endpoints of a server with these settings, then what stock alone answers."""
    native = [*server_info.endpoints(settings), *ENDPOINTS]
    known = {(each.method, each.path) for each in native}
    return [*native, *(each for each in stock_only.endpoints() if (each.method, each.path) not in known)]


# What is about runs and models; clients ask any server for server-info first.
_ABOUT_RUNS = (
    *("2.0/mlflow/", "2.0mlflow/", "3.0/mlflow/", "3.0/jobs", "/graphql", "/v1/traces", "/gateway"),
    *("/get-artifact", "/model-versions/get-artifact"),
)


def needs_runs(each: Endpoint) -> bool:
    """Whether a server of artifacts alone has not got it."""
    return each.path.startswith(_ABOUT_RUNS) and each.path != server_info.PATH


__all__ = ["RESOURCES", "all_endpoints", "needs_runs"]
