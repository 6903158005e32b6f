"""Every option of `mlflow server --help`, and every variable that its code reads, has an answer here."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from headrace import stock_options
from headrace.settings import SETTINGS

# Where MLflow's server looks at variables: what only clients, models and autologging read is none of a server's.
SOURCES = (
    *("server", "store", "gateway", "webhooks", "telemetry", "cli/__init__.py", "__init__.py"),
    *("utils/crypto.py", "utils/logging_utils.py", "utils/providers.py", "utils/server_cli_utils.py"),
    *("utils/validation.py", "utils/workspace_utils.py", "tracing/trace_archival_config.py"),
    "tracing/trace_rollup_service.py",
)
SCRIPT = """
import json
import mlflow.environment_variables as variables
from mlflow.cli import cli, server
named = {name: found.name for name, found in vars(variables).items() if hasattr(found, "type")}
options = [(p.opts + p.secondary_opts, p.envvar) for p in server.params]
print(json.dumps([options, [p.opts[0] for p in cli.params], named]))
"""
Options = list[tuple[list[str], str | None]]
Found = tuple[Options, list[str], dict[str, str]]


@pytest.fixture(scope="module")
def stock() -> Found:
    """`mlflow server`'s options with their variables, those of `mlflow`, and environment_variables.py's names."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found: Found = msgspec.json.decode(done.stdout.splitlines()[-1], type=Found)
    return found


def variables_with_an_answer() -> list[str]:
    tables = (stock_options.WORKS, stock_options.STOCKS, stock_options.WITHOUT_EFFECT, stock_options.CLIENTS)
    names = [name for table in tables for row in table for name in row.names]
    names += [refused.environment for refused in stock_options.REFUSED if refused.environment]
    return names + [setting.environment for setting in SETTINGS]


def test_every_option_has_an_answer(stock: Found) -> None:
    options, of_mlflow, _ = stock
    ours = {setting.flag: setting.environment for setting in SETTINGS if setting.from_mlflow}
    ours |= {flag: refused.environment for refused in stock_options.REFUSED for flag in refused.flags}
    for flags, environment in options:
        assert flags[0] in ours
        assert environment in (ours[flags[0]], None)
    assert set(of_mlflow) == {"--version", "--env-file"}


def test_every_variable_has_one_answer(stock: Found) -> None:
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
    _, _, named = stock
    assert len(named) > 200
    read = {environment for name, environment in named.items() if name in words and not environment.startswith("_")}
    answered = variables_with_an_answer()
    assert sorted(read - set(answered)) == []
    assert len(answered) == len(set(answered))
    # and none that MLflow has no more
    elsewhere = {"FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "UVICORN_*"}
    elsewhere |= {"UVICORN_SSL_CERTFILE", "UVICORN_SSL_KEYFILE"}
    ours = {setting.environment for setting in SETTINGS}
    gone = set(answered) - elsewhere - ours - set(named.values()) - words
    assert gone == set()
