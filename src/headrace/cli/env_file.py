"""`--env-file`, as `mlflow --env-file FILE server` has it: variables from a file, which those that are set win over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.errors import ConfigurationError


def _load(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not Path(value).is_file():
        raise ConfigurationError(f"--env-file is {value}, but there is no such file.")
    try:
        from dotenv import load_dotenv
        from dotenv.parser import parse_stream
    except ModuleNotFoundError:  # the slim image
        raise ConfigurationError(
            "--env-file needs python-dotenv, which is not installed here. Use docker's own --env-file, or install it."
        ) from None
    try:
        with open(value, encoding="utf-8") as file:
            broken = [each.original.line for each in parse_stream(file) if each.error]
        if broken:  # without it a server may start that asks nobody who they are
            raise ConfigurationError(
                f"--env-file is {value}, whose line {broken[0]} is none that can be read: a name, =, and a value whose "
                "quotes end."
            )
        load_dotenv(value, override=False)
    except (OSError, ValueError) as error:  # ValueError: bytes that are no UTF-8, a NUL in a value
        raise ConfigurationError(
            f"--env-file is {value}, which can't be read: {error}. It has lines NAME=VALUE."
        ) from None


def env_file(command: Any) -> Any:
    """The option, read before all others."""
    text = "Environment variables from a file of lines NAME=VALUE; those that are set already win over it."
    return click.option("--env-file", metavar="FILE", callback=_load, is_eager=True, expose_value=False, help=text)(
        command
    )
