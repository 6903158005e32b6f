"""The declarations: every endpoint of stock's has one, and a request finds the right one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.api.endpoint import UNDECLARED, Router
from headrace.auth import objects
from headrace.auth.principals import Right
from headrace.db import schema
from headrace.resources import all_endpoints
from headrace.resources.reference import render
from headrace.settings import Settings
from tests.support.processes import clean_environment

# All that stock serves: Flask's rules and the FastAPI routers' routes, as "METHOD path" with {name} for a parameter.
WALK = """
import json, os
os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
from mlflow.server import app, handlers
from mlflow.server.fastapi_app import app as fastapi_app
found = [(method, path) for path, _, methods in handlers.get_endpoints() for method in methods]
found += [(method, str(rule)) for rule in app.url_map.iter_rules() for method in rule.methods]

def walk(routes, prefix=""):
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            walk(inner.routes, prefix + (route.include_context.prefix or ""))
        elif getattr(route, "methods", None):
            found.extend((method, prefix + route.path) for method in route.methods)

walk(fastapi_app.routes)
print(json.dumps(sorted(set(found))))
"""


@pytest.fixture(scope="module")
def stock() -> list[tuple[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", WALK], capture_output=True, text=True, check=True, env=clean_environment()
    )
    return [(method, path) for method, path in json.loads(done.stdout.splitlines()[-1]) if method != "OPTIONS"]


def example(path: str) -> str:
    """A path of a route: each parameter becomes a word."""
    path = re.sub(r"<path:\w+>|\{\w+:path\}", "some/thing", path)
    return re.sub(r"<\w+>|\{[\w.]+\}", "thing", path)


def router(prefix: str = "") -> Router:
    return Router(all_endpoints(Settings()), prefix)


def test_every_endpoint_of_stocks_has_a_declaration(stock: list[tuple[str, str]]) -> None:
    find = router().find
    assert len(stock) > 300
    assert [(method, path) for method, path in stock if find(method, example(path)) is UNDECLARED] == []


def test_what_has_no_declaration_needs_an_administrator() -> None:
    for method, path in (("GET", "/api/2.0/mlflow/new"), ("DELETE", "/health"), ("POST", "//health"), ("TRACE", "/")):
        assert router().find(method, path).endpoint.right is Right.ADMIN


def test_no_endpoint_is_declared_twice() -> None:
    places = [(each.method, path) for each in all_endpoints(Settings()) for path in each.paths("")]
    assert sorted(place for place in set(places) if places.count(place) > 1) == []


def test_the_schema_contract_knows_every_table_of_a_statement() -> None:
    ours = {"headrace_grants"}
    for each in all_endpoints(Settings()):
        assert each.tables - ours <= schema.TABLES.keys(), each.path


@pytest.mark.parametrize(
    ("method", "path", "right", "target"),
    [
        ("GET", "/health", Right.OPEN, type(objects.NOTHING)),
        ("HEAD", "/ajax-api/2.0/mlflow/runs/get", Right.READ, objects.Run),
        ("POST", "/api/2.0/mlflow/runs/log-metric", Right.EDIT, objects.WithModels),
        ("POST", "/api/2.0/preview/mlflow/runs/log-metric", Right.EDIT, objects.WithModels),
        ("GET", "/api/3.0/mlflow/traces/search", Right.READ, objects.Trace),  # an id, as POST alone is a search
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a/b", Right.EDIT, objects.ArtifactFolder),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/a\nb", Right.READ, objects.ArtifactFolder),
        ("GET", "/api/2.0/mlflow/webhooks", Right.ADMIN, type(objects.NOTHING)),
    ],
)
def test_a_request_finds_its_endpoint(method: str, path: str, right: Right, target: type) -> None:
    endpoint = router().find(method, path).endpoint
    assert (endpoint.right, type(endpoint.target)) == (right, target)


def test_with_a_prefix() -> None:
    find = router("/ml").find
    assert find("GET", "/ml/health").endpoint.right is Right.OPEN
    assert find("GET", "/health") is UNDECLARED
    assert find("GET", "/ml/api/2.0/mlflow/runs/get").endpoint.right is Right.READ
    # stock's streaming routes of artifacts know no prefix
    assert isinstance(find("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a").endpoint.target, objects.ArtifactFolder)


def test_the_reference_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "endpoints.md"
    assert page.read_text(encoding="utf-8") == render(), (
        "run: python -m headrace.resources.reference docs/reference/endpoints.md"
    )
