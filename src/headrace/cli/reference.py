"""Two pages made from tables, settings.md and mlflow-server-options.md: `python -m headrace.cli.reference FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.settings.table import CONTAINER, SETTINGS
from headrace.stock_options import CLIENTS, REFUSED, STOCKS, WITHOUT_EFFECT, WORKS, Variables

_HEAD = """\
# Settings

<!-- Made by `python -m headrace.cli.reference docs/reference`. -->

`headrace serve` takes the options and environment variables of `mlflow server`; they mean the same. An option wins
over its environment variable, and that over the container's variables. An empty environment variable counts as unset.
Prefer an environment variable for a URI with a password: an argument shows in `ps` for the moment that the command
needs to start again without it. `--env-file FILE` reads variables from a file, as `mlflow --env-file` does; those
that are set win over it. Every option and variable of `mlflow server`, and what becomes of it here:
[mlflow-server-options.md](mlflow-server-options.md).
"""
_CONTAINER = """
## The container's variables

Used when `HOST` and `DATABASE` are set and `--backend-store-uri` is not. The server then listens on every interface.

| variable | what it is |
|---|---|
"""
_OWN = """
## Headrace's own

"""
_OPTIONS = """\
# Every option and variable of `mlflow server`

<!-- Made by `python -m headrace.cli.reference docs/reference`. -->

Each works, is followed by stock MLflow in what it answers, or is refused by name: Headrace does not start with what it
would have to ignore. What is harmless and has no effect is said in a line at the start. A test walks
`mlflow server --help` and MLflow's environment_variables.py, and fails on what has no row here.

## Options

| option | environment variable | here |
|---|---|---|
"""
_VARIABLES = """
## Variables without an option

| variable | here |
|---|---|
"""
_CLIENTS = """
## Variables that no server reads

MLflow's code for servers names these, for when it is a client of something itself.

| variable | |
|---|---|
"""


def render() -> str:
    """The page."""
    common = [setting for setting in SETTINGS if setting.from_mlflow]
    own = [setting for setting in SETTINGS if not setting.from_mlflow]
    page = _HEAD
    for title, settings in (("\n## As `mlflow server` has them\n\n", common), (_OWN, own)):
        page += title + "| option | environment variable | default | what it does |\n|---|---|---|---|\n"
        for setting in settings:
            names = "" if setting.secret else f"`{setting.flag}`" + (f", `{setting.short}`" if setting.short else "")
            page += f"| {names} | `{setting.environment}` | {setting.default} | {setting.help} |\n"
    page += _CONTAINER + "".join(f"| `{name}` | {what} |\n" for name, what in CONTAINER.items())
    return page


def render_options() -> str:
    """The page of `mlflow server`'s options and variables."""
    page = _OPTIONS
    for setting in SETTINGS:
        if setting.from_mlflow:
            names = f"`{setting.flag}`" + (f", `{setting.short}`" if setting.short else "")
            page += f"| {names} | `{setting.environment}` | works |\n"
    broken = "a line that can't be read is an error that names it (stock warns and goes on without it)"
    page += f"| `--env-file` (of `mlflow`) | | works; {broken} |\n"
    for refused in REFUSED:
        if refused.flags:
            environment = f"`{refused.environment}`" if refused.environment else ""
            page += f"| `{refused.flags[0]}` | {environment} | refused: {refused.instead} |\n"
    page += _VARIABLES
    for setting in SETTINGS:
        if not setting.from_mlflow and setting.environment.startswith("MLFLOW_"):
            page += f"| `{setting.environment}` | works, as `{setting.flag}` does; the default is {setting.default} |\n"
    page += "".join(f"| `{row.environment}` | refused: {row.instead} |\n" for row in REFUSED if not row.flags)
    page += _rows((*WORKS, *STOCKS, *WITHOUT_EFFECT))
    return page + _CLIENTS + _rows(CLIENTS)


def _rows(table: tuple[Variables, ...]) -> str:
    return "".join(f"| {', '.join(f'`{name}`' for name in row.names)} | {row.answer} |\n" for row in table)


PAGES = {"settings.md": render, "mlflow-server-options.md": render_options}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (Path(sys.argv[1]) / name).write_text(make(), encoding="utf-8")
