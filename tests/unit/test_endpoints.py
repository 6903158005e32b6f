"""The declarations: a request finds the right one; tests/differential/test_surface.py: each of stock's has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.api.endpoint import UNDECLARED, Router
from headrace.auth import objects
from headrace.auth.principals import Right
from headrace.db import schema
from headrace.resources import all_endpoints
from headrace.resources.reference import render
from headrace.settings import Settings


def router(prefix: str = "") -> Router:
    return Router(all_endpoints(Settings()), prefix)


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
