"""The options that name a database's stores, for the commands of `headrace db`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from headrace.cli.serve import option
from headrace.settings import SETTINGS, resolve

_NAMES = ("backend_store_uri", "registry_store_uri")


def with_stores(command: Callable[..., None]) -> Any:
    """Give a command the options that name the stores, and URL as `mlflow db upgrade` takes it.

    The command gets the Settings, and its own options by name.
    """

    def run(url: str | None, **options: Any) -> None:
        flags = {name: options.pop(name) for name in _NAMES}
        given = {name: text for name, text in flags.items() if text is not None}
        if url is not None:
            given.setdefault("backend_store_uri", url)
        command(resolve(given, os.environ), **options)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    decorated: Any = click.argument("url", required=False)(run)
    for setting in SETTINGS:
        if setting.name in _NAMES:
            decorated = option(setting)(decorated)
    return decorated
