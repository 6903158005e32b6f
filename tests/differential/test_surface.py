"""All that stock has is known: its endpoints, the options of `mlflow server`, the variables that its code reads."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from headrace import stock_options
from headrace.api.endpoint import UNDECLARED, Router
from headrace.resources import all_endpoints
from headrace.settings import Settings
from headrace.settings.table import SETTINGS
from tests.support.processes import clean_environment

# Where MLflow's server looks at variables: what only clients, models and autologging read is none of a server's.
SOURCES = (
    *("server", "store", "gateway", "webhooks", "telemetry", "cli/__init__.py", "__init__.py"),
    *("utils/crypto.py", "utils/logging_utils.py", "utils/providers.py", "utils/server_cli_utils.py"),
    *("utils/validation.py", "utils/workspace_utils.py", "tracing/trace_archival_config.py"),
    "tracing/trace_rollup_service.py",
)
SCRIPT = """
import json, os
os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
import mlflow.environment_variables as variables
from mlflow.cli import cli, server
from mlflow.server import app, handlers
from mlflow.server.fastapi_app import app as fastapi_app

endpoints = [(method, path) for path, _, methods in handlers.get_endpoints() for method in methods]
endpoints += [(method, str(rule)) for rule in app.url_map.iter_rules() for method in rule.methods]

def walk(routes, prefix=""):
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            walk(inner.routes, prefix + (route.include_context.prefix or ""))
        elif getattr(route, "methods", None):
            endpoints.extend((method, prefix + route.path) for method in route.methods)

walk(fastapi_app.routes)
print(json.dumps({
    "endpoints": sorted(set(endpoints)),
    "options": [(p.opts + p.secondary_opts, p.envvar) for p in server.params],
    "of_mlflow": [p.opts[0] for p in cli.params],
    "variables": {name: found.name for name, found in vars(variables).items() if hasattr(found, "type")},
}))
"""


class Stock(msgspec.Struct):
    """`endpoints`: Flask's rules and the FastAPI routers' routes, method and path, with {name} or <name> for a
    parameter. `options`: `mlflow server`'s, with their variables; `of_mlflow`: those of `mlflow`. `variables`:
    environment_variables.py's names."""

    endpoints: list[tuple[str, str]]
    options: list[tuple[list[str], str | None]]
    of_mlflow: list[str]
    variables: dict[str, str]


@pytest.fixture(scope="module")
def stock() -> Stock:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=clean_environment()
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Stock)


def example(path: str) -> str:
    """A path of a route: each parameter becomes a word."""
    path = re.sub(r"<path:\w+>|\{\w+:path\}", "some/thing", path)
    return re.sub(r"<\w+>|\{[\w.]+\}", "thing", path)


def test_every_endpoint_has_a_declaration(stock: Stock) -> None:
    find = Router(all_endpoints(Settings()), "").find
    asked = [(method, path) for method, path in stock.endpoints if method != "OPTIONS"]
    assert len(asked) > 300
    assert [(method, path) for method, path in asked if find(method, example(path)) is UNDECLARED] == []


def variables_with_an_answer() -> list[str]:
    tables = (stock_options.WORKS, stock_options.STOCKS, stock_options.WITHOUT_EFFECT, stock_options.CLIENTS)
    names = [name for table in tables for row in table for name in row.names]
    names += [refused.environment for refused in stock_options.REFUSED if refused.environment]
    return names + [setting.environment for setting in SETTINGS]


def test_every_option_has_an_answer(stock: Stock) -> None:
    ours = {setting.flag: setting.environment for setting in SETTINGS if setting.from_mlflow}
    ours |= {flag: refused.environment for refused in stock_options.REFUSED for flag in refused.flags}
    for flags, environment in stock.options:
        assert flags[0] in ours
        assert environment in (ours[flags[0]], None)
    assert set(stock.of_mlflow) == {"--version", "--env-file"}


def test_every_variable_has_one_answer(stock: Stock) -> None:
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    files = [
        file
        for name in SOURCES
        for file in ([package / name] if name.endswith("py") else (package / name).rglob("*.py"))
    ]
    words = {
        word for file in files for word in re.findall(r"\b_?MLFLOW_[A-Z0-9_]+\b", file.read_text(encoding="utf-8"))
    }
    assert len(stock.variables) > 200
    read = {
        environment
        for name, environment in stock.variables.items()
        if name in words and not environment.startswith("_")
    }
    answered = variables_with_an_answer()
    assert sorted(read - set(answered)) == []
    assert len(answered) == len(set(answered))
    # and none that MLflow has no more
    elsewhere = {"FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "UVICORN_*"}
    elsewhere |= {"UVICORN_SSL_CERTFILE", "UVICORN_SSL_KEYFILE"}
    ours = {setting.environment for setting in SETTINGS}
    gone = set(answered) - elsewhere - ours - set(stock.variables.values()) - words
    assert gone == set()
