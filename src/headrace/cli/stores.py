"""Settings of the server as options of other commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from headrace.cli.serve import option
from headrace.settings.resolve import resolve
from headrace.settings.table import SETTINGS

Command = Callable[..., Any]


def with_settings(*names: str, store: str | None = None) -> Callable[[Command], Any]:
    """Give a command the options of these settings. It gets the Settings, and its own options by name.

    `store`: the command's argument that names the backend store.
    """

    def decorate(command: Command) -> Any:
        @wraps(command)
        def run(**options: Any) -> Any:
            texts = {name: options.pop(name) for name in names}
            given = {name: str(text).lower() if text is True else text for name, text in texts.items() if text}
            if store is not None:
                given["backend_store_uri"] = options[store]
            return command(resolve(given, os.environ, serves=False), **options)

        decorated: Any = run
        for setting in SETTINGS:
            if setting.name in names:
                decorated = option(setting)(decorated)
        return decorated

    return decorate


def with_stores(command: Command) -> Any:
    """Give a command the options that name the stores, and URL as `mlflow db upgrade` takes it."""
    decorated = with_settings("backend_store_uri", "registry_store_uri")(command)

    @wraps(decorated)
    def run(url: str | None, backend_store_uri: str | None, **options: Any) -> Any:
        return decorated(backend_store_uri=backend_store_uri or url, **options)

    return click.argument("url", required=False)(run)
