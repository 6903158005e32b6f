"""The table of routes: every endpoint of stock's has a row, and a request finds the right one."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from headrace.auth.routes import UNKNOWN, Routes

from headrace.auth.principals import Right
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


def test_every_endpoint_of_stocks_has_a_row(stock: list[tuple[str, str]]) -> None:
    routes = Routes("")
    assert len(stock) > 300
    missing = [(method, path) for method, path in stock if routes.find(method, example(path))[0] is UNKNOWN]
    assert missing == []


def test_what_has_no_row_needs_an_administrator() -> None:
    routes = Routes("")
    for method, path in (("GET", "/api/2.0/mlflow/new"), ("DELETE", "/health"), ("POST", "//health"), ("TRACE", "/")):
        assert routes.find(method, path)[0].right is Right.ADMIN


@pytest.mark.parametrize(
    ("method", "path", "right", "target"),
    [
        ("GET", "/health", Right.OPEN, "-"),
        ("HEAD", "/ajax-api/2.0/mlflow/runs/get", Right.READ, "run"),
        ("POST", "/api/2.0/mlflow/runs/log-metric", Right.EDIT, "run"),
        ("GET", "/api/3.0/mlflow/traces/search", Right.READ, "trace"),  # an id, as POST alone is a search
        ("POST", "/api/3.0/mlflow/traces/search", Right.READ, "trace-locations"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a/b", Right.EDIT, "path"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/a\nb", Right.READ, "path"),
        ("GET", "/api/2.0/mlflow/webhooks", Right.ADMIN, "-"),
    ],
)
def test_a_request_finds_its_rule(method: str, path: str, right: Right, target: str) -> None:
    rule, _ = Routes("").find(method, path)
    assert (rule.right, rule.target) == (right, target)


def test_with_a_prefix() -> None:
    routes = Routes("/ml")
    assert routes.find("GET", "/ml/health")[0].right is Right.OPEN
    assert routes.find("GET", "/health")[0] is UNKNOWN
    assert routes.find("GET", "/ml/api/2.0/mlflow/runs/get")[0].right is Right.READ
    # stock's streaming routes of artifacts know no prefix
    assert routes.find("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a")[0].target == "path"
