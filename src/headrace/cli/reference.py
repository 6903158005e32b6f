"""docs/reference/settings.md, made from the table of settings: `python -m headrace.cli.reference FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.settings import CONTAINER, SETTINGS
from headrace.unsupported_options import REFUSED

_HEAD = """\
# Settings

<!-- Made by `python -m headrace.cli.reference docs/reference/settings.md`. -->

`headrace serve` takes the options and environment variables of `mlflow server`; they mean the same. An option wins
over its environment variable, and that over the container's variables. An empty environment variable counts as unset.
Prefer an environment variable for a URI with a password: an argument shows in `ps` for the moment that the command
needs to start again without it.
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
_REFUSED = """
## What `mlflow server` has and Headrace does not

Headrace does not start with one of these, instead of ignoring it.

| option | environment variable | what to do instead |
|---|---|---|
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
    page += _REFUSED
    for refused in REFUSED:
        flags = ", ".join(f"`{flag}`" for flag in refused.flags)
        page += f"| {flags} | {f'`{refused.environment}`' if refused.environment else ''} | {refused.instead} |\n"
    return page


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
