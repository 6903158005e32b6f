"""`headrace serve`: its options come from headrace.settings.table."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from headrace import log
from headrace.cli.env_file import env_file
from headrace.errors import ConfigurationError
from headrace.settings.resolve import resolve
from headrace.settings.table import SETTINGS, Setting
from headrace.settings.values import parse_boolean
from headrace.stock_options import REFUSED, Refused


def option(setting: Setting) -> Callable[[Any], Any]:
    """The click option of a setting. Its value is a text; `resolve` reads it, and the environment."""
    text = f"{setting.help}  [env: {setting.environment}; default: {setting.default}]"
    if setting.parse is parse_boolean:
        names = setting.flag
        if setting.name == "serve_artifacts":
            names += "/--no-serve-artifacts"
        if setting.name == "enable_workspaces":
            names += "/--disable-workspaces"
        return click.option(names, setting.name, is_flag=True, default=None, help=text)
    names_of_text = [setting.flag] + ([setting.short] if setting.short else [])
    metavar = "|".join(setting.choices) or setting.name.split("_")[-1].upper()
    return click.option(*names_of_text, setting.name, metavar=metavar, default=None, help=text)


def _refusal(refused: Refused) -> Callable[[Any], Any]:
    def refuse(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            raise ConfigurationError(f"{parameter.opts[0]} is an option of mlflow server, but {refused.instead}.")

    def decorate(command: Any) -> Any:
        for flag in refused.flags:
            kind: dict[str, Any] = {} if refused.takes_value else {"is_flag": True}
            command = click.option(flag, expose_value=False, hidden=True, callback=refuse, default=None, **kind)(
                command
            )
        return command

    return decorate


def options(command: Any) -> Any:
    """Add an option for each setting, and a hidden one for each refused option of `mlflow server`."""
    for refused in REFUSED:
        command = _refusal(refused)(command)
    for setting in reversed(SETTINGS):
        if not setting.secret:
            command = option(setting)(command)
    return command


@click.command()
@env_file
@options
def serve(**values: Any) -> int:
    """Run the MLflow tracking server: the UI and the REST API.

    The options are those of mlflow server. Without any, runs go to SQLite and artifacts to files, both in
    ./headrace-data.
    """
    from headrace.serve import serve

    flags = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
    lines: list[str] = []
    settings = resolve({name: text for name, text in flags.items() if text is not None}, os.environ, lines.append)
    log.set_format(settings.log_format)
    for line in lines:
        log.say(line, "WARNING")
    return serve(settings)
