"""The table of routes: what each endpoint of MLflow's needs. What is not here needs an administrator.

A row: the method (GET stands for HEAD, too), the path below /api/ and /ajax-api/ (or from "/" on), the right, and on
what: the object that the request names, "-" for the whole server. `tests/unit/auth/test_routes.py` walks stock's
endpoints and fails on one without a row.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from headrace.auth.principals import Right

TABLE = """
GET    /health                                                      open       -
GET    /version                                                     signed-in  -
GET    /                                                            signed-in  -
GET    /static-files/{path:path}                                    signed-in  -
GET    /build/{path:path}                                           signed-in  -
GET    3.0/mlflow/server-info                                       signed-in  -
GET    3.0/mlflow/ui-telemetry                                      signed-in  -
POST   3.0/mlflow/ui-telemetry                                      signed-in  -
GET    3.0/mlflow/workspaces                                        signed-in  -
GET    3.0/mlflow/gateway/supported-providers                       signed-in  -
GET    3.0/mlflow/gateway/supported-models                          signed-in  -
GET    3.0/mlflow/gateway/provider-config                           signed-in  -

POST   2.0/mlflow/experiments/create                                edit       new-experiment
GET    2.0/mlflow/experiments/get                                   read       experiment
GET    2.0/mlflow/experiments/get-by-name                           read       experiment-name
POST   2.0/mlflow/experiments/search                                read       filtered
GET    2.0/mlflow/experiments/search                                read       filtered
POST   2.0/mlflow/experiments/search-datasets                       read       filtered
POST   2.0mlflow/experiments/search-datasets                        read       -
POST   2.0/mlflow/experiments/delete                                manage     experiment
POST   2.0/mlflow/experiments/restore                               manage     experiment
POST   2.0/mlflow/experiments/update                                manage     experiment
POST   2.0/mlflow/experiments/set-experiment-tag                    edit       experiment
POST   2.0/mlflow/experiments/delete-experiment-tag                 edit       experiment

POST   2.0/mlflow/runs/create                                       edit       experiment
GET    2.0/mlflow/runs/get                                          read       run
POST   2.0/mlflow/runs/search                                       read       filtered
POST   2.0/mlflow/runs/update                                       edit       run
POST   2.0/mlflow/runs/delete                                       edit       run
POST   2.0/mlflow/runs/restore                                      edit       run
POST   2.0/mlflow/runs/log-metric                                   edit       run
POST   2.0/mlflow/runs/log-parameter                                edit       run
POST   2.0/mlflow/runs/log-batch                                    edit       run
POST   2.0/mlflow/runs/log-model                                    edit       run
POST   2.0/mlflow/runs/log-inputs                                   edit       run
POST   2.0/mlflow/runs/outputs                                      edit       run
POST   2.0/mlflow/runs/set-tag                                      edit       run
POST   2.0/mlflow/runs/delete-tag                                   edit       run
POST   2.0/mlflow/runs/create-promptlab-run                         edit       -
GET    2.0/mlflow/metrics/get-history                               read       run
GET    2.0/mlflow/metrics/get-history-bulk                          read       run
GET    2.0/mlflow/metrics/get-history-bulk-interval                 read       run

GET    /get-artifact                                                read       run
GET    2.0/mlflow/artifacts/list                                    read       run
POST   2.0/mlflow/artifacts/presigned-upload-url                    edit       run
POST   2.0/mlflow/artifacts/presigned-download-url                  read       run
POST   2.0/mlflow/upload-artifact                                   edit       run-in-query
GET    2.0/mlflow-artifacts/artifacts                               read       folder
GET    2.0/mlflow-artifacts/artifacts/{path:path}                   read       path
PUT    2.0/mlflow-artifacts/artifacts/{path:path}                   edit       path
DELETE 2.0/mlflow-artifacts/artifacts/{path:path}                   edit       path
GET    2.0/mlflow-artifacts/presigned/{path:path}                   read       path
POST   2.0/mlflow-artifacts/mpu/create/{path:path}                  edit       path
POST   2.0/mlflow-artifacts/mpu/complete/{path:path}                edit       path
POST   2.0/mlflow-artifacts/mpu/abort/{path:path}                   edit       path

POST   2.0/mlflow/logged-models                                     edit       experiment
POST   2.0/mlflow/logged-models/search                              read       experiment
GET    2.0/mlflow/logged-models/{model_id}                          read       logged-model
PATCH  2.0/mlflow/logged-models/{model_id}                          edit       logged-model
DELETE 2.0/mlflow/logged-models/{model_id}                          edit       logged-model
PATCH  2.0/mlflow/logged-models/{model_id}/tags                     edit       logged-model
DELETE 2.0/mlflow/logged-models/{model_id}/tags/{tag_key}           edit       logged-model
GET    2.0/mlflow/logged-models/{model_id}/artifacts/directories    read       logged-model
GET    2.0/mlflow/logged-models/{model_id}/artifacts/files          read       logged-model
POST   2.0/mlflow/logged-models/{model_id}/params                   edit       logged-model

POST   2.0/mlflow/registered-models/create                          edit       new-model
GET    2.0/mlflow/registered-models/search                          read       filtered-models
GET    2.0/mlflow/registered-models/get                             read       model
POST   2.0/mlflow/registered-models/get-latest-versions             read       model
GET    2.0/mlflow/registered-models/get-latest-versions             read       model
POST   2.0/mlflow/registered-models/rename                          manage     model
PATCH  2.0/mlflow/registered-models/update                          edit       model
DELETE 2.0/mlflow/registered-models/delete                          manage     model
POST   2.0/mlflow/registered-models/set-tag                         edit       model
DELETE 2.0/mlflow/registered-models/delete-tag                      edit       model
POST   2.0/mlflow/registered-models/alias                           edit       model
DELETE 2.0/mlflow/registered-models/alias                           edit       model
GET    2.0/mlflow/registered-models/alias                           read       model
POST   2.0/mlflow/model-versions/create                             edit       model-source
PATCH  2.0/mlflow/model-versions/update                             edit       model
POST   2.0/mlflow/model-versions/transition-stage                   edit       model
DELETE 2.0/mlflow/model-versions/delete                             edit       model
GET    2.0/mlflow/model-versions/get                                read       model
GET    2.0/mlflow/model-versions/search                             read       filtered-models
GET    2.0/mlflow/model-versions/get-download-uri                   read       model
POST   2.0/mlflow/model-versions/set-tag                            edit       model
DELETE 2.0/mlflow/model-versions/delete-tag                         edit       model
GET    /model-versions/get-artifact                                 read       model

POST   /v1/traces                                                   edit       experiment-header
POST   2.0/mlflow/traces                                            edit       experiment
GET    2.0/mlflow/traces                                            read       experiment
PATCH  2.0/mlflow/traces/{request_id}                               edit       trace
GET    2.0/mlflow/traces/{request_id}/info                          read       trace
PATCH  2.0/mlflow/traces/{request_id}/tags                          edit       trace
DELETE 2.0/mlflow/traces/{request_id}/tags                          edit       trace
POST   2.0/mlflow/traces/link-to-run                                edit       run-and-traces
POST   2.0/mlflow/traces/link-prompts                               edit       trace
POST   2.0/mlflow/traces/delete-traces                              edit       experiment
GET    2.0/mlflow/unified-traces                                    read       -
GET    2.0/mlflow/get-online-trace-details                          read       -
POST   3.0/mlflow/traces                                            edit       new-trace
GET    3.0/mlflow/traces/get                                        read       trace
GET    3.0/mlflow/traces/batchGet                                   read       trace
POST   3.0/mlflow/traces/batchGetInfos                              read       trace
POST   3.0/mlflow/traces/search                                     read       trace-locations
POST   3.0/mlflow/traces/delete-traces                              edit       experiment
POST   3.0/mlflow/traces/calculate-filter-correlation               read       experiment
POST   3.0/mlflow/traces/metrics                                    read       experiment
GET    3.0/mlflow/traces/{trace_id}                                 read       trace
PATCH  3.0/mlflow/traces/{trace_id}/tags                            edit       trace
DELETE 3.0/mlflow/traces/{trace_id}/tags                            edit       trace
POST   3.0/mlflow/traces/{trace_id}/assessments                     edit       trace
GET    3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}     read       trace
PATCH  3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}     edit       trace
DELETE 3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}     edit       trace
GET    2.0/mlflow/get-trace-artifact                                read       trace
GET    3.0/mlflow/get-trace-artifact                                read       trace

POST   3.0/mlflow/issues                                            edit       experiment
POST   3.0/mlflow/issues/search                                     read       experiment
POST   3.0/mlflow/issues/invoke                                     edit       -
GET    3.0/mlflow/issues/{issue_id}                                 read       -
PATCH  3.0/mlflow/issues/{issue_id}                                 edit       -
POST   3.0/mlflow/label-schemas/create                              edit       experiment
GET    3.0/mlflow/label-schemas/get                                 read       -
GET    3.0/mlflow/label-schemas/get-by-name                         read       experiment
GET    3.0/mlflow/label-schemas/list                                read       experiment
PATCH  3.0/mlflow/label-schemas/update                              edit       -
DELETE 3.0/mlflow/label-schemas/delete                              edit       -
POST   3.0/mlflow/review-queues/create                              edit       experiment
POST   3.0/mlflow/review-queues/get-or-create-user                  edit       experiment
GET    3.0/mlflow/review-queues/get                                 read       -
GET    3.0/mlflow/review-queues/get-by-name                         read       experiment
GET    3.0/mlflow/review-queues/list                                read       experiment
POST   3.0/mlflow/review-queues/update                              edit       -
POST   3.0/mlflow/review-queues/delete                              edit       -
POST   3.0/mlflow/review-queues/items/add                           edit       -
POST   3.0/mlflow/review-queues/items/remove                        edit       -
GET    3.0/mlflow/review-queues/items/list                          read       -
POST   3.0/mlflow/review-queues/items/set-status                    edit       -

POST   3.0/mlflow/datasets/create                                   edit       experiment
POST   3.0/mlflow/datasets/search                                   read       experiment
GET    3.0/mlflow/datasets/search                                   read       experiment
GET    3.0/mlflow/datasets/{dataset_id}                             read       -
DELETE 3.0/mlflow/datasets/{dataset_id}                             edit       -
PATCH  3.0/mlflow/datasets/{dataset_id}/tags                        edit       -
DELETE 3.0/mlflow/datasets/{dataset_id}/tags/{key}                  edit       -
GET    3.0/mlflow/datasets/{dataset_id}/records                     read       -
POST   3.0/mlflow/datasets/{dataset_id}/records                     edit       -
DELETE 3.0/mlflow/datasets/{dataset_id}/records                     edit       -
GET    3.0/mlflow/datasets/{dataset_id}/experiment-ids              read       -
POST   3.0/mlflow/datasets/{dataset_id}/add-experiments             edit       -
POST   3.0/mlflow/datasets/{dataset_id}/remove-experiments          edit       -

POST   3.0/mlflow/scorers/register                                  edit       experiment
GET    3.0/mlflow/scorers/list                                      read       experiment
GET    3.0/mlflow/scorers/versions                                  read       experiment
GET    3.0/mlflow/scorers/get                                       read       experiment
DELETE 3.0/mlflow/scorers/delete                                    edit       experiment
GET    3.0/mlflow/scorers/online-configs                            read       -
PUT    3.0/mlflow/scorers/online-config                             edit       experiment
POST   3.0/mlflow/scorer/invoke                                     edit       -
POST   3.0/mlflow/genai/evaluate/invoke                             edit       -
POST   3.0/mlflow/prompt-optimization/jobs                          edit       experiment
POST   3.0/mlflow/prompt-optimization/jobs/search                   read       experiment
GET    3.0/mlflow/prompt-optimization/jobs/search                   read       experiment
GET    3.0/mlflow/prompt-optimization/jobs/{job_id}                 read       -
DELETE 3.0/mlflow/prompt-optimization/jobs/{job_id}                 edit       -
POST   3.0/mlflow/prompt-optimization/jobs/{job_id}/cancel          edit       -
GET    3.0/mlflow/jobs/{job_id}                                     read       -
PATCH  3.0/mlflow/jobs/cancel/{job_id}                              edit       -
POST   3.0/jobs                                                     admin      -
POST   3.0/jobs/                                                    admin      -
POST   3.0/jobs/search                                              admin      -
GET    3.0/jobs/{job_id}                                            read       -
PATCH  3.0/jobs/cancel/{job_id}                                     edit       -
POST   3.0/mlflow/demo/generate                                     edit       -
POST   3.0/mlflow/demo/delete                                       edit       -

GET    /graphql                                                     read       -
POST   /graphql                                                     read       graphql

GET    3.0/mlflow/mcp-servers                                       read       -
POST   3.0/mlflow/mcp-servers                                       edit       -
GET    3.0/mlflow/mcp-servers/{path:path}                           read       -
POST   3.0/mlflow/mcp-servers/{path:path}                           edit       -
PATCH  3.0/mlflow/mcp-servers/{path:path}                           edit       -
DELETE 3.0/mlflow/mcp-servers/{path:path}                           edit       -

GET    3.0/mlflow/workspaces/{workspace_name}                       read       -
POST   3.0/mlflow/workspaces                                        admin      -
PATCH  3.0/mlflow/workspaces/{workspace_name}                       admin      -
DELETE 3.0/mlflow/workspaces/{workspace_name}                       admin      -

POST   2.0/mlflow/webhooks                                          admin      -
GET    2.0/mlflow/webhooks                                          admin      -
GET    2.0/mlflow/webhooks/{webhook_id}                             admin      -
PATCH  2.0/mlflow/webhooks/{webhook_id}                             admin      -
DELETE 2.0/mlflow/webhooks/{webhook_id}                             admin      -
POST   2.0/mlflow/webhooks/{webhook_id}/test                        admin      -

GET    2.0/mlflow/gateway-proxy                                     admin      -
POST   2.0/mlflow/gateway-proxy                                     admin      -
GET    3.0/mlflow/gateway/secrets/config                            read       -
GET    3.0/mlflow/gateway/secrets/get                               admin      -
GET    3.0/mlflow/gateway/secrets/list                              admin      -
POST   3.0/mlflow/gateway/secrets/{action}                          admin      -
DELETE 3.0/mlflow/gateway/secrets/delete                            admin      -
GET    3.0/mlflow/gateway/endpoints/get                             read       -
GET    3.0/mlflow/gateway/endpoints/list                            read       -
GET    3.0/mlflow/gateway/endpoints/bindings/list                   read       -
POST   3.0/mlflow/gateway/endpoints/{action:path}                   admin      -
DELETE 3.0/mlflow/gateway/endpoints/{action:path}                   admin      -
GET    3.0/mlflow/gateway/model-definitions/get                     read       -
GET    3.0/mlflow/gateway/model-definitions/list                    read       -
POST   3.0/mlflow/gateway/model-definitions/{action}                admin      -
DELETE 3.0/mlflow/gateway/model-definitions/delete                  admin      -
GET    3.0/mlflow/gateway/budgets/{action}                          read       -
POST   3.0/mlflow/gateway/budgets/{action}                          admin      -
DELETE 3.0/mlflow/gateway/budgets/delete                            admin      -
GET    3.0/mlflow/gateway/guardrails/{action}                       read       -
POST   3.0/mlflow/gateway/guardrails/{action}                       admin      -
PATCH  3.0/mlflow/gateway/guardrails/{action}                       admin      -
DELETE 3.0/mlflow/gateway/guardrails/{action}                       admin      -
GET    /gateway/mlflow/v1/models                                    read       -
POST   /gateway/{path:path}                                         edit       -

GET    3.0/mlflow/assistant/{path:path}                             admin      -
POST   3.0/mlflow/assistant/{path:path}                             admin      -
PUT    3.0/mlflow/assistant/{path:path}                             admin      -
PATCH  3.0/mlflow/assistant/{path:path}                             admin      -
"""

_RIGHTS = {right.name.lower().replace("_", "-"): right for right in Right}
# Stock's streaming routes of artifacts know no --static-prefix; server-info is there with and without it.
_WITHOUT_PREFIX = re.compile(r"2\.0/mlflow-artifacts/artifacts/|3\.0/mlflow/server-info")


class Rule(Struct, frozen=True):
    """What a route needs, and on what."""

    right: Right
    target: str = "-"


# What has no row.
UNKNOWN = Rule(Right.ADMIN)


class Routes:
    """The rules of a server with this --static-prefix."""

    def __init__(self, prefix: str) -> None:
        self._exact: dict[tuple[str, str], Rule] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Rule]] = []
        for line in filter(None, TABLE.splitlines()):
            method, path, right, target = line.split()
            for full in _paths(path, prefix):
                self._add(method, full, Rule(_RIGHTS[right], target))
        self.find = lru_cache(maxsize=4096)(self._find)

    def add(self, method: str, path: str, right: Right) -> None:
        """A row for a page of our own."""
        self._add(method, path, Rule(right, "page"))

    def _add(self, method: str, path: str, rule: Rule) -> None:
        methods = (method, "HEAD") if method == "GET" else (method,)
        for each in methods:
            if "{" in path:
                self._patterns.append((each, _pattern(path), rule))
            else:
                self._exact[each, path] = rule

    def _find(self, method: str, path: str) -> tuple[Rule, dict[str, str]]:
        """The rule of a request, and the path's parameters. A literal path wins over a pattern, as it does in stock."""
        if method == "OPTIONS":  # a browser's question before a request, which carries no credentials
            return Rule(Right.OPEN), {}
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        for its_method, pattern, rule in self._patterns:
            if its_method == method and (found := pattern.fullmatch(path)):
                return rule, found.groupdict()
        return UNKNOWN, {}


def _paths(path: str, prefix: str) -> list[str]:
    if path.startswith("/"):
        return [prefix + path]
    starts = {prefix, ""} if _WITHOUT_PREFIX.match(path) else {prefix}
    return [f"{start}/{api}/{path}" for start in starts for api in ("api", "ajax-api")]


def _pattern(path: str) -> re.Pattern[str]:
    """{name} is one part of a path, {name:path} one or more."""
    pieces = re.split(r"\{(\w+)(:path)?\}", path)
    text = re.escape(pieces[0])
    for name, many, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if many else '[^/]+'}){re.escape(literal)}"
    return re.compile(text, re.DOTALL)
